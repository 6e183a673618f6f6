"""StyleSDF's volume renderer against the reference: every stage, every option, gradients and losses.

16 × 16 rays of 24 samples through three heads of a network of width 32.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from stylesdf_reference import base_name, camera_of, close, generator_of, outputs, part_of, state_of, tensors
from torch import Tensor

from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.rendering.sampling import RayDraws
from e3dge_video.training.losses import (
    discriminator_loss,
    eikonal_loss,
    generator_loss,
    minimal_surface_loss,
    sphere_distance,
    viewpoint_loss,
)

FILE = "renderer_small"
SIZE = 16
INPUTS = r"(in|state|state_note|trunc)\..*|loss\.in_.*|.*\.(t_rand|noise_n01)"
VARIANTS: dict[str, dict[str, Any]] = {
    "infer": {},
    "nobg": {"force_background": False},
    "worldview": {"static_directions": False},
    "nonormalise": {"normalize": False},
    "jitter_offset": {},
    "jitter_stratified": {"sampling": "stratified"},
    "nojitter_stratified": {"sampling": "stratified"},
    "density": {"mode": "density"},
    "density_noise": {"mode": "density"},
    "eik": {},
}


@cache
def generator() -> StyleSDF:
    return generator_of(state_of(FILE))


def varied(**volume: Any) -> StyleSDF:
    """The same weights, another renderer."""
    plain = generator()
    other = StyleSDF(replace(plain.config, volume=replace(plain.config.volume, **volume)))
    other.load_state_dict(plain.state_dict())
    return other.eval().requires_grad_(False)


def pixels(values: Tensor) -> Tensor:
    """[B, R * R, ...] → [B, R, R, ...], the reference's order."""
    return values.unflatten(1, (SIZE, SIZE))


@cache
def variant(name: str) -> dict[str, Tensor]:
    """One rendering with other options, draws or noise."""
    data, model = tensors(FILE), varied(**VARIANTS[name])
    planes = model.planes(model.map(data["in.z"]))
    rays = model.renderer.rays(camera_of(data), SIZE)
    draws = data.get(f"{name}.t_rand")
    if draws is not None:
        draws = draws.reshape(len(draws), SIZE * SIZE, -1)
    noise = data.get(f"{name}.noise_n01")
    if noise is not None:
        noise = 0.5 * noise.reshape(len(noise), SIZE * SIZE, -1)
    sums = model.renderer(planes.values, rays, draws=draws, noise=noise, gradient=name == "eik", block=300)
    images = sums.images()
    depths = model.renderer.depths(draws).expand(sums.sdf.shape)
    found = {
        "rgb": images.rgb,
        "features": images.features,
        "xyz": images.xyz,
        "bg_weight": 1 - images.alpha,
        "sdf": pixels(sums.sdf)[..., None],
        "z_vals": pixels(depths),
    }
    if sums.gradient is not None:
        found["eikonal"] = pixels(sums.gradient)
    return {f"{name}.{key}": value for key, value in found.items()}


@cache
def stages() -> dict[str, Tensor]:
    """What happens between the rays and the weights."""
    data, model = tensors(FILE), generator()
    w = model.map(data["in.z"])[:, 0]
    rays = model.renderer.rays(camera_of(data), SIZE)
    points = rays.origins[:, :, None] + model.renderer.depths()[..., None] * rays.directions[:, :, None]
    siren = model.renderer.siren
    films = siren.films(model.planes(model.map(data["in.z"])).values)
    sdf, hidden = siren.geometry(model.renderer.normalized(points).flatten(1, 2), films)
    looks = rays.looks[:, :, None].expand_as(points).flatten(1, 2)
    logits, features = siren.appearance(hidden, looks, films[-1])
    world = varied(static_directions=False).renderer.rays(camera_of(data), SIZE)

    def samples(values: Tensor) -> Tensor:
        return values.unflatten(1, (SIZE, SIZE, -1))

    local = rays.looks / -rays.looks[..., 2:]
    return {
        "out.w": w,
        "geom.rays_o": pixels(rays.origins),
        "geom.rays_d": pixels(rays.directions),
        "geom.viewdirs_static": pixels(rays.looks),
        "geom.viewdirs_static_unnormalised": pixels(local),
        "geom.viewdirs_world": pixels(world.looks),
        "infer.pts": pixels(points),
        "infer.pts_normalised": pixels(model.renderer.normalized(points)),
        "infer.raw_sdf": samples(sdf),
        "infer.raw_rgb_logits": samples(logits),
        "infer.raw_features": samples(features),
    }


@cache
def truncated() -> dict[str, Tensor]:
    data = tensors(FILE)
    model = varied()
    model.mean_latents.copy_(data["trunc.mean_w"].expand_as(model.mean_latents))
    latents = model.map(data["in.z"], truncation=0.5)
    rendered = model.render(model.planes(latents), camera_of(data), resolution=SIZE)
    return {"trunc0.5.thumb": rendered.rgb, "trunc0.5.xyz": rendered.xyz}


@cache
def sphere() -> dict[str, Tensor]:
    """The first task of a field, at samples that each moved for themselves."""
    data, model = tensors(FILE), generator()
    rays = model.renderer.rays(camera_of(data), SIZE)
    depths = model.renderer.depths(data["sphereinit.t_rand"].flatten(1, 2))
    points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
    planes = model.planes(model.map(data["in.z"]))
    sdf, _ = model.signed_distance(planes, points.flatten(1, 2))
    near, far = model.renderer.near_far
    return {
        "sphereinit.sdf": pixels(sdf.view(points.shape[:3])),
        "sphereinit.target": pixels(sphere_distance(points, (far - near) / 4)),
    }


@cache
def losses() -> dict[str, Tensor]:
    data = tensors(FILE)
    first, second = data["loss.in_a"], data["loss.in_b"]
    eik = variant("eik")
    return {
        "loss.eikonal": eikonal_loss(eik["eik.eikonal"]),
        "loss.minimal_surface": minimal_surface_loss(eik["eik.sdf"]),
        "loss.viewpoint": viewpoint_loss(first, second),
        "loss.d_logistic_real_a_fake_b": discriminator_loss(first, second),
        "loss.g_nonsat_b": generator_loss(second),
    }


def ours(key: str) -> Tensor:
    """Our value of a reference tensor."""
    name, group = base_name(key), key.split(".")[0]
    if name in stages():
        return stages()[name]
    if name.startswith("trunc0.5."):
        return truncated()[name]
    return {"sphereinit": sphere, "loss": losses}[group]()[name] if group not in VARIANTS else variant(group)[name]


@pytest.mark.parametrize("key", outputs(FILE, INPUTS))
def test_renderer(key: str) -> None:
    reference = tensors(FILE)[key]
    close(key, part_of(key, ours(key), reference), reference)


def test_the_gradient_is_differentiable() -> None:
    """The eikonal loss has a gradient; it agrees with finite differences of the loss."""
    data, model = tensors(FILE), varied().double().requires_grad_(True)
    planes = model.planes(model.map(data["in.z"][:1].double())).detach()
    points = torch.tensor([[[0.01, 0.02, -0.03], [0.05, -0.04, 0.02]]], dtype=torch.float64)
    weight = model.renderer.siren.layers[3].linear.weight

    def loss() -> Tensor:
        return eikonal_loss(model.signed_distance(planes, points)[1])

    loss().backward()
    assert weight.grad is not None
    step = 1e-6
    with torch.no_grad():
        weight[2, 5] += step
        above = loss()
        weight[2, 5] -= 2 * step
        below = loss()
    torch.testing.assert_close(weight.grad[2, 5], (above - below) / (2 * step), rtol=1e-5, atol=1e-9)


def test_draws_reach_the_renderer() -> None:
    data, model = tensors(FILE), generator()
    planes = model.planes(model.map(data["in.z"]))
    draws = RayDraws(data["jitter_offset.t_rand"].flatten(1)[..., None], torch.empty(1, 1, 0))
    rendered = model.render(planes, camera_of(data), resolution=SIZE, draws=draws)
    close("jitter_offset.rgb", rendered.rgb, tensors(FILE)["jitter_offset.rgb"])
