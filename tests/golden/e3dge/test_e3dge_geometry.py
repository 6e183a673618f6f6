"""What a teacher knows of its heads, the student's geometry losses, cameras and their curriculum.

Derivatives of the field at surface points are taken at the reference's points. A point that is 7e-7 off, as far as 32
bit go, moves them by 1e-3 standard deviations: evaluated in 64 bit, they differ as much from the reference.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from e3dge_reference import CHAIN, MODULE, close, outputs, tensors
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import axial_depth
from e3dge_video.geometry.trajectories import stylesdf_ellipse, stylesdf_pan
from e3dge_video.inversion.branch_views import optical_depth
from e3dge_video.models.generators.base import Planes
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.generators.stylesdf.sdf_renderer import FieldSums
from e3dge_video.models.rendering.compositing import point_weights
from e3dge_video.training.geometry_supervision import (
    GeometryTargets,
    camera_range,
    foreground_depth,
    geometry_losses,
    geometry_targets,
)
from e3dge_video.weights.convert_stylesdf import stylesdf_config, stylesdf_to_native

FILE = "geometry_small"
SIZE = 16


@cache
def generator() -> StyleSDF:
    state = {key.removeprefix("state."): v for key, v in tensors(FILE).items() if key.startswith("state.")}
    config = stylesdf_config(state)
    native = stylesdf_to_native(state, config, mean_samples=4)
    model = StyleSDF(replace(config, resolution=SIZE, volume=replace(config.volume, samples=18)))
    model.load_state_dict(native)
    return model.eval().requires_grad_(False)


def camera() -> Camera:
    return Camera.from_stylesdf(tensors(FILE)["cam.viewpoint"])


def pixels(values: Tensor) -> Tensor:
    """[B, R * R, ...] → [B, R, R, ...], the reference's order."""
    return values.unflatten(1, (SIZE, SIZE))


def field(codes: Tensor) -> FieldSums:
    """A rendering with the field's derivative."""
    rays = generator().renderer.rays(camera(), SIZE)
    return generator().render_rays(Planes(codes), rays, gradient=True)


@cache
def cameras() -> dict[str, Tensor]:
    signs = torch.tensor([1.0, -1.0, -1.0, 1.0])  # its camera's y axis points up and z backwards
    poses = camera().cam2world * signs
    extrinsics = camera().world2cam * signs[:, None]
    focal = 2 * camera().intrinsics[:, 0, 0]
    intrinsics = torch.diag_embed(torch.stack([focal, focal, torch.ones(2)], dim=1))
    calibs = F.pad(intrinsics, (0, 1, 0, 1)) @ extrinsics
    calibs[:, 3, 3] = 1
    near, far = (torch.full((2, 1, 1), value) for value in generator().renderer.near_far)
    return {
        "cam.poses": poses[:, :3],
        "cam.extrinsics": extrinsics[:, :3],
        "cam.focal": focal[:, None, None] * SIZE / 2,
        "cam.intrinsics": intrinsics,
        "cam.calibs": calibs,
        "cam.near": near,
        "cam.far": far,
    }


@cache
def targets() -> GeometryTargets:
    data = tensors(FILE)
    planes = generator().planes(generator().map(data["in.z"]))
    neighbours = data["rand.near_surface_n01"].flatten(1, 2)
    return geometry_targets(generator(), planes, camera(), neighbours=neighbours, anywhere=data["rand.grid_u01"])


@cache
def reference_targets() -> GeometryTargets:
    """What the reference's teacher gave its student."""
    data = tensors(FILE)
    return GeometryTargets(
        surface=data["gt.xyz"].flatten(1, 2),
        normals=data["gt.surface_eikonal_term"].flatten(1, 3),
        foreground=data["gt.mask"].flatten(1),
        points=data["gt.uniform_pts"].flatten(1, 3),
        distances=data["gt.uniform_points_sdf"].flatten(1),
        inside=data["gt.uniform_points_valid_mask"].flatten(1),
    )


@cache
def teacher() -> dict[str, Tensor]:
    data, model, known = tensors(FILE), generator(), targets()
    latents = model.map(data["in.z"])
    planes = model.planes(latents)
    rays = model.renderer.rays(camera(), SIZE)
    sums = field(planes.values)
    depths = model.renderer.depths().expand(sums.sdf.shape)
    points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
    lengths = F.pad(depths.diff(dim=-1), (0, 1), value=1e10) * rays.directions.norm(dim=-1, keepdim=True)
    assert sums.gradient is not None
    return {
        "out.w": latents[:, 0],
        "gt.rays_o": pixels(rays.origins),
        "gt.rays_d": pixels(rays.directions),
        "gt.points": pixels(points),
        "gt.dists": pixels(lengths),
        "gt.sdf": pixels(sums.sdf)[..., None],
        "gt.hit_prob": pixels(point_weights(model.renderer.extinction(sums.sdf), lengths))[..., None],
        "gt.eikonal_term": pixels(sums.gradient),
        "gt.gen_thumb_imgs": sums.images().rgb,
        "gt.xyz": pixels(known.surface),
        "gt.depth": pixels(axial_depth(known.surface, camera()))[..., None, None],
        "gt.mask": pixels(known.foreground)[..., None, None],
        "gt.surface_eikonal_term": pixels(model.signed_distance(planes, reference_targets().surface)[1])[..., None, :],
        "gt.uniform_pts": known.points[:, :, None, None],
        "gt.uniform_points_sdf": known.distances[..., None, None, None],
        "gt.uniform_points_valid_mask": known.inside[..., None, None, None],
    }


@cache
def student() -> dict[str, Tensor]:
    """Nine codes of its own, and the losses' derivative by them."""
    model, known = generator(), reference_targets()
    codes = tensors(FILE)["in.wplus"].clone().requires_grad_()
    planes, sums = Planes(codes), field(codes)
    assert sums.gradient is not None
    losses = geometry_losses(model, planes, known, sums.gradient)
    total = torch.stack(list(losses.values())).sum()
    [slope] = torch.autograd.grad(total, codes, retain_graph=True)
    on_surface, normals = model.signed_distance(planes, known.surface)
    images = sums.images()
    depth = optical_depth(images, camera())
    return {
        "pred.gen_thumb_imgs": images.rgb,
        "pred.features": images.features,
        "pred.xyz": images.xyz,
        "pred.depth": depth[:, 0, ..., None, None],
        "pred.mask": (depth < foreground_depth(model)).float()[..., None],
        "pred.sdf": pixels(sums.sdf)[..., None],
        "pred.eikonal_term": pixels(sums.gradient),
        "pred.uniform_pts_rec": model.signed_distance(planes, known.points)[0][..., None, None],
        "pred.xyz_rec": pixels(on_surface)[..., None],
        "pred.xyz_rec_eikonal_term": pixels(normals)[..., None, :],
        "loss.surf_rec_loss": losses["surface"],
        "loss.surface_norm_rec_loss": losses["normal"],
        "loss.sdf_rec_loss": losses["points"],
        "loss.eikonal_term": losses["eikonal"],
        "loss.total": total,
        "loss.grad_wplus": slope,
        "val.thumb": images.rgb,
        "val.features": images.features,
    }


@cache
def schedules() -> dict[str, Tensor]:
    def with_angle(viewpoints: Tensor) -> Tensor:
        return F.pad(viewpoints, (0, 1), value=6.0)

    return {
        "curriculum.lambda": torch.tensor([camera_range(step) for step in tensors(FILE)["curriculum.iter"].tolist()]),
        "traj.ellipse_250": with_angle(stylesdf_ellipse(250)),
        "traj.azim_250": with_angle(stylesdf_pan(250)),
        "traj.azim_8": with_angle(stylesdf_pan(8)),
    }


@pytest.mark.parametrize("key", outputs(FILE, r"(state|in|rand)\..*|cam\.viewpoint|curriculum\.iter"))
def test_geometry(key: str) -> None:
    groups = {"cam": cameras, "gt": teacher, "out": teacher, "curriculum": schedules, "traj": schedules}
    ours, reference = groups.get(key.split(".")[0], student)()[key], tensors(FILE)[key]
    if key == "gt.dists":  # the last interval is endless
        ours, reference = ours.clamp(max=1), reference.clamp(max=1)
    chained = key.startswith(("gt.", "pred.", "val.", "loss."))
    close(key, ours, reference, CHAIN if chained else MODULE)


def test_targets_carry_no_gradient() -> None:
    assert not any(value.requires_grad for value in vars(targets()).values())


def test_normals_belong_to_the_surface() -> None:
    model, known = generator(), targets()
    planes = model.planes(model.map(tensors(FILE)["in.z"]))
    assert torch.equal(model.signed_distance(planes, known.surface)[1], known.normals)


def test_the_teachers_own_codes_lose_nothing() -> None:
    """Distances and normals of the teacher agree with themselves."""
    data, model = tensors(FILE), generator()
    planes = model.planes(model.map(data["in.z"]))
    with torch.no_grad():
        losses = geometry_losses(model, planes, targets(), torch.tensor([[0.0, -1.0, 0.0]]))
    assert float(losses["points"]) == 0 and float(losses["normal"]) == 0 and float(losses["eikonal"]) == 0
    assert float(losses["surface"]) > 0  # an expected point need not lie on the surface
