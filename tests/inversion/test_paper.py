"""The paper's inverter over both generators with every kind of local branch, with untrained encoders."""

from __future__ import annotations

from functools import cache
from typing import Literal

import pytest
import torch
from torch import Tensor

from e3dge_video.config.encoders import LocalBranchConfig
from e3dge_video.config.stylesdf import SirenConfig, StyleDecoderConfig, StyleSDFConfig, SurfaceVolumeConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.branch_views import optical_depth, released_view, smooth_view
from e3dge_video.inversion.detail import normalised_depth
from e3dge_video.inversion.paper import PaperInversion, PaperInverter, ReleasedObserver, TaughtObserver
from e3dge_video.models.build import build_psp, orbit_of
from e3dge_video.models.discriminators import ViewpointDiscriminator
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.encoders.pose_encoder import ViewpointEncoder
from e3dge_video.models.encoders.psp import HybridPSP
from e3dge_video.models.generators.eg3d.generator import EG3D
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender
from tests.support.tiny_model import BRANCH, GENERATOR, PSP

Local = Literal["none", "projected", "aligned", "hybrid"]
Kind = Literal["stylesdf", "eg3d"]
TINY = StyleSDFConfig(
    resolution=8,
    siren=SirenConfig(width=12, depth=3),
    volume=SurfaceVolumeConfig(samples=6),
    decoder=StyleDecoderConfig(w_dim=20, channels=(8, 4), mapping_layers=2, lr_multiplier=1.0),
)
KINDS: tuple[Kind, ...] = ("stylesdf", "eg3d")


@cache
def inverter(kind: Kind, local: Local, visibility: Literal["in_image", "depth"] = "in_image") -> PaperInverter:
    torch.manual_seed(0)
    observer: ReleasedObserver | TaughtObserver
    generator: StyleSDF | EG3D
    if kind == "stylesdf":
        generator = StyleSDF(TINY)
        generator.measure_mean(torch.randn(16, 12))
        observer = ReleasedObserver(HybridPSP(4, 12, 4, 20, PSP.stages), ViewpointDiscriminator((8, 8, 8)))
    else:
        generator = EG3D(GENERATOR)
        with torch.no_grad():
            generator.decoder.output.weight[0].mul_(20)
        encoder = build_psp(PSP, GENERATOR)
        observer = TaughtObserver(encoder, ViewpointEncoder(*encoder.feature_shape))
    branch = None
    if local != "none":
        config = LocalBranchConfig(**{**vars(BRANCH), "mode": local, "visibility": visibility})
        branch = LocalBranch(config, generator.feature_width)
    view = released_view if kind == "stylesdf" else smooth_view
    model = PaperInverter(generator, observer, view, orbit_of(generator.config), branch, directions={})
    return model.eval().requires_grad_(False)


@cache
def image(count: int = 1) -> Tensor:
    return torch.rand(count, 3, 512, 512, generator=torch.Generator().manual_seed(1)) * 2 - 1


@cache
def inverted(kind: Kind, local: Local) -> PaperInversion:
    return inverter(kind, local).invert(image())


def aside(model: PaperInverter, count: int = 1) -> Camera:
    return model.generator.camera_at(torch.tensor([[0.2, -0.1]]).expand(count, -1))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_local_branch_the_global_reconstruction_is_all(kind: Kind) -> None:
    model, inversion = inverter(kind, "none"), inverted(kind, "none")
    assert inversion.detail is None
    plain = model.generator.render(model.generator.planes(inversion.latents), aside(model))
    assert torch.equal(model.render(inversion, aside(model)).features, plain.features)
    seen = model.synthesize(inversion, aside(model))
    size = model.generator.config.image_resolution  # type: ignore[attr-defined]
    assert seen.image.shape == (1, 3, size, size) and seen.depth.shape == seen.alpha.shape == (1, 1, size, size)
    shown = model.reconstruction(inversion)
    assert torch.equal(shown.image, model.synthesize(inversion, inversion.camera).image)
    assert float(shown.weight.min()) == 1 and shown.lifted is None


def test_residual_and_codes_of_the_released_model() -> None:
    """Δ is what the coarse reconstruction lacks of the reduced picture; untrained offsets are small but there."""
    model, inversion = inverter("stylesdf", "none"), inverted("stylesdf", "none")
    small = torch.nn.functional.avg_pool2d(image(), 2)
    coarse = inversion.coarse.rgb.repeat_interleave(32, dim=2).repeat_interleave(32, dim=3)
    torch.testing.assert_close(small, coarse + inversion.residual, rtol=0, atol=1e-6)
    generator = model.generator
    assert isinstance(generator, StyleSDF)
    field, decoder = generator.unpack(inversion.latents - generator.mean_latents)
    assert len(field[0].unique(dim=0)) == 4, "every row of the field has a head of its own"
    assert len(decoder[0].unique(dim=0)) == 1, "the decoder's rows share one"


@pytest.mark.parametrize("kind", KINDS)
def test_the_branch_sees_what_its_generator_is_trained_with(kind: Kind) -> None:
    model, inversion = inverter(kind, "hybrid"), inverted(kind, "hybrid")
    view, coarse = model.view(inversion.coarse, inversion.camera), inversion.coarse
    assert view.picture.shape == (1, 3, 256, 256) and view.depth.shape == (1, 1, 256, 256)
    side = 256 // coarse.rgb.shape[-1]
    middle = slice(side // 2, None, side)
    if kind == "stylesdf":
        assert isinstance(coarse, SurfaceRender)
        assert torch.equal(view.picture[..., middle, middle], coarse.rgb)
        assert torch.equal(view.depth[..., middle, middle], optical_depth(coarse, inversion.camera))
    else:
        assert not torch.equal(view.picture[..., middle, middle], coarse.rgb), "smooth"
        assert float((view.picture.mean() - coarse.rgb.mean()).abs()) < 1e-2
        assert float(view.depth.min()) >= 0 and float(view.depth.max()) <= 1
        assert float((view.depth.mean() - normalised_depth(coarse.depth).mean()).abs()) < 1e-2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("local", ["projected", "aligned", "hybrid"])
def test_detail_starts_as_nothing_and_changes_colours_only(kind: Kind, local: Local) -> None:
    model, inversion = inverter(kind, local), inverted(kind, local)
    assert inversion.detail is not None and model.local is not None
    assert (inversion.detail.features is None) == (local == "aligned")
    planes, side = model.generator.planes(inversion.latents), aside(model)
    plain = model.generator.render(planes, side)
    detail = model.detail(inversion, plain, side)
    assert detail is not None
    assert torch.equal(model.generator.render(planes, side, modulation=detail).features, plain.features)
    with speaking(model):
        rendered = model.render(inversion, side)
        assert float((rendered.rgb - plain.rgb).abs().max()) > 1e-3
        assert torch.equal(rendered.depth, plain.depth)


class speaking:  # noqa: N801
    """Within it, the branch of a model has something to say."""

    def __init__(self, model: PaperInverter) -> None:
        assert model.local is not None
        self.last = [p for p in model.local.film_head.parameters() if not p.any()]
        assert self.last

    def __enter__(self) -> None:
        torch.manual_seed(2)
        for parameter in self.last:
            torch.nn.init.normal_(parameter, std=0.3)

    def __exit__(self, *_: object) -> None:
        for parameter in self.last:
            torch.nn.init.zeros_(parameter)


@pytest.mark.parametrize("kind", KINDS)
def test_edits_realign_the_residual(kind: Kind) -> None:
    model, inversion = inverter(kind, "hybrid"), inverted(kind, "hybrid")
    edited = model.edit(inversion, inversion.latents + 0.3)
    assert torch.equal(edited.residual, inversion.residual)
    assert not torch.equal(edited.coarse.rgb, inversion.coarse.rgb)
    assert edited.detail is not None and inversion.detail is not None
    before, after = inversion.detail.features, edited.detail.features
    assert before is not None and after is not None and not torch.equal(before, after)


@pytest.mark.parametrize("kind", KINDS)
def test_one_backbone_pass_for_any_number_of_views(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes = inverter(kind, "hybrid"), 0
    planes = model.generator.planes

    def counted(latents: Tensor) -> object:
        nonlocal passes
        passes += 1
        return planes(latents)

    monkeypatch.setattr(model.generator, "planes", counted)
    inversion = model.invert(image())
    for camera in (inversion.camera, aside(model), model.generator.frontal_camera()):
        model.synthesize(inversion, camera)
    assert passes == 1
    edited = model.edit(inversion, inversion.latents + 0.1)
    for camera in (inversion.camera, aside(model)):
        model.synthesize(inversion, camera, edited)
    assert passes == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_does_not_depend_on_what_else_is_in_its_batch(kind: Kind) -> None:
    model = inverter(kind, "hybrid")
    a, b, c = image(3).split(1)
    with speaking(model):
        first, second = (
            model.synthesize(model.invert(torch.cat(batch)), aside(model, 3)).image for batch in ((a, b, b), (a, c, a))
        )
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], second[1])


@pytest.mark.parametrize("kind", KINDS)
def test_known_cameras_and_codes_are_taken(kind: Kind) -> None:
    model, inversion = inverter(kind, "none"), inverted(kind, "none")
    camera = aside(model)
    known = model.invert(image(), camera, latents=inversion.latents + 1)
    assert known.camera is camera and torch.equal(known.latents, inversion.latents + 1)
    placed = model.invert(image(), camera)
    assert torch.equal(placed.latents, inversion.latents) and not torch.equal(placed.coarse.rgb, inversion.coarse.rgb)


@pytest.mark.parametrize("kind", KINDS)
def test_the_orbit_passes_through_the_frontal_camera(kind: Kind) -> None:
    model = inverter(kind, "none")
    front, orbit = model.generator.frontal_camera(), model.orbit
    torch.testing.assert_close(orbit.camera(torch.zeros(1, 6)).cam2world, front.cam2world, rtol=0, atol=1e-5)
    torch.testing.assert_close(orbit.camera(torch.zeros(1, 6)).intrinsics, front.intrinsics, rtol=0, atol=1e-5)
