"""Isolated pieces of EG3D against the reference, one test case for each recorded case."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from eg3d_reference import hashgrid, part_cases, part_close, parts, state_of, tensors
from torch import Tensor, nn

from e3dge_video.config.discriminators import DiscriminatorConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, box_limits, camera_rays
from e3dge_video.geometry.trajectories import eg3d_focal, eg3d_orbit, looking_along
from e3dge_video.models import fir
from e3dge_video.models.activations import DEFAULT_GAINS, bias_act
from e3dge_video.models.build import build_discriminator
from e3dge_video.models.generators.eg3d.triplane import PLANE_AXES, PointDecoder, read_plane, read_volume
from e3dge_video.models.mapping import FullyConnected, MappingNetwork, broadcast_latents, normalize_second_moment
from e3dge_video.models.rendering.compositing import composite, expected_depth, interval_weights, sample_weights
from e3dge_video.models.rendering.sampling import importance_depths, invert_cdf, stratified_depths
from e3dge_video.models.rendering.volume import merge_samples
from e3dge_video.models.stylegan2 import SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGB, modulated_conv2d
from e3dge_video.weights.convert_eg3d import discriminator_config, discriminator_to_native, rename_layers

COVERED: set[tuple[str, str]] = set()


def cases(file: str, *operations: str) -> Any:
    names = part_cases(file, *operations)
    assert names, f"no case of {operations} in {file}"
    COVERED.update((file, name) for name in names)
    return pytest.mark.parametrize("case", names)


def inputs(file: str, case: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Arguments, and tensors without the case's prefix."""
    prefix = f"{case}."
    named = {key.removeprefix(prefix): value for key, value in tensors(file).items() if key.startswith(prefix)}
    return parts(file)[case].get("kwargs", {}), named


def loaded(module: nn.Module, file: str, case: str) -> Any:
    module.load_state_dict(rename_layers(state_of(file, case)))
    return module.eval().requires_grad_(False)


# --- operations -------------------------------------------------------------------------------------------------------


@cases("parts_ops", "upfirdn2d", "upsample2d", "downsample2d", "filter2d")
def test_resampling(case: str) -> None:
    kwargs, data = inputs("parts_ops", case)
    shared = tensors("parts_ops")
    taps = None if kwargs["filter"] == "none" else shared[f"filter.{kwargs['filter']}"]
    options = {name: value for name, value in kwargs.items() if name != "filter"}
    operation = getattr(fir, parts("parts_ops")[case]["op"])
    part_close(operation(shared["x"], taps, **options), data["out.y"])


def test_filter() -> None:
    part_close(fir.make_filter(), tensors("parts_ops")["filter.setup_1331"])


@cases("parts_ops", "bias_act")
def test_bias_act(case: str) -> None:
    kwargs, data = inputs("parts_ops", case)
    shared = tensors("parts_ops")
    bias = None if case.endswith("_nob") else data.get("in.b", shared["b3"])
    y = bias_act(
        shared["x"],
        bias,
        dim=kwargs.get("dim", 1),
        activation=kwargs["act"],
        slope=kwargs.get("alpha", 0.2),
        gain=kwargs.get("gain"),
        clamp=kwargs.get("clamp"),
    )
    part_close(y, data["out.y"])


def test_activation_gains() -> None:
    COVERED.add(("parts_ops", "_activation_defaults"))
    assert {name: entry["gain"] for name, entry in parts("parts_ops")["_activation_defaults"].items()} == DEFAULT_GAINS


@cases("parts_ops", "conv2d_resample")
def test_resampling_convolution(case: str) -> None:
    kwargs, data = inputs("parts_ops", case)
    shared = tensors("parts_ops")
    y = fir.resampling_conv2d(
        shared["x"],
        shared[kwargs["w"]],
        taps=shared[f"filter.{kwargs['filter']}"],
        up=kwargs["up"],
        down=kwargs["down"],
        padding=kwargs["padding"],
        flip_weight=kwargs["flip_weight"],
    )
    part_close(y, data["out.y"])


@cases("parts_ops", "modulated_conv2d")
@pytest.mark.parametrize("fused", [True, False])
def test_modulated_convolution(case: str, fused: bool) -> None:
    kwargs, data = inputs("parts_ops", case)
    shared = tensors("parts_ops")
    half = "dtype" in kwargs
    if half and not fused:
        pytest.skip("not recorded")
    noise = shared["noise_up" if kwargs["up"] == 2 else "noise"] if kwargs["noise"] else None
    y = modulated_conv2d(
        shared["x"].half() if half else shared["x"],
        shared[kwargs["w"]],
        shared["styles"],
        noise=noise,
        taps=shared["filter.setup_1331"],
        up=kwargs["up"],
        padding=kwargs["padding"],
        demodulate=kwargs["demodulate"],
        flip_weight=kwargs["flip_weight"],
        fused=fused,
    )
    reference = data["out.y_fused" if fused else "out.y_unfused"]
    if half:
        torch.testing.assert_close(y.float(), reference.float(), rtol=1e-2, atol=1e-2)
    else:
        part_close(y, reference)


@cases("parts_ops", "normalize_2nd_moment")
def test_second_moment(case: str) -> None:
    data = inputs("parts_ops", case)[1]
    part_close(normalize_second_moment(data["in.x"]), data["out.y"])


# --- layers -----------------------------------------------------------------------------------------------------------


@cases("parts_layers", "FullyConnectedLayer")
def test_fully_connected(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    options = {name: value for name, value in kwargs.items() if name not in ("in_features", "out_features")}
    layer = loaded(FullyConnected(kwargs["in_features"], kwargs["out_features"], **options), "parts_layers", case)
    part_close(layer(data["in.x"]), data["out.y"])


@cases("parts_layers", "MappingNetwork")
def test_mapping(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    rows = kwargs["num_ws"]
    network = loaded(
        MappingNetwork(
            kwargs["z_dim"],
            kwargs["c_dim"],
            kwargs["w_dim"],
            layers=kwargs["num_layers"],
            embed_width=kwargs.get("embed_features"),
            hidden_width=kwargs.get("layer_features"),
            lr_multiplier=kwargs.get("lr_multiplier", 0.01),
            track_mean=rows is not None,
        ),
        "parts_layers",
        case,
    )
    w = network(data.get("in.z"), data.get("in.c"))
    if rows is None:
        part_close(w, data["out.w"])
        return
    mean = network.mean_latents
    part_close(broadcast_latents(w, rows), data["out.w"])
    part_close(broadcast_latents(w, rows, mean=mean, truncation=0.5), data["out.w_psi05"])
    part_close(broadcast_latents(w, rows, mean=mean, truncation=0.7, cutoff=3), data["out.w_psi07_cut3"])


@cases("parts_layers", "SynthesisLayer")
def test_synthesis_layer(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    layer = loaded(
        SynthesisLayer(
            kwargs["in_channels"],
            kwargs["out_channels"],
            kwargs["w_dim"],
            kwargs["resolution"],
            up=kwargs.get("up", 1),
            clamp=kwargs.get("conv_clamp"),
        ),
        "parts_layers",
        case,
    )
    x, w = data["in.x"], data["in.w"]
    part_close(layer(x, w, noise="const"), data["out.y_const"])
    part_close(layer(x, w, noise="none", fused=True), data["out.y_none"])
    part_close(layer(x, w, noise="const", gain=0.5, fused=False), data["out.y_const_gain05_unfused"])


@cases("parts_layers", "ToRGBLayer")
def test_rgb_layer(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    layer = loaded(ToRGB(kwargs["in_channels"], kwargs["out_channels"], kwargs["w_dim"]), "parts_layers", case)
    part_close(layer(data["in.x"], data["in.w"]), data["out.y"])


@cases("parts_layers", "SynthesisBlock", "SynthesisBlockNoUp")
def test_synthesis_block(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    block = loaded(
        SynthesisBlock(
            kwargs["in_channels"],
            kwargs["out_channels"],
            kwargs["w_dim"],
            kwargs["resolution"],
            kwargs["img_channels"],
            up=parts("parts_layers")[case]["op"] == "SynthesisBlock",
            last=kwargs["is_last"],
            architecture=kwargs.get("architecture", "skip"),
        ),
        "parts_layers",
        case,
    )
    for noise in ("const", "none"):
        if f"out.x_{noise}" not in data:
            continue
        image = data.get("in.img")
        before = None if image is None else image.clone()
        x, drawn = block(data.get("in.x"), image, data["in.ws"], noise=noise)
        part_close(x, data[f"out.x_{noise}"])
        part_close(drawn, data[f"out.img_{noise}"])
        assert image is None or torch.equal(image, before)


@cases("parts_layers", "SynthesisNetwork")
def test_synthesis_network(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    channels = [min(kwargs["channel_base"] // size, kwargs["channel_max"]) for size in (4, 8, 16, 32)]
    network = loaded(SynthesisNetwork(kwargs["w_dim"], kwargs["img_channels"], channels), "parts_layers", case)
    for noise in ("const", "none"):
        part_close(network(data["in.ws"], noise=noise), data[f"out.img_{noise}"])


@cases("parts_layers", "OSGDecoder")
def test_point_decoder(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    decoder = loaded(
        PointDecoder(kwargs["n_features"], 64, kwargs["decoder_output_dim"], lr_multiplier=kwargs["decoder_lr_mul"]),
        "parts_layers",
        case,
    )
    seen = decoder(data["in.sampled_features"].mean(dim=1))
    part_close(seen.density, data["out.sigma"])
    part_close(seen.features, data["out.rgb"])


@cases("parts_layers", "DualDiscriminator")
def test_dual_discriminator(case: str) -> None:
    kwargs, data = inputs("parts_layers", case)
    state = state_of("parts_layers", case)
    config = discriminator_config(state, kwargs)
    channels = [min(kwargs["channel_base"] // size, kwargs["channel_max"]) for size in (4, 8, 16, 32, 64)]
    assert config == DiscriminatorConfig("dual", tuple(channels), kwargs["c_dim"], clamp=kwargs["conv_clamp"])
    network = build_discriminator(config)
    network.load_state_dict(discriminator_to_native(state, config))
    assert network.resolution == kwargs["img_resolution"]
    with torch.no_grad():
        part_close(network(data["in.image"], data["in.image_raw"], data["in.c"]), data["out.logits"])


# --- rendering --------------------------------------------------------------------------------------------------------


@cases("parts_render", "sample_from_planes")
def test_plane_reads(case: str) -> None:
    kwargs, data = inputs("parts_render", case)
    points = data["in.coordinates"] * (2 / kwargs["box_warp"])
    reads = [
        read_plane(plane, points[..., axes]).transpose(1, 2)
        for plane, axes in zip(data["in.planes"].unbind(dim=1), PLANE_AXES["released"], strict=True)
    ]
    part_close(torch.stack(reads, dim=1), data["out.features"])


@cases("parts_render", "project_onto_planes")
def test_plane_axes(case: str) -> None:
    data = inputs("parts_render", case)[1]
    projected = torch.stack([data["in.coordinates"][..., axes] for axes in PLANE_AXES["released"]], dim=1)
    part_close(projected.flatten(0, 1), data["out.projections"])
    matrices = tensors("parts_render")["plane_axes"]
    expected = [tuple(int(row.argmax()) for row in matrix[:2]) for matrix in torch.linalg.inv(matrices).transpose(1, 2)]
    assert tuple(expected) == PLANE_AXES["released"]


@cases("parts_render", "MipRayMarcher2")
def test_marching(case: str) -> None:
    kwargs, data = inputs("parts_render", case)
    depths, densities = data["in.depths"][..., 0], data["in.densities"][..., 0]
    weights = interval_weights(densities, depths)
    part_close(weights, data["out.weights"][..., 0])
    colours = composite(data["in.colors"], sample_weights(weights))
    if kwargs["white_back"]:
        colours = colours + 1 - weights.sum(dim=-1, keepdim=True)
    part_close(colours * 2 - 1, data["out.rgb"])
    depth = expected_depth(weights, depths).clamp(depths.min(), depths.max())
    part_close(depth, data["out.depth"][..., 0])


@cases("parts_render", "sample_stratified")
def test_stratified_depths(case: str) -> None:
    kwargs, data = inputs("parts_render", case)
    near, far = (kwargs.get(name, data.get(f"in.{name}")) for name in ("ray_start", "ray_end"))
    depths = stratified_depths(near, far, data["in.u"][..., 0], disparity=kwargs["disparity_space_sampling"])
    part_close(depths, data["out.depths"][..., 0])


@cases("parts_render", "sample_importance")
def test_importance_depths(case: str) -> None:
    data = inputs("parts_render", case)[1]
    depths, weights = data["in.z_vals"][..., 0], data["in.weights"][..., 0]
    fine = importance_depths(depths, weights, data["in.u"].view(*depths.shape[:2], -1))
    part_close(fine, data["out.depths"][..., 0])


@cases("parts_render", "sample_pdf")
def test_inverse_cdf(case: str) -> None:
    kwargs, data = inputs("parts_render", case)
    draws = torch.linspace(0, 1, kwargs["N_importance"])[None] if kwargs["det"] else data["in.u"]
    part_close(invert_cdf(data["in.bins"], data["in.weights"], draws, eps=kwargs["eps"]), data["out.samples"])


@cases("parts_render", "get_ray_limits_box")
def test_box_limits(case: str) -> None:
    kwargs, data = inputs("parts_render", case)
    near, far = box_limits(Rays(data["in.rays_o"], data["in.rays_d"]), kwargs["box_side_length"])
    part_close(near, data["out.t_near"][..., 0])
    part_close(far, data["out.t_far"][..., 0])


@cases("parts_render", "unify_samples")
def test_merging(case: str) -> None:
    data = inputs("parts_render", case)[1]
    depths, densities, order = merge_samples(
        *(data[f"in.{name}"][..., 0] for name in ("depths1", "densities1", "depths2", "densities2"))
    )
    part_close(depths, data["out.depths"][..., 0])
    part_close(densities, data["out.densities"][..., 0])
    colours = torch.cat([data["in.colors1"], data["in.colors2"]], dim=2)
    part_close(colours.gather(2, order[..., None].expand_as(colours)), data["out.colors"])


@cases("parts_render", "sample_from_3dgrid")
def test_voxel_reads(case: str) -> None:
    data = inputs("parts_render", case)[1]
    part_close(read_volume(data["in.grid"], data["in.coordinates"]), data["out.features"])


@cases("parts_render", "bilinear antialias resize to 128")
def test_antialiased_resize(case: str) -> None:
    kwargs, data = inputs("parts_render", case)
    size = kwargs["source_res"]
    part_close(fir.resize_bilinear(hashgrid((1, 2, size, size), 7), 128)[..., ::3, ::3], data["out.y_s3"])


# --- cameras ----------------------------------------------------------------------------------------------------------


@cases("parts_camera", "RaySampler")
def test_camera_rays(case: str) -> None:
    kwargs, data = inputs("parts_camera", case)
    rays = camera_rays(Camera(data["in.cam2world"], data["in.intrinsics"]), kwargs["resolution"])
    part_close(rays.origins, data["out.origins"])
    part_close(rays.directions, data["out.directions"])


@cases("parts_camera", "LookAtPoseSampler", "GaussianCameraPoseSampler", "UniformCameraPoseSampler")
def test_pose_distributions(case: str) -> None:
    kwargs, data = inputs("parts_camera", case)
    angles = []
    for name in ("horizontal", "vertical"):
        angle, spread = torch.tensor(kwargs[name]), kwargs.get(f"{name}_stddev", 0.0)
        if f"in.normal_{name[0]}" in data:
            angle = angle + data[f"in.normal_{name[0]}"] * spread
        elif f"in.uniform_{name[0]}" in data:
            angle = angle + (data[f"in.uniform_{name[0]}"] * 2 - 1) * spread
        angles.append(angle)
    cameras = eg3d_orbit(*angles, target=tuple(kwargs.get("lookat", (0, 0, 0))), radius=kwargs["radius"])
    part_close(cameras.cam2world, data["out.cam2world"])


@cases("parts_camera", "create_cam2world_matrix")
def test_camera_matrix(case: str) -> None:
    data = inputs("parts_camera", case)[1]
    part_close(looking_along(data["in.origin"], data["in.forward"]).cam2world, data["out.cam2world"])


@cases("parts_camera", "FOV_to_intrinsics")
def test_field_of_view(case: str) -> None:
    kwargs, data = inputs("parts_camera", case)
    focal = eg3d_focal(kwargs["fov_degrees"])
    assert focal == pytest.approx(float(data["out.intrinsics"][0, 0]), rel=1e-6)
    assert math.isclose(float(data["out.intrinsics"][1, 1]), focal, rel_tol=1e-6)


def test_every_recorded_part_has_a_test() -> None:
    COVERED.add(("parts_ops", "_activation_defaults"))
    recorded = {
        (file, case) for file in ("parts_ops", "parts_layers", "parts_render", "parts_camera") for case in parts(file)
    }
    assert recorded == COVERED
