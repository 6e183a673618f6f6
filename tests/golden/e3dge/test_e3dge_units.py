"""E1 in both variants, hourglass by hourglass, the pixel-aligned query and E_ADA, on small inputs."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from e3dge_reference import MODULE, close, description, formula_input, formula_state, outputs, stored, tensors
from torch import Tensor

from e3dge_video.geometry.cameras import Camera, pinhole_intrinsics
from e3dge_video.geometry.projection import axial_depth, in_image, project, sample_map
from e3dge_video.models.encoders.fusion import PointLinear, ResidualMLP, film_head
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.weights.convert_e3dge import e3dge_config, e3dge_to_native

FILE = "units_formula"
#: Names of the official class that each variant is, and its head here.
VARIANTS = {
    "in_resnetfc": ("HGPIFuNetGANResidualResnetFC", ResidualMLP),
    "bn_equallinear": ("HGPIFuNetGANResidual", PointLinear),
}


@cache
def branch(variant: str) -> LocalBranch:
    """The local branch with the formula's weights, which take the way of a checkpoint's; its E0 is all zeros."""
    shapes = description(FILE)["shapes"]
    foreign = formula_state(shapes[VARIANTS[variant][0]] | shapes["grid_align"], description(FILE)["rules"])
    encoder = description("hybrid_formula")["shapes"]["encoder"]
    foreign |= {key: torch.zeros(1).expand(shape) if shape else torch.tensor(0) for key, shape in encoder.items()}
    config = e3dge_config(foreign)
    native = e3dge_to_native(foreign, config)
    sizes = config.branch()
    assert sizes is not None
    local = LocalBranch(sizes, config.field_width)
    local.load_state_dict({key.removeprefix("local."): v for key, v in native.items() if key.startswith("local.")})
    return local.eval().requires_grad_(False)


@cache
def encoded(variant: str) -> dict[str, Tensor]:
    """E1 of a residual and a depth, and its head, under the reference's names."""
    encoder, head = branch(variant).encoder, branch(variant).film_head
    residual, depth = 0.3 * formula_input("res", 2, 3, 64, 64), 1 + 0.02 * formula_input("depth", 2, 1, 64, 64)
    stems = encoder.residual_stem(residual), encoder.depth_stem(depth)
    hourglasses = encoder.filter(torch.cat(stems, dim=1))
    head_input = 0.5 * formula_input("mod", 16, 301)
    return {
        f"{variant}.residual_conv_b0": stems[0][:1, :8, ::2, ::2],
        f"{variant}.depth_conv_b0": stems[1][:1, :8, ::2, ::2],
        f"{variant}.feat": encoder(residual, depth),
        f"{variant}.modulation": head.mlp(head_input),
        **{f"hg.stack{number}": output for number, output in enumerate(hourglasses)},
    }


@cache
def queried() -> dict[str, Tensor]:
    """Points seen by two cameras, and the feature map read there."""
    points, data = 0.06 * formula_input("pts", 2, 3, 200).transpose(1, 2), tensors(FILE)
    camera = camera_of(data["query.calibs"])
    uv, depth = project(points, camera)[0], axial_depth(points, camera)[:, None]
    features = sample_map(encoded("in_resnetfc")["in_resnetfc.feat"], uv)
    return {
        "query.calibs": data["query.calibs"],
        "query.proj_xy": (2 * uv - 1).transpose(1, 2),
        "query.depth": depth,
        "query.z_condition": depth * 128 / 1.12,
        "query.in_img": in_image(uv).byte(),
        "query.feats_first32pts": features[..., :32],
    }


def camera_of(calibs: Tensor) -> Camera:
    """Our cameras of the reference's: intrinsics for an image in [-1, 1] times world-to-camera. [B, 4, 4]"""
    focal = calibs[:, 0, :3].norm(dim=1)
    # Its camera's y axis points up and z backwards, and the image's y axis up.
    world2cam = calibs * torch.stack([1 / focal, -1 / focal, -torch.ones(2), torch.ones(2)], dim=1)[:, :, None]
    intrinsics = torch.cat([pinhole_intrinsics(float(value) / 2) for value in focal])
    return Camera(torch.linalg.inv(world2cam), intrinsics)


@cache
def aligned() -> dict[str, Tensor]:
    inputs = 0.3 * formula_input("ada", 1, 6, 256, 256)
    output = branch("in_resnetfc").aligner(inputs[:, :3], inputs[:, 3:])
    return {"ada_eval": output, "ada_eval.crop": output[..., 96:128, 96:128]}


@pytest.mark.parametrize("key", outputs(FILE, r"query\.calibs"))
def test_units(key: str) -> None:
    groups = {"query": queried, "ada_eval": aligned, "hg": lambda: encoded("in_resnetfc")}
    group = key.split(".")[0]
    values = groups[group]() if group in groups else encoded(group)
    close(key, stored(FILE, key, values), tensors(FILE)[key], MODULE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_checkpoint_tells_the_variant(variant: str) -> None:
    assert type(branch(variant).film_head.mlp) is VARIANTS[variant][1]
    assert branch(variant).fusion is None


def test_a_new_head_changes_nothing() -> None:
    """Training starts from the global reconstruction."""
    local, points, features = torch.randn(2, 5, 256), torch.randn(2, 5, 3), torch.randn(2, 5, 256)
    for head in (film_head("residual"), film_head("deep"), film_head("linear")):
        assert torch.equal(head(local, points)(features), features)
