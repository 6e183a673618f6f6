"""Figures of a model: what is compared with what, on cases whose answer is known."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from e3dge_video.evaluation.judge import HeadJudge
from e3dge_video.evaluation.new_views import new_view_figures, surface_normals
from e3dge_video.evaluation.novel_views import ellipse_cameras, novel_view_figures
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import pixel_directions
from e3dge_video.inversion.inverter import Inverter
from e3dge_video.inversion.load import load_inverter
from e3dge_video.models.attributes import AttributeNet
from e3dge_video.training.head_views import HeadViews

needs_heads = pytest.mark.skipif(importlib.util.find_spec("anny") is None, reason="needs the extra [heads]")


@pytest.fixture(scope="module")
def starter() -> Inverter:
    return load_inverter("starter")


def test_normals_of_a_plane_and_of_a_sphere() -> None:
    camera = Camera.from_pose(torch.tensor([[0.3, -0.2, 0.1, 0.0, 0.0, 0.0]]))
    rays, eye = pixel_directions(camera, 64)[0], camera.position[0]
    plane = torch.nn.functional.normalize(torch.tensor([0.2, 0.1, 1.0]), dim=0)
    depth = (-(eye @ plane) / (rays @ plane)).view(1, 1, 64, 64)
    found = surface_normals(depth, camera)[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(found, plane.view(3, 1, 1).expand_as(found), rtol=0, atol=2e-4)
    radius, along = 0.3, rays @ eye
    root = along.square() - eye @ eye + radius**2
    hit = root > 0.02
    length = torch.where(hit, -along - root.clamp_min(0).sqrt(), 0.0)
    found = surface_normals(length.view(1, 1, 64, 64), camera)[0].flatten(1).T
    error = torch.rad2deg(torch.arccos((found * (eye + rays * length[:, None]) / radius).sum(dim=1).clamp(-1, 1)))
    assert float(error[root > 0.04].max()) < 1.5


def test_the_ellipse_is_the_papers(starter: Inverter) -> None:
    pose = ellipse_cameras(starter).pose()
    assert len(pose) == 250 and len(torch.unique(pose.round(decimals=5), dim=0)) == 250
    on_it = (pose[:, 0] / 0.45).square() + (pose[:, 1] / 0.225).square()
    torch.testing.assert_close(on_it, torch.ones(250), rtol=0, atol=1e-3)


def test_an_inversion_that_knows_the_head_has_no_error_in_any_view(starter: Inverter) -> None:
    class Knowing(Inverter):
        """Takes the head's own code, whatever the picture shows."""

        def invert(self, image: torch.Tensor, *_: Any, **__: Any) -> Any:
            rng = np.random.default_rng([3, 1])
            z = torch.from_numpy(rng.standard_normal((1, self.generator.z_dim)).astype(np.float32))
            latents = self.generator.map(z)
            return replace(starter.invert(image), latents=latents, planes=self.generator.planes(latents))

    knowing = object.__new__(Knowing)
    knowing.__dict__.update(starter.__dict__)
    judge = HeadJudge(starter)
    table = novel_view_figures(starter, {"known": knowing}, judge, 1, views=3, seed=3)
    exact = table["global code"]
    assert exact["MAE"] < 1e-4 and exact["SSIM"] > 0.999 and abs(exact["features"]) < 1e-3 and exact["E0"] > 0.999
    found, one_by_one = (
        novel_view_figures(starter, {"E0": starter}, judge, 2, views=3, seed=3, batch=size) for size in (5, 1)
    )
    assert found["global code"]["MAE"] > 0.02, "E0 does not know it exactly"
    assert found["E0"]["MAE"] == pytest.approx(one_by_one["E0"]["MAE"], abs=1e-5)


@needs_heads
def test_an_exact_view_is_the_data_sets_own(tiny_heads: Path, tiny_views: HeadViews) -> None:
    from e3dge_video.evaluation.exact_heads import exact_view

    truth = exact_view(tiny_views.z[4], tiny_views.cameras[4, 1], 64)
    stored = tiny_views.view(4, 1)
    alpha = stored.rgba[..., 3:] / 255
    expected = (alpha * (stored.rgba[..., :3] / 127.5 - 1)).transpose(2, 0, 1)
    np.testing.assert_allclose(truth.image[0].numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(truth.depth[0, 0].numpy(), stored.depth.astype(np.float32), rtol=0, atol=2e-3)
    there = truth.depth[0, 0] > 0
    torch.testing.assert_close(truth.normal[0].norm(dim=0)[there], torch.ones(int(there.sum())), rtol=0, atol=1e-3)


@needs_heads
def test_new_views_of_the_starter_are_like_the_heads(starter: Inverter, tiny_views: HeadViews) -> None:
    figures = new_view_figures(starter, tiny_views, [7, 8])
    assert set(figures) == {"psnr", "psnr_head", "ssim", "depth", "normal_deg"}
    assert figures["psnr"] > 18 and figures["depth"] < 0.02 and figures["normal_deg"] < 45


@needs_heads
def test_an_edit_is_measured_against_its_exact_render(starter: Inverter, tiny_views: HeadViews) -> None:
    from e3dge_video.evaluation.edit_accuracy import edit_accuracy, linearity, strength_curve

    torch.manual_seed(0)
    reader = AttributeNet(len(tiny_views.attribute_names)).eval()
    right = edit_accuracy(starter, reader, tiny_views, "sunglasses", [7, 8])
    assert right.correlation > 0.5 and 0.3 < right.gain < 1.5
    assert len(right.changes) == len(tiny_views.attribute_names) and right.leak > 0
    curve = strength_curve(starter, reader, tiny_views, "smile", [7, 8], [0.0, 0.5])
    assert curve[0] == 0 and curve[1] != 0
    assert linearity([-1, 0.5, 1], [-2, 1, 2]) == pytest.approx(1)
    assert linearity([0.5, 1], [1, 1]) == pytest.approx(1 - (0.4**2 + 0.2**2) / 2)
