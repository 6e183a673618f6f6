"""Local detail on EG3D: nothing at first, colours only, the same wherever blocks end, in every mode."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Literal

import pytest
import torch
from torch import Tensor

from e3dge_video.config.encoders import LocalBranchConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import project, sample_map, unproject
from e3dge_video.inversion.detail import (
    DEPTH_TOLERANCE,
    LocalDetail,
    SourceDetail,
    View,
    detail_toward,
    edited_source,
    encode_source,
    normalised_depth,
    realigned,
)
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.generators.base import FeatureModulation, RenderOutput
from e3dge_video.models.generators.eg3d.generator import EG3D
from tests.support.tiny_model import GENERATOR

Mode = Literal["unaligned", "projected", "aligned", "hybrid"]
CONFIG = LocalBranchConfig(
    stem_width=4,
    base_width=8,
    channels=16,
    stacks=1,
    depth=1,
    aligner_widths=(4, 4, 8, 8),
    film_head="deep",
    film_width=16,
    coordinate_scale=2.5,
)
FRONT, SIDE = Camera.orbit(0.1, 0.0), Camera.orbit(-0.3, 0.1)


@cache
def generator() -> EG3D:
    torch.manual_seed(0)
    generator = EG3D(GENERATOR)
    with torch.no_grad():
        generator.decoder.output.weight[0].mul_(20)
    return generator.eval().requires_grad_(False)


@cache
def branch(mode: Mode, visibility: Literal["in_image", "depth"] = "in_image") -> LocalBranch:
    torch.manual_seed(1)
    made = LocalBranch(replace(CONFIG, mode=mode, visibility=visibility), generator().feature_width)
    return made.eval().requires_grad_(False)


def rendered(camera: Camera, detail: LocalDetail | None = None, **options: int) -> RenderOutput:
    latents = generator().map(torch.randn(1, 189, generator=torch.Generator().manual_seed(2)))
    return generator().render(generator().planes(latents), camera, modulation=detail, **options)


def view(camera: Camera) -> View:
    seen = rendered(camera)
    large = [torch.nn.functional.interpolate(v, (64, 64), mode="bilinear") for v in (seen.rgb, seen.depth)]
    return View(large[0], normalised_depth(large[1]), unproject(seen.depth, camera), camera)


def residual() -> Tensor:
    return 0.3 * torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def detail(mode: Mode, target: Camera = SIDE) -> LocalDetail:
    source = encode_source(branch(mode), residual(), view(FRONT))
    return detail_toward(branch(mode), residual(), source, view(target))


def speaking(mode: Mode) -> LocalDetail:
    """Local detail with a head that says something."""
    made = LocalBranch(replace(CONFIG, mode=mode), generator().feature_width)
    made.load_state_dict(branch(mode).state_dict())
    torch.manual_seed(4)
    torch.nn.init.normal_(made.film_head.mlp[1].shortcut.weight, std=0.1)
    return replace(detail(mode), branch=made.eval())


@pytest.mark.parametrize("mode", ["unaligned", "projected", "aligned", "hybrid"])
def test_starts_as_nothing_and_never_changes_the_geometry(mode: Mode) -> None:
    plain = rendered(SIDE)
    torch.testing.assert_close(rendered(SIDE, detail(mode)).features, plain.features, rtol=0, atol=1e-6)
    changed = rendered(SIDE, speaking(mode))
    assert float((changed.features - plain.features).abs().max()) > 1e-2
    assert torch.equal(changed.alpha, plain.alpha) and torch.equal(changed.depth, plain.depth)


def test_limits_bound_the_modulation() -> None:
    """Whatever the residual, γ and β stay within their limits; small ones are as without."""
    free = speaking("projected")
    bound = LocalBranch(replace(CONFIG, mode="projected", scale_limit=0.5, shift_limit=2.0), generator().feature_width)
    bound.load_state_dict(free.branch.state_dict())
    points, huge = view(FRONT).surface, 100.0
    for strength, limited in ((huge, True), (1e-3, False)):
        assert free.local_features is not None
        loud = replace(free, local_features=strength * free.local_features)
        plain, film = loud(points), replace(loud, branch=bound)(points)
        assert float(film.scale.abs().max()) <= 0.5 and float(film.shift.abs().max()) <= 2.0
        assert (float(plain.shift.abs().max()) > 2.0) == limited
        if not limited:
            torch.testing.assert_close(film.shift, plain.shift, rtol=0.1, atol=1e-3)


def test_what_each_mode_reads() -> None:
    assert detail("projected").aligned_features is None and detail("projected").local_features is not None
    assert detail("aligned").local_features is None and detail("aligned").visible is None
    hybrid = detail("hybrid")
    assert hybrid.local_features is not None and hybrid.aligned_features is not None and hybrid.visible is not None


def test_without_alignment_detail_stays_where_it_was_in_the_picture() -> None:
    """From the picture's own camera that is the same as projecting; from the side it is what stands there."""
    unaligned, projected = (partial(detail, mode) for mode in ("unaligned", "projected"))
    front, side = view(FRONT), view(SIDE)
    assert torch.equal(unaligned(FRONT).features(front.surface), projected(FRONT).features(front.surface))
    stays = sample_map(unaligned(SIDE).local_features, project(side.surface, SIDE)[0]).transpose(1, 2)
    assert torch.equal(unaligned(SIDE).features(side.surface), stays)
    assert not torch.allclose(stays, projected(SIDE).features(side.surface))


def test_blocks_of_rays_do_not_show() -> None:
    one, many = rendered(SIDE, speaking("hybrid"), block=10_000), rendered(SIDE, speaking("hybrid"), block=33)
    torch.testing.assert_close(one.features, many.features, rtol=0, atol=1e-5)


def test_only_the_heaviest_samples_are_asked() -> None:
    """With as many as there are, all; with fewer, nearly the same picture from fewer points."""
    asked = []

    def modulation(points: Tensor) -> FeatureModulation:
        asked.append(points.shape[1])
        wave = 0.3 * torch.sin(9 * points[..., :1]).expand(-1, -1, generator().feature_width)
        return FeatureModulation(wave, wave)

    def picture(count: int) -> Tensor:
        model = EG3D(replace(GENERATOR, rays=replace(GENERATOR.rays, detail=count)))
        model.load_state_dict(generator().state_dict())
        model.eval().requires_grad_(False)
        latents = model.map(torch.randn(1, 189, generator=torch.Generator().manual_seed(2)))
        asked.clear()
        return model.render(model.planes(latents), SIDE, modulation=modulation, block=10_000).features

    whole, total = picture(16), sum(asked)
    part = picture(8)
    assert sum(asked) * 2 == total
    assert 0 < float((part - whole).abs().mean()) < 0.2 * float((whole - rendered(SIDE).features).abs().mean())


def test_one_head_and_many_views() -> None:
    """Each view has its own modulation, though the head is one."""
    head = generator().planes(generator().map(torch.randn(1, 189, generator=torch.Generator().manual_seed(2))))
    cameras = Camera(torch.cat([FRONT.cam2world, SIDE.cam2world]), FRONT.intrinsics.expand(2, -1, -1))
    sign = torch.tensor([1.0, -1.0])[:, None, None]

    def modulation(points: Tensor) -> FeatureModulation:
        wave = sign[: len(points)] * torch.ones(*points.shape[:2], generator().feature_width)
        return FeatureModulation(0 * wave, wave)

    both = generator().render(head, cameras, modulation=modulation)
    torch.testing.assert_close(
        both.features[:1], generator().render(head, FRONT, modulation=modulation).features, rtol=0, atol=1e-5
    )
    plain = generator().render(head, cameras)
    assert all(float((a - b).abs().max()) > 1e-2 for a, b in zip(both.features, plain.features, strict=True))


def test_visibility_by_depth_hides_what_the_head_covers() -> None:
    """From behind, the surface projects inside the picture, but the picture shows the other side of the head."""
    behind = view(Camera.orbit(3.1, 0.0))
    source = {kind: view(FRONT) for kind in ("in_image", "depth")}
    seen = {}
    for kind, reference in source.items():
        made = branch("hybrid", kind)  # type: ignore[arg-type]
        seen[kind] = detail_toward(made, residual(), encode_source(made, residual(), reference), behind).visible
    assert seen["in_image"] is not None and seen["depth"] is not None
    _, distance = project(behind.surface, FRONT)
    nearest = (source["depth"].surface - FRONT.position[:, None]).norm(dim=-1).min()
    hidden = (distance - nearest > 0.5).view(1, 1, 16, 16)
    assert hidden.any() and DEPTH_TOLERANCE < 0.5
    assert seen["depth"].sum() < seen["in_image"].sum()
    own = detail_toward(
        branch("hybrid", "depth"), residual(), encode_source(branch("hybrid"), residual(), view(FRONT)), view(FRONT)
    )
    assert own.visible is not None and bool((own.visible == 1).all()), "a view sees all of itself"


def test_edits_realign_only_where_there_is_an_aligner() -> None:
    def edited(mode: Mode, changed: bool) -> SourceDetail:
        return edited_source(branch(mode), residual(), view(FRONT), view(FRONT), torch.tensor([changed]))

    assert not torch.equal(edited("hybrid", True).residual, residual())
    assert torch.equal(edited("hybrid", False).residual, residual())
    assert torch.equal(edited("projected", True).residual, residual())
    assert edited("aligned", True).features is None


def test_a_residual_stays_where_an_edit_changes_nothing() -> None:
    """One quarter shows something else, and everything is a little brighter: only that quarter is realigned."""
    before, made = view(FRONT), LocalBranch(replace(CONFIG, mode="hybrid", realign="changed"), 8).eval()
    picture, half = 0.5 * before.picture, before.picture.shape[-1] // 2
    new = 0.1 * torch.ones_like(picture)
    stripes = torch.arange(half) // 2 % 2 * 2.0 - 1
    new[..., :half, :half] += stripes
    before, after = replace(before, picture=picture), replace(before, picture=picture + new)
    with torch.no_grad():
        shown, whole = edited_source(made, residual(), before, after).residual, realigned(made, residual(), after)
    inside, outside = half // 2, half + half // 2
    torch.testing.assert_close(shown[..., 2:inside, 2:inside], whole[..., 2:inside, 2:inside], rtol=0, atol=1e-3)
    own = residual()[..., outside:, outside:]
    torch.testing.assert_close(shown[..., outside:, outside:], own, rtol=0, atol=1e-3)
    assert float((whole[..., outside:, outside:] - own).abs().mean()) > 0.05


def test_gradients_reach_the_whole_branch() -> None:
    made = LocalBranch(replace(CONFIG, mode="hybrid"), generator().feature_width)
    for values in (made.film_head.mlp[1].shortcut.weight, made.film_head.mlp[1].linear1.weight):
        torch.nn.init.normal_(values, std=0.1)
    source = encode_source(made, residual(), view(FRONT))
    seen = rendered(SIDE, detail_toward(made, residual(), source, view(SIDE)))
    seen.features.square().sum().backward()
    untouched = [name for name, value in made.named_parameters() if value.grad is None or not value.grad.any()]
    assert untouched == []
    assert all(p.grad is None for p in generator().parameters())
