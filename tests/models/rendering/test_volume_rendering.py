"""Two-pass rendering of small made-up fields against a loop over rays and samples."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from e3dge_video.config.generators import RaySamplingConfig
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, camera_rays
from e3dge_video.models.rendering.compositing import interval_weights
from e3dge_video.models.rendering.sampling import RayDraws, importance_depths, stratified_depths
from e3dge_video.models.rendering.volume import PointSamples, RaySums, ray_bounds, render_rays

CONFIG = RaySamplingConfig(coarse=12, fine=10, near_far=(2.2, 3.3))


def ball(points: Tensor) -> PointSamples:
    """A soft ball of radius 0.3 around the origin, coloured by position."""
    distance = points.norm(dim=-1, keepdim=True)
    return PointSamples((0.3 - distance) * 200, torch.sigmoid(3 * points @ torch.eye(3, 5)))


def views(count: int, size: int = 6) -> Rays:
    return camera_rays(Camera.orbit(torch.linspace(-0.5, 0.5, count), 0.1, pivot=(0.0, 0.0, 0.0)), size)


def render(rays: Rays, draws: RayDraws, *, block: int = 4096, white_back: bool = False) -> RaySums:
    return render_rays(ball, rays, draws, CONFIG, box_side=1.0, block=block, white_back=white_back)


def test_rendering_is_the_loop_over_rays() -> None:
    rays = views(1, size=4)
    draws = RayDraws.random((1, 16), 12, 10, random=torch.Generator().manual_seed(0))
    ours = render(rays, draws, white_back=True)
    for ray in range(16):
        origin, direction = rays.origins[0, ray], rays.directions[0, ray]
        depths = stratified_depths(2.2, 3.3, draws.coarse[0, ray])
        weights = interval_weights(ball(origin + depths[:, None] * direction).density[:, 0], depths)
        fine = importance_depths(depths, weights, draws.fine[0, ray])
        depths = torch.cat([depths, fine]).sort().values
        seen = ball(origin + depths[:, None] * direction)
        colour, depth, passing = torch.zeros(5), 0.0, 1.0
        for i in range(len(depths) - 1):
            length = float(depths[i + 1] - depths[i])
            density = float(seen.density[i] + seen.density[i + 1]) / 2
            alpha = 1 - math.exp(-float(torch.nn.functional.softplus(torch.tensor(density - 1))) * length)
            colour += alpha * passing * (seen.features[i] + seen.features[i + 1]) / 2
            depth += alpha * passing * float(depths[i] + depths[i + 1]) / 2
            passing *= 1 - alpha
        total = 1 - passing
        torch.testing.assert_close(ours.features[0, ray], (colour + 1 - total) * 2 - 1, rtol=1e-3, atol=1e-4)
        assert float(ours.alpha[0, ray]) == pytest.approx(total, abs=1e-5)
        if total > 1e-3:
            assert float(ours.depth[0, ray]) == pytest.approx(depth / total, abs=1e-3)


@pytest.mark.parametrize("block", [1, 7, 64])
def test_block_size_does_not_matter(block: int) -> None:
    rays = views(2)
    draws = RayDraws.random((2, 36), 12, 10, random=torch.Generator().manual_seed(1))
    whole, parts = render(rays, draws), render(rays, draws, block=block)
    torch.testing.assert_close(parts.features, whole.features, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.alpha, whole.alpha, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts.depth, whole.depth, rtol=1e-5, atol=1e-5)


def test_rays_of_a_batch_do_not_mix() -> None:
    draws = RayDraws.regular(12, 10)
    rays = views(3)
    together = render(rays, draws)
    for i in range(3):
        alone = render(Rays(rays.origins[i : i + 1], rays.directions[i : i + 1]), draws)
        torch.testing.assert_close(alone.features, together.features[i : i + 1], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(alone.depth, together.depth[i : i + 1], rtol=1e-5, atol=1e-5)


def test_an_empty_ray_is_as_far_as_the_farthest_sample() -> None:
    """Whatever the block size: the range of depths is that of the whole call."""
    rays = views(1, size=2)

    def empty(points: Tensor) -> PointSamples:
        return PointSamples(torch.full_like(points[..., :1], -1e4), torch.zeros_like(points))

    draws = RayDraws(torch.rand(1, 4, 12), torch.rand(1, 4, 10))
    for block in (1, 4):
        sums = render_rays(empty, rays, draws, CONFIG, box_side=1.0, block=block)
        farthest = stratified_depths(2.2, 3.3, draws.coarse).max()
        torch.testing.assert_close(sums.depth, farthest.expand(1, 4))
        assert torch.equal(sums.alpha, torch.zeros(1, 4))
        assert torch.equal(sums.features, torch.full((1, 4, 3), -1.0))


def test_without_a_second_pass() -> None:
    config = RaySamplingConfig(coarse=64, fine=0, near_far=(2.2, 3.3))
    middle = Rays(torch.tensor([[[0.0, 0.0, 2.7]]]), torch.tensor([[[0.0, 0.0, -1.0]]]))
    sums = render_rays(ball, middle, RayDraws.regular(64, 0), config, box_side=1.0)
    assert float(sums.alpha) == pytest.approx(1, abs=1e-3)
    # Inside, extinction grows by 200 per unit: the mean depth behind the surface is ∫ exp(-100 s²) ds.
    assert float(sums.depth) == pytest.approx(2.4 + math.sqrt(math.pi) / 20, abs=0.02)


def test_automatic_bounds() -> None:
    config = RaySamplingConfig(near_far="auto")
    origins = torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, 2.5], [0.0, 5.0, 2.0]]])
    rays = Rays(origins, torch.tensor([[[0.0, 0.0, -1.0]]]).expand(1, 3, 3))
    near, far = ray_bounds(rays, config, 1.0)
    # The third ray misses: smallest and largest ENTRY depth of the other two.
    torch.testing.assert_close(near[0, :, 0], torch.tensor([1.5, 2.0, 1.5]))
    torch.testing.assert_close(far[0, :, 0], torch.tensor([2.5, 3.0, 2.0]))
    assert ray_bounds(rays, CONFIG, 1.0) == (2.2, 3.3)


def test_gradients_reach_the_field_and_the_rays() -> None:
    scale = torch.tensor(1.0, requires_grad=True)
    label = Camera.orbit(0.2, 0.1, pivot=(0.0, 0.0, 0.0)).to_eg3d().requires_grad_()
    draws = RayDraws.regular(12, 10)

    def field(points: Tensor) -> PointSamples:
        return ball(points * scale)

    sums = render_rays(field, camera_rays(Camera.from_eg3d(label), 8), draws, CONFIG, box_side=1.0)
    (sums.features.sum() + sums.depth.sum()).backward()  # the rays of the corners see nothing at all
    assert bool((sums.alpha == 0).any())
    assert 0 < float(scale.grad.abs()) < math.inf
    assert float(label.grad[:, :12].abs().sum()) > 0
