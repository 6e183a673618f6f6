"""The appearance vector: complete, and blind to what cannot be seen."""

from dataclasses import replace

import numpy as np
import pytest

from e3dge_video.heads.appearance import appearance
from e3dge_video.heads.decode import decode
from e3dge_video.heads.edits import EDIT_NAMES, edit
from e3dge_video.heads.latent import Z_DIM


@pytest.fixture
def spec():
    return decode(np.random.default_rng(4).standard_normal(Z_DIM))


def test_every_part_counts(spec):
    seen = appearance(spec)
    assert seen.dtype == np.float32 and seen.ndim == 1 and np.isfinite(seen).all()
    smiling = replace(spec, expression=replace(spec.expression, smile=0.5 + spec.expression.smile))
    lit = replace(spec, light=replace(spec.light, azimuth=spec.light.azimuth + 0.3))
    for other in (smiling, lit):
        assert np.flatnonzero(appearance(other) != seen).size == 1
    dressed = replace(spec, clothing=replace(spec.clothing, colour=(0.1, 0.2, 0.3)))
    assert np.flatnonzero(appearance(dressed) != seen).size == 3


def test_categories_are_one_hot(spec):
    with_frames, without = (replace(spec, glasses=replace(spec.glasses, style=s)) for s in ("thin", "none"))
    difference = appearance(with_frames) - appearance(without)
    assert sorted(difference[difference != 0])[0] == -1 and 1 in difference


def test_what_cannot_be_seen_is_zero(spec):
    bald = [
        replace(spec, hair=replace(spec.hair, style="bald", part=part, colour=colour))
        for part, colour in ((0.1, (0.2, 0.2, 0.2)), (-0.9, (0.8, 0.7, 0.1)))
    ]
    np.testing.assert_array_equal(*map(appearance, bald))


def test_edits_show():
    heads = np.random.default_rng(5).standard_normal((8, Z_DIM)).astype(np.float32)
    for name in EDIT_NAMES:
        changes = [np.abs(appearance(decode(edit(z, name, 1))) - appearance(decode(z))).max() for z in heads]
        assert max(changes) > 0.02, name
