"""Whole EG3D generators against the reference: every stage of every recorded case, and its gradients."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from eg3d_reference import (
    COMMITTED,
    DATA,
    TOLERANCES,
    close,
    generator,
    hashgrid,
    metadata,
    relative_error,
    tensors,
)
from safetensors.torch import load_file
from torch import Tensor

from e3dge_video.config.generators import SuperResolutionConfig
from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, box_limits, camera_rays
from e3dge_video.models.generators.base import Planes, RenderOutput
from e3dge_video.models.generators.eg3d.superresolution import SuperResolution
from e3dge_video.models.reference import PlainEG3D
from e3dge_video.models.rendering.compositing import interval_weights
from e3dge_video.models.rendering.sampling import RayDraws, importance_depths, stratified_depths
from e3dge_video.models.rendering.volume import merge_samples, ray_bounds
from e3dge_video.weights.convert_eg3d import rename_layers

CASES = [
    "ffhq512.recorded_nrr32",
    "ffhq512.det_nrr64",
    "ffhq512.det_nrr128",
    *(
        pytest.param(case, marks=pytest.mark.golden)
        for case in (
            "afhq512.recorded_nrr32",
            "cars128.recorded_nrr32",
            "cars128.det_nrr64",
            "cars128_auto.recorded_nrr32",
        )
    ),
]
WITH_GRADIENT = "ffhq512.recorded_nrr32"


@dataclass(frozen=True)
class Forward:
    """One case computed by us, with what the gradient test needs."""

    latents: Tensor
    label: Tensor
    planes: Planes
    rendered: RenderOutput
    image: Tensor


def latents_of(case: str, truncation: float | None = None) -> Tensor:
    data, about = tensors(case), metadata(case)
    cutoff = about["truncation_cutoff"]
    return generator(case.split(".")[0]).map(
        data["in.z"],
        Camera.from_eg3d(data["in.c_mapping"]),
        truncation=float(about["truncation_psi"]) if truncation is None else truncation,
        truncation_cutoff=None if cutoff == "None" else int(cutoff),
    )


def draws_of(case: str) -> RayDraws:
    data, rays = tensors(case), generator(case.split(".")[0]).config.rays
    if "in.u_coarse_q8" not in data:
        return RayDraws.regular(rays.coarse, rays.fine)
    coarse, fine = ((data[f"in.u_{name}_q8"].float() + 0.5) / 256 for name in ("coarse", "fine"))
    return RayDraws(coarse[..., 0], fine.view(*coarse.shape[:2], -1))


@cache
def forward(case: str) -> Forward:
    model, data, about = generator(case.split(".")[0]), tensors(case), metadata(case)
    with torch.set_grad_enabled(case == WITH_GRADIENT):
        # The codes are the recorded ones, so that an error of the mapping network shows once only.
        latents = data["out.ws"].clone().requires_grad_(case == WITH_GRADIENT)
        label = data["in.c_render"].clone().requires_grad_(case == WITH_GRADIENT)
        planes = model.planes(latents, noise=about["noise_mode"])
        # Recorded draws are passed in; the others are what evaluation mode does by itself.
        draws = draws_of(case) if "in.u_coarse_q8" in data else None
        rendered = model.render(
            planes, Camera.from_eg3d(label), resolution=int(about["neural_rendering_resolution"]), draws=draws
        )
        return Forward(latents, label, planes, rendered, model.upsample(rendered, latents))


@pytest.mark.parametrize("case", CASES)
def test_mapping(case: str) -> None:
    data = tensors(case)
    close(latents_of(case), data["out.ws"], TOLERANCES["ws"], "codes")
    close(latents_of(case, truncation=1.0)[:, :1], data["out.ws_psi1"], TOLERANCES["ws"], "untruncated codes")


@pytest.mark.parametrize("case", CASES)
def test_backbone_blocks(case: str) -> None:
    data, model = tensors(case), generator(case.split(".")[0])
    if "stage.b4.x" not in data:
        pytest.skip("the blocks' outputs of this case are only in the full reference set")
    x = image = None
    for level, block in enumerate(model.backbone.blocks):
        rows = data["out.ws"][:, max(2 * level - 1, 0) :]
        x, image = block(x, image, rows, noise=metadata(case)["noise_mode"])
        for name, value in (("x", x), ("img", image)):
            for key in (f"stage.b{4 << level}.{name}", f"stage.b{4 << level}.{name}_s11"):
                if key in data:
                    stride = 11 if key.endswith("_s11") else 1
                    close(value[..., ::stride, ::stride], data[key], TOLERANCES["planes"], key)


@pytest.mark.parametrize("case", CASES)
def test_ray_stages(case: str) -> None:
    """Rays, depths, densities and weights of both passes, on every K-th ray."""
    data, model = tensors(case), generator(case.split(".")[0])
    key = next((key for key in data if key.startswith("stage.depths_coarse_r")), None)
    if key is None:
        pytest.skip("the ray stages of this case are only in the full reference set")
    suffix = re.search(r"_r(\d+)$", key)[0]
    part = slice(None, None, int(suffix[2:]))
    resolution = int(metadata(case)["neural_rendering_resolution"])
    rays = camera_rays(Camera.from_eg3d(data["in.c_render"]), resolution)
    directions = rays.directions if resolution == 32 else rays.directions[:, part]
    close(directions, data["out.ray_directions"], TOLERANCES["ray_directions"], "directions")
    close(rays.origins[:, 0], data["out.ray_origins_first"], TOLERANCES["ray_directions"], "origins")

    near, far = (
        bound[:, part] if isinstance(bound, Tensor) else bound
        for bound in ray_bounds(rays, model.config.rays, model.config.volume.box_warp)
    )
    rays = Rays(rays.origins[:, part], rays.directions[:, part])
    draws = draws_of(case)
    coarse, fine = (value if value.shape[1] == 1 else value[:, part] for value in (draws.coarse, draws.fine))
    field = model.field(forward(case).planes.detach())

    def density(depths: Tensor) -> Tensor:
        points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
        seen = field(points.flatten(1, 2))
        return seen.density.view(depths.shape), seen.features.unflatten(1, depths.shape[1:])

    def check(name: str, ours: Tensor, tolerance: str) -> None:
        close(ours, data[f"stage.{name}{suffix}"].squeeze(-1), TOLERANCES[tolerance], name)

    depths = stratified_depths(near, far, coarse).expand(*rays.origins.shape[:2], -1)
    check("depths_coarse", depths, "depths_coarse")
    densities, features = density(depths)
    check("sigma_coarse", densities, "sigma_coarse")
    close(features[..., :3], data[f"stage.rgb3_coarse{suffix}"], TOLERANCES["planes"], "colours")
    weights = interval_weights(densities, depths)
    check("weights_coarse", weights, "weights_coarse")
    more_depths = importance_depths(depths, weights, fine)
    check("depths_fine", more_depths, "depths_fine")
    depths, densities, _ = merge_samples(depths, densities, more_depths, density(more_depths)[0])
    check("depths_all", depths, "depths_fine")
    check("sigma_all", densities, "sigma_all")
    check("weights_all", interval_weights(densities, depths), "weights_all")


@pytest.mark.parametrize("case", CASES)
def test_planes(case: str) -> None:
    data, ours = tensors(case), forward(case)
    planes = ours.planes.values.flatten(1, 2)
    if "out.planes_s11" in data:
        close(planes[..., ::11, ::11], data["out.planes_s11"], TOLERANCES["planes"], "planes")
    close(planes.double().mean(dim=(2, 3)), data["out.planes_mean"], TOLERANCES["planes"], "plane means")
    rms = planes.double().square().mean(dim=(2, 3)).sqrt()
    close(rms, data["out.planes_rms"], TOLERANCES["planes"], "plane sizes")
    if "in.points" in data:
        model = generator(case.split(".")[0])
        seen = model.sample(ours.planes, data["in.points"])
        close(seen.density, data["out.points_sigma"], TOLERANCES["sigma_coarse"], "densities at points")
        close(seen.features, data["out.points_rgb"], TOLERANCES["planes"], "features at points")


@pytest.mark.parametrize("case", CASES)
def test_rendering(case: str) -> None:
    data, rendered = tensors(case), forward(case).rendered
    key = next(key for key in data if re.fullmatch(r"out\.feature_image(_s\d+)?", key))
    stride = int(key.rpartition("_s")[2]) if "_s" in key else 1
    tolerance = TOLERANCES["feature_image"]
    close(rendered.features[..., ::stride, ::stride], data[key], tolerance, "features")
    close(rendered.features.double().mean(dim=(2, 3)), data["out.feature_mean"], tolerance, "feature means")
    # The official cars model writes super-resolution output into the image it returns as raw; ours does not.
    raw = data.get("out.image_raw_before_sr", data.get("out.image_raw"))
    if raw is not None:
        close(rendered.rgb, raw, TOLERANCES["image_raw"], "raw image")
    alpha = data["out.weight_total"].transpose(1, 2).view_as(rendered.alpha)
    close(rendered.alpha, alpha, TOLERANCES["weight_total"], "alpha")
    depth_close(rendered.depth, data["out.image_depth"], alpha)


def depth_close(ours: Tensor, reference: Tensor, alpha: Tensor) -> None:
    """Depth within the tolerance; where a ray sees almost nothing, its unnormalised depth.

    A weight is 1 − exp(−x), hence a multiple of 2^-24 when it is small, and the exponential functions of two CPUs round
    one weight in twenty differently: the reference code itself does not repeat these depths on another machine. With
    some hundred samples the sum of weight · depth is uncertain by up to 1e-6, the depth by that over alpha.
    """
    allowed = torch.clamp(1e-6 / alpha, min=TOLERANCES["image_depth"])
    error = (ours.detach() - reference).abs()
    assert bool((error <= allowed).all()), f"depth: largest excess {float((error - allowed).max()):.2e}"


@pytest.mark.parametrize("case", CASES)
def test_final_image(case: str) -> None:
    data, image = tensors(case), forward(case).image
    tolerance = TOLERANCES["image"]
    size, middle = image.shape[-1], image.shape[-1] // 2
    assert size == generator(case.split(".")[0]).config.image_resolution
    close(image[..., middle - 24 : middle + 24, middle - 24 : middle + 24], data["out.image_crop"], tolerance, "middle")
    close(image[..., :12, :12], data["out.image_corner"], tolerance, "corner")
    if "out.image_s5" in data:
        close(image[..., ::5, ::5], data["out.image_s5"], tolerance, "image")
    close(image.double().mean(dim=(2, 3)), data["out.image_mean"], tolerance, "image means")
    close(image.double().square().mean(dim=(2, 3)).sqrt(), data["out.image_rms"], tolerance, "image sizes")


@pytest.mark.parametrize("case", CASES)
def test_super_resolution_blocks(case: str) -> None:
    data, model, ours = tensors(case), generator(case.split(".")[0]), forward(case)
    if "stage.sr_block0.x_s37" not in data:
        pytest.skip("the super-resolution stages of this case are only in the full reference set")
    seen = []
    handles = [
        block.register_forward_hook(lambda *call: seen.append(call[2])) for block in model.superresolution.blocks
    ]
    with torch.no_grad():
        model.upsample(ours.rendered, ours.latents)
    for handle in handles:
        handle.remove()
    for name, value, stride in (
        ("sr_block0.x_s37", seen[0][0], 37),
        ("sr_block0.rgb_s5", seen[0][1], 5),
        ("sr_block1.x_s37", seen[1][0], 37),
    ):
        close(value[..., ::stride, ::stride], data[f"stage.{name}"], TOLERANCES["image"], name)


def test_plain_path() -> None:
    """What the fast path is compared with elsewhere is held to the same numbers."""
    case = WITH_GRADIENT
    data, plain = tensors(case), PlainEG3D(generator("ffhq512"))
    assert metadata(case)["noise_mode"] == "const"
    with torch.no_grad():
        planes = plain.planes(data["out.ws"])
        rendered = plain.render(planes, Camera.from_eg3d(data["in.c_render"]), resolution=32, draws=draws_of(case))
        image = plain.upsample(rendered, data["out.ws"])
    close(rendered.features, data["out.feature_image"], TOLERANCES["feature_image"], "features")
    alpha = data["out.weight_total"].transpose(1, 2).view_as(rendered.alpha)
    close(rendered.alpha, alpha, TOLERANCES["weight_total"], "alpha")
    depth_close(rendered.depth, data["out.image_depth"], alpha)
    close(image[..., 232:280, 232:280], data["out.image_crop"], TOLERANCES["image"], "middle")
    close(image[..., :12, :12], data["out.image_corner"], TOLERANCES["image"], "corner")


def test_gradients() -> None:
    """Gradients of a loss on image, raw image and depth reach codes and camera."""
    reference, ours = tensors("ffhq512.grad_nrr32"), forward(WITH_GRADIENT)
    loss = (ours.image * hashgrid((2, 3, 512, 512), 1)).sum()
    loss = loss + 10 * (ours.rendered.rgb * hashgrid((2, 3, 32, 32), 2)).sum()
    loss = loss + 10 * (ours.rendered.depth * hashgrid((2, 1, 32, 32), 3)).sum()
    latents, label = torch.autograd.grad(loss, (ours.latents, ours.label), retain_graph=True)
    close(loss, reference["loss"], TOLERANCES["grad_loss_abs"], "loss")
    assert relative_error(latents, reference["grad_ws"]) <= TOLERANCES["grad_ws_rel_l2"]
    assert relative_error(label, reference["grad_c_render"]) <= TOLERANCES["grad_c_render_rel_l2"]


def test_random_draws_have_the_reference_statistics() -> None:
    reference, case, count = tensors("ffhq512.stochastic_stats_nrr32"), WITH_GRADIENT, 12
    model, ours = generator("ffhq512"), forward(case)
    camera = Camera.from_eg3d(tensors(case)["in.c_render"][:1])
    random = torch.Generator().manual_seed(5)
    results = []
    with torch.no_grad():
        for _ in range(count):
            rendered = model.render(ours.planes[:1], camera, resolution=32, random=random)
            values = torch.cat([rendered.features, rendered.depth, rendered.alpha], dim=1)
            results.append(values.flatten(2)[0].t())
    drawn = torch.stack(results)
    spread = reference["std_over_64_draws"]
    allowed = 5 * spread * (1 / count + 1 / 64) ** 0.5 + 1e-4
    within = (drawn.mean(dim=0) - reference["mean_over_64_draws"]).abs() < allowed
    assert within.float().mean() >= 0.999
    noisy = spread > 1e-3
    assert float((drawn.std(dim=0)[noisy] / spread[noisy]).mean()) == pytest.approx(1, abs=0.1)


def test_box_limits_of_whole_images() -> None:
    data = tensors("cars128_auto.ray_limits_nrr32")
    near, far = box_limits(Rays(data["ray_origins"], data["ray_directions"]), 1.6)
    close(near[..., None], data["t_near"], 1e-6, "entry")
    close(far[..., None], data["t_far"], 1e-6, "exit")
    assert int((near == -1).sum()) == 388


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        *(("8XDC", size) for size in (32, 64, 128, 160)),
        *(
            pytest.param(kind, size, marks=pytest.mark.golden)
            for kind, sizes in (("8X", (64, 128)), ("4X", (64, 128)), ("2X", (32, 64, 96)))
            for size in sizes
        ),
    ],
)
def test_super_resolution_alone(kind: str, size: int) -> None:
    data, module = tensors("sr_modules"), super_resolution(kind)
    name = f"{kind}_{size}"
    rgb, features = hashgrid((1, 3, size, size), 13), hashgrid((1, 32, size, size), 11)
    untouched = rgb.clone()
    image = module(rgb, features, data["ws"])
    assert torch.equal(rgb, untouched)
    tolerance, middle = TOLERANCES["image"], image.shape[-1] // 2
    close(image[..., ::10, ::10], data[f"{name}.image_s10"], tolerance, name)
    crop = image[..., middle - 16 : middle + 16, middle - 16 : middle + 16]
    close(crop, data[f"{name}.crop"], tolerance, f"{name} middle")
    close(image.double().mean(dim=(2, 3)), data[f"{name}.image_mean"], tolerance, f"{name} means")
    if f"{name}.rgb_after" in data:  # what the official module leaves in its argument is our first block's image
        first = module.blocks[0](features, rgb, data["ws"][:, -1:].expand(-1, 3, -1), noise="none")[1]
        close(first, data[f"{name}.rgb_after"], tolerance, f"{name} first block")


def test_super_resolution_4x_refuses_large_input() -> None:
    module = SuperResolution(SuperResolutionConfig(kind="4X"), features=4, w_dim=8)
    with pytest.raises(ConfigError, match="at most 128 px, got 160"):
        module(torch.zeros(1, 3, 160, 160), torch.zeros(1, 4, 160, 160), torch.zeros(1, 3, 8))


@cache
def super_resolution(kind: str) -> SuperResolution:
    weights = tensors("ffhq512.state_fp16" if kind == "8XDC" else "cars128.state_fp16")
    state = {
        key.removeprefix("superresolution."): value.float()
        for key, value in weights.items()
        if key.startswith("superresolution.") and "noise" not in key
    }
    module = SuperResolution(SuperResolutionConfig(kind=kind), features=32, w_dim=512)
    module.load_state_dict(rename_layers(state))
    return module.requires_grad_(False)


@pytest.mark.golden
@pytest.mark.skipif(DATA == COMMITTED, reason="needs the full reference set; set E3DGE_GOLDEN to its folder")
def test_committed_subset_is_the_full_set() -> None:
    for path in COMMITTED.glob("*.safetensors"):
        full = load_file(DATA / path.name)
        for key, value in load_file(path).items():
            assert torch.equal(value, full[key]), f"{path.name}: {key}"
