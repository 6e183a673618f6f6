"""From a bundle's folder to pictures: the method with either generator behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import e3dge_video
from e3dge_video.config.backbones import GeneratorConfig
from e3dge_video.errors import ModelError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.face_template import MEAN_68
from e3dge_video.inversion.inverter import _continued_to_border
from e3dge_video.inversion.load import load_settler
from e3dge_video.weights.bundle import read_bundle, write_bundle
from tests.support.tiny_model import GENERATOR, STYLESDF, write_tiny_bundle


@pytest.fixture(scope="module", params=[GENERATOR, STYLESDF], ids=["eg3d", "stylesdf"])
def config(request: pytest.FixtureRequest) -> GeneratorConfig:
    return request.param


@pytest.fixture(scope="module")
def folder(config: GeneratorConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("models") / "tiny", config)


@torch.no_grad()
def test_an_inverter_inverts_edits_and_renders(folder: Path, config: GeneratorConfig) -> None:
    inverter = e3dge_video.load_inverter(str(folder))
    side = config.image_resolution
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    landmarks = (torch.as_tensor(MEAN_68[:, :2], dtype=torch.float32) + 0.5).expand(2, -1, -1)
    latents = inverter.observe(image, landmarks).latents
    assert latents.shape == (2, *inverter.generator.latent_shape)

    front = inverter.generator.frontal_camera()
    camera = Camera(front.cam2world.expand(2, -1, -1), front.intrinsics.expand(2, -1, -1))
    inversion = inverter.invert(image, camera, landmarks=landmarks, latents=latents)
    aside = replace(camera, cam2world=camera.cam2world.clone())
    aside.cam2world[:, 0, 3] += 0.05 * camera.position.norm(dim=-1)
    seen = inverter.synthesize(inversion, camera)
    edited = inverter.edit(inversion, latents + 3 * inverter.directions["age"])
    for picture in (inverter.synthesize(inversion, aside), inverter.synthesize(inversion, camera, edited)):
        assert picture.image.shape == (2, 3, side, side) and picture.depth.shape == picture.alpha.shape
        assert all(bool(values.isfinite().all()) for values in vars(picture).values())
        assert float((picture.image - seen.image).abs().max()) > 1e-3


@torch.no_grad()
def test_a_picture_alone_will_do(folder: Path, config: GeneratorConfig) -> None:
    """Camera, code and landmarks are the model's own where none are given; what is given is used."""
    inverter = e3dge_video.load_inverter(str(folder))
    side = config.image_resolution
    image = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
    landmarks = inverter.own_landmarks(image)
    assert landmarks.shape == (2, 68, 2) and bool(landmarks.isfinite().all())
    inversion, seen = inverter.invert(image), inverter.observe(image, landmarks)
    assert torch.equal(inversion.latents, seen.latents)
    assert torch.equal(inversion.camera.cam2world, seen.camera.cam2world)
    front = inverter.generator.frontal_camera()
    given = inverter.invert(image, Camera(front.cam2world.expand(2, -1, -1), front.intrinsics.expand(2, -1, -1)))
    assert torch.equal(given.latents, seen.latents) and not torch.equal(given.coarse.color, inversion.coarse.color)


def test_the_settler_reads_codes(folder: Path, config: GeneratorConfig) -> None:
    rows, width = config.latent_shape
    settler = load_settler(folder)
    assert settler.face_points(torch.zeros(1, rows, width)).shape == (1, 68, 3)
    assert settler.expression.shape == (4, width)


def test_parts_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    bundle = read_bundle(folder)
    encoder = dict(bundle.tensors["encoder.safetensors"])
    del encoder["face_points.mean_points"]
    write_bundle(tmp_path, bundle.spec, {**bundle.tensors, "encoder.safetensors": encoder})
    with pytest.raises(ModelError, match=r"does not fit its model.json \(missing 1, e.g. mean_points\)"):
        e3dge_video.load_inverter(str(tmp_path))
    del bundle.tensors["edits.safetensors"]
    write_bundle(tmp_path, bundle.spec, bundle.tensors)
    with pytest.raises(ModelError, match=r"has no edits.safetensors"):
        e3dge_video.load_inverter(str(tmp_path))


def test_the_border_continues_what_lies_inside() -> None:
    color = torch.rand(1, 3, 96, 96)
    settled = _continued_to_border(color)
    torch.testing.assert_close(settled[..., 2:-2, 2:-2], color[..., 2:-2, 2:-2], rtol=0, atol=0)
    torch.testing.assert_close(settled[..., 0, 2:-2], color[..., 2, 2:-2], rtol=0, atol=0)
    tiny = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(_continued_to_border(tiny), tiny, rtol=0, atol=0)
