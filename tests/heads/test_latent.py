"""The latent code: layout, frequencies, exact edits."""

from __future__ import annotations

import numpy as np
import pytest

from e3dge_video.heads.decode import ATTRIBUTE_NAMES, attributes, decode
from e3dge_video.heads.edits import EDIT_NAMES, edit
from e3dge_video.heads.latent import (
    ENTRIES,
    GLASSES_OFFSETS,
    INDEX,
    LAYOUT,
    MOVEMENTS,
    Z_DIM,
    argmax_offsets,
    inverse_ramp,
    ramp,
    to_latent,
    to_physical,
)
from e3dge_video.heads.spec import BEARD_STYLES, GLASSES_STYLES, HAIR_STYLES


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    return np.random.default_rng(11).standard_normal((4000, Z_DIM)).astype(np.float32)


@pytest.fixture(scope="module")
def physical(codes: np.ndarray) -> np.ndarray:
    return np.stack([to_physical(z) for z in codes])


def test_layout_covers_every_entry_once() -> None:
    covered = np.concatenate([np.arange(part.start, part.stop) for part in LAYOUT.values()])
    assert covered.tolist() == list(range(Z_DIM))
    assert len(set(ENTRIES)) == Z_DIM


def test_coupling_inverts_exactly(codes: np.ndarray, physical: np.ndarray) -> None:
    for z, u in zip(codes[:50], physical[:50], strict=True):
        np.testing.assert_allclose(to_latent(u), z, atol=1e-6)


def test_argmax_offsets_give_the_frequencies_asked() -> None:
    wanted = {"a": 0.7, "b": 0.2, "c": 0.08, "d": 0.02}
    offsets = np.array(list(argmax_offsets(wanted).values()))
    draws = np.random.default_rng(0).standard_normal((200_000, 4)) + offsets
    got = np.bincount(draws.argmax(1), minlength=4) / len(draws)
    np.testing.assert_allclose(got, list(wanted.values()), atol=0.004)
    assert set(GLASSES_OFFSETS) == set(GLASSES_STYLES)


def test_population_has_the_promised_mix(physical: np.ndarray) -> None:
    specs = [decode(to_latent(u)) for u in physical[:3000]]
    table = [attributes(spec) for spec in specs]
    values = {name: np.array([row[name] for row in table]) for name in ATTRIBUTE_NAMES}
    years = np.array([spec.phenotype.age_years for spec in specs])
    female, adult = values["gender"] > 0.5, years >= 18
    assert 0.02 < (~adult).mean() < 0.06
    np.testing.assert_allclose(np.percentile(years[adult], [25, 50, 75]), [33.5, 49, 64.5], atol=2.5)
    assert 0.47 < female.mean() < 0.53
    assert 0.20 < values["glasses"].mean() < 0.30
    assert 0.01 < values["sunglasses"].mean() < 0.05
    for name in ("smile", "mouth_open", "eyes_closed"):
        assert (values[name] > 0.2).mean() >= 0.35, name
    long_hair = np.array([spec.hair.style in HAIR_STYLES[7:] for spec in specs])
    assert 0.10 < long_hair[~female & adult].mean() < 0.24
    assert 0.20 < (~long_hair)[female & adult].mean() < 0.45
    bearded = np.array([spec.beard.style != "none" for spec in specs])
    assert bearded[values["gender"] > 0.8].mean() < 0.01
    assert 0.4 < bearded[(values["gender"] < 0.2) & adult].mean() < 0.65
    assert not bearded[years < 16].any()
    assert set(BEARD_STYLES) == {spec.beard.style for spec in specs}
    assert {spec.hair.style for spec in specs} == set(HAIR_STYLES)


def test_ramp_is_monotone_and_inverts() -> None:
    x = np.linspace(-0.5, 1.5, 101)
    assert (np.diff(ramp(x)) >= 0).all()
    assert ramp(0.0) == 0 and ramp(1.0) == 1
    assert inverse_ramp(float(ramp(0.37))) == pytest.approx(0.37, abs=1e-9)
    assert set(MOVEMENTS) <= set(INDEX)


#: Attributes that may move with an edit; everything else must stay.
_OWN = {
    "age": {"age", "wrinkles", "hair_grey", "hair_light"},
    "gender": {"gender"},
    "smile": {"smile"},
    "mouth_open": {"mouth_open"},
    "eyes_closed": {"eyes_closed"},
    "glasses": {"glasses", "sunglasses"},
    "sunglasses": {"glasses", "sunglasses"},
    "beard": {"beard", "moustache", "stubble"},
    "moustache": {"beard", "moustache", "stubble"},
    "grey": {"hair_grey", "hair_light"},
    "wrinkles": {"wrinkles"},
    "surprise": {"brow_up", "eyes_wide", "mouth_open"},
    "brow": {"brow_up", "brow_down"},
    "frown": set(),
    "pucker": {"pucker"},
    "long_hair": {"hair_long", "bald"},
    "bald": {"hair_long", "bald"},
    "lipstick": {"lipstick"},
    "skin": {"skin_melanin"},
}


@pytest.mark.parametrize("name", EDIT_NAMES)
def test_edits_change_only_their_own_attributes(name: str, codes: np.ndarray) -> None:
    for z in codes[:40]:
        before = attributes(decode(z))
        for strength in (1.0, -1.0):
            after = attributes(decode(edit(z, name, strength)))
            moved = {key for key in before if abs(before[key] - after[key]) > 1e-4}
            assert moved <= _OWN[name], (name, strength, moved)


def test_edits_raise_their_attribute(codes: np.ndarray) -> None:
    main = {
        "age": "age",
        "gender": "gender",
        "smile": "smile",
        "mouth_open": "mouth_open",
        "eyes_closed": "eyes_closed",
    }
    for name, attribute in main.items():
        gains = [attributes(decode(edit(z, name)))[attribute] - attributes(decode(z))[attribute] for z in codes[:60]]
        assert np.mean(gains) > 0.2 and min(gains) >= -1e-6, name
    for name in ("glasses", "beard", "moustache", "sunglasses", "bald"):
        assert all(attributes(decode(edit(z, name)))[name] >= 0.99 for z in codes[:60]), name
        assert all(attributes(decode(edit(z, name, -1.0)))[name] == 0 for z in codes[:60]), name


def test_edit_of_age_leaves_the_rest_of_the_code(codes: np.ndarray) -> None:
    """What age adds to hair, beard or lips is taken back: those u are the same before and after."""
    for z in codes[:20]:
        before, after = to_physical(z), to_physical(edit(z, "age", 0.8))
        for group in ("hair_style", "beard_style", "glasses_style", "makeup", "expression", "light"):
            np.testing.assert_allclose(after[LAYOUT[group]], before[LAYOUT[group]], atol=1e-5)


def test_zero_strength_and_unknown_names(codes: np.ndarray) -> None:
    np.testing.assert_array_equal(edit(codes[0], "smile", 0.0), codes[0])
    with pytest.raises(ValueError, match="no edit"):
        edit(codes[0], "taller")
