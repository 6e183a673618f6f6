"""The cartoon style: the same latent code, drawn plainly, with depth and labels as exact as ever."""

from __future__ import annotations

import numpy as np
import pytest

from e3dge_video.heads.edits import edit
from e3dge_video.heads.latent import LAYOUT
from e3dge_video.heads.outlines import draw_outlines
from e3dge_video.heads.paint import LABEL
from e3dge_video.heads.raster import project, rasterize
from e3dge_video.heads.render import RenderedHead, render
from e3dge_video.heads.sampler import Head, HeadSampler
from e3dge_video.heads.viewpoints import intrinsics_matrix, look_at

SIZE = 96


@pytest.fixture(scope="module")
def z(sampler: HeadSampler) -> np.ndarray:
    code = sampler.sample(3, seed=4)[2]
    code[LAYOUT["expression"]] = -1.0
    return code


@pytest.fixture(scope="module")
def heads(sampler: HeadSampler, z: np.ndarray) -> tuple[Head, Head]:
    spec = sampler.decode(z)
    return sampler.build(spec), sampler.build(spec, "toon")


@pytest.fixture(scope="module")
def shots(heads: tuple[Head, Head]) -> tuple[RenderedHead, RenderedHead]:
    photo, toon = (render(head, look_at(0.2, 0.0), intrinsics_matrix(), SIZE) for head in heads)
    return photo, toon


def test_the_eyes_are_larger_and_stay_where_they_are(heads: tuple[Head, Head], shots) -> None:
    (photo, toon), (real, drawn) = heads, shots
    eyes = [(drawn.label == LABEL["eye"]).sum(), (real.label == LABEL["eye"]).sum()]
    assert eyes[0] > 1.8 * eyes[1]
    middle = [head.landmarks[36:48].mean(0) for head in (photo, toon)]
    assert np.linalg.norm(middle[0] - middle[1]) < 0.02


def test_skin_is_painted_in_few_tones(shots) -> None:
    def commonest(shot: RenderedHead) -> float:
        """Share of the skin that its three commonest colours cover."""
        skin = shot.rgb[(shot.label == LABEL["skin"]) & (shot.alpha == 255)] // 8
        counts = np.sort(np.unique(skin, axis=0, return_counts=True)[1])
        return float(counts[-3:].sum() / len(skin))

    real, drawn = shots
    assert commonest(drawn) > 1.5 * commonest(real)


def test_depth_is_that_of_the_cartoons_mesh(heads: tuple[Head, Head], shots) -> None:
    head, shot = heads[1], shots[1]
    pose = look_at(0.2, 0.0)
    projected = project(head.vertices, np.linalg.inv(pose).astype(np.float32), intrinsics_matrix(), 2.0 * SIZE, 0.0)
    grid = 2 * SIZE + 1
    inverse = np.zeros((grid, grid), np.float32)
    rasterize(
        projected, head.triangles, head.material >= 6, grid, inverse, np.full((grid, grid), -1, np.int32),
        np.zeros((grid, grid, 2), np.float32),
    )  # fmt: skip
    z = inverse[1::2, 1::2]
    assert np.array_equal(shot.depth > 0, z > 0)
    centre = SIZE // 2  # near the axis a ray is as long as z
    assert shot.depth[centre, centre] == pytest.approx(1 / z[centre, centre], rel=1e-4)


def test_expression_glasses_and_light_still_show(sampler: HeadSampler, z: np.ndarray) -> None:
    def drawn(code: np.ndarray) -> RenderedHead:
        return render(sampler.build(sampler.decode(code), "toon"), look_at(0, 0), intrinsics_matrix(), SIZE)

    plain, open_mouth, closed, spectacles = (
        drawn(code) for code in (z, edit(z, "mouth_open", 1.0), edit(z, "eyes_closed", 1.0), edit(z, "glasses", 1.0))
    )
    inside = [np.isin(shot.label, (LABEL["mouth"], LABEL["teeth"])).sum() for shot in (plain, open_mouth)]
    assert inside[1] > inside[0] + 20
    assert (closed.label == LABEL["eye"]).sum() < 0.35 * (plain.label == LABEL["eye"]).sum()
    assert (spectacles.label == LABEL["glasses"]).sum() > 20 > (plain.label == LABEL["glasses"]).sum()


def test_outlines_stay_within_the_nearer_thing() -> None:
    depth = np.full((20, 20), 0.25, np.float32)
    depth[:, 10:] = 0.5  # a nearer thing on the right
    label = np.full((20, 20), LABEL["skin"], np.uint8)
    label[:, 10:] = LABEL["clothing"]
    colour, normal = np.ones((20, 20, 3), np.float32), np.zeros((20, 20, 3), np.float32)
    draw_outlines(depth, normal, label, 2.0, colour)
    assert (colour[:, :10] == 1).all() and (colour[:, 10] < 0.3).all() and (colour[:, 13:] == 1).all()
