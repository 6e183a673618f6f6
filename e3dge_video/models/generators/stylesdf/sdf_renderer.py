"""StyleSDF's volume renderer: rays → samples of the implicit field → what each ray sees.

Or-El et al. 2022; G0 of E3DGE, section 5. Letters: B views, P heads (B or 1), N rays, S samples of a ray, W features.
Depths are measured along the optical axis here: a ray's direction advances one world unit along it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.config.stylesdf import SirenConfig, SurfaceVolumeConfig
from e3dge_video.geometry.cameras import STYLESDF_RADIUS, Camera
from e3dge_video.geometry.precision import full_precision
from e3dge_video.geometry.rays import image_plane, pixel_centres
from e3dge_video.models.generators.base import PointModulation, PointSamples, RenderOutput
from e3dge_video.models.generators.stylesdf.film_siren import Film, FilmSiren
from e3dge_video.models.parallel import map_blocks
from e3dge_video.models.rendering.compositing import composite, point_weights, sdf_extinction
from e3dge_video.models.rendering.sampling import even_depths, offset_depths, scatter_depths, shift_depths

#: Length of the interval behind the last sample, world units: nothing passes it where there is any density at all.
_ENDLESS = 1e10


@dataclass(frozen=True)
class FieldRays:
    """Rays as this renderer marches them.

    Attributes:
        origins: World coordinates. [B, N, 3]
        directions: World axes, not of unit length. [B, N, 3]
        looks: The unit directions that the colour layer sees. [B, N, 3]
    """

    origins: Tensor
    directions: Tensor
    looks: Tensor

    def __getitem__(self, part: slice) -> FieldRays:
        """Some of the rays of every view."""
        return FieldRays(self.origins[:, part], self.directions[:, part], self.looks[:, part])


@dataclass(frozen=True)
class SurfaceRender(RenderOutput):
    """A volume rendering that knows its surface.

    Attributes:
        xyz: Expected surface points, world coordinates. [B, 3, R, R]
        sdf: Output of the field at each sample, near to far: signed distance, or raw density. [B, S, R, R]
    """

    xyz: Tensor
    sdf: Tensor


@dataclass(frozen=True)
class FieldSums:
    """What rays see.

    Attributes:
        rgb: In [-1, 1]. [B, N, 3]
        features: [B, N, W]
        xyz: Expected surface points, world coordinates. [B, N, 3]
        depth: Expected distance along the ray, world units. [B, N]
        background: Weight of the last sample. [B, N]
        sdf: Output of the field at each sample, in the network's own units. [B, N, S]
        gradient: Derivative of `sdf` by the world point, if it was asked for. [B, N, S, 3]
    """

    rgb: Tensor
    features: Tensor
    xyz: Tensor
    depth: Tensor
    background: Tensor
    sdf: Tensor
    gradient: Tensor | None = None

    def images(self) -> SurfaceRender:
        """The same as images, the rays being those of all pixels of square ones."""
        size = math.isqrt(self.depth.shape[1])

        def image(values: Tensor) -> Tensor:
            return values.transpose(1, 2).unflatten(2, (size, size))

        depth, opaque = self.depth[..., None], 1 - self.background[..., None]
        rgb, features, xyz, sdf = image(self.rgb), image(self.features), image(self.xyz), image(self.sdf)
        return SurfaceRender(rgb, features, image(depth), image(opaque), xyz, sdf)


class SurfaceRenderer(nn.Module):
    """The implicit field of a head and its integration along rays."""

    def __init__(self, siren: SirenConfig, volume: SurfaceVolumeConfig) -> None:
        super().__init__()
        self.volume = volume
        self.siren = FilmSiren(siren.width, siren.depth)
        self.beta = nn.Parameter(torch.tensor(0.1))  # softness of the surface; a density field does not use it

    @full_precision
    def rays(self, camera: Camera, resolution: int) -> FieldRays:
        """Rays through every pixel of a square image, row by row. N = resolution²"""
        x, y = image_plane(camera, pixel_centres(resolution, device=camera.intrinsics.device))
        local = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        directions = local @ camera.cam2world[:, :3, :3].transpose(1, 2)
        # The released weights know a camera whose y points up and z backwards.
        seen = local * local.new_tensor([1.0, -1.0, -1.0]) if self.volume.static_directions else directions
        return FieldRays(camera.position[:, None].expand_as(directions), directions, F.normalize(seen, dim=-1))

    @property
    def near_far(self) -> tuple[float, float]:
        """The depths between which samples are taken."""
        return STYLESDF_RADIUS - self.volume.half_depth, STYLESDF_RADIUS + self.volume.half_depth

    def depths(self, draws: Tensor | None = None, *, samples: int | None = None) -> Tensor:
        """Depths of the samples, as many as configured unless another number is asked for.

        Args:
            draws: Jitter; None: none. One number per sample moves each by itself [B, N, S], one per ray all of its
                samples together (offset sampling's way) [B, N, 1]

        Returns:
            [B, N, S], or [1, 1, S] without draws
        """
        place = offset_depths if self.volume.sampling == "offset" else even_depths
        depths = place(*self.near_far, samples or self.volume.samples, device=self.beta.device)
        if draws is None:
            return depths
        return shift_depths(depths, draws) if draws.shape[-1] == 1 else scatter_depths(depths, draws)

    def normalized(self, points: Tensor) -> Tensor:
        """World points as the network sees them."""
        return points / self.volume.half_depth if self.volume.normalize else points

    def extinction(self, field: Tensor, noise: Tensor | None = None) -> Tensor:
        """Extinction per world unit of the field's output; `noise` is added to a raw density. Any shape"""
        if self.volume.mode == "sdf":
            return sdf_extinction(field, self.beta)
        return F.softplus(field if noise is None else field + noise)

    def geometry(
        self, points: Tensor, films: list[Film], *, gradient: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The field at world points.

        Args:
            points: [B, M, 3]
            films: Of P heads.
            gradient: Also its derivative by the world point, itself differentiable where gradients are on.

        Returns:
            Signed distance (or raw density) in the network's own units [B, M, 1], input of the colour layer [B, M, W],
            derivative [B, M, 3] or None.
        """
        if not gradient:
            return *self.siren.geometry(self.normalized(points), films), None
        training = torch.is_grad_enabled()
        with torch.enable_grad():
            if not points.requires_grad:
                points = points.detach().requires_grad_()
            sdf, hidden = self.siren.geometry(self.normalized(points), films)
            [slope] = torch.autograd.grad(sdf.sum(), points, create_graph=training, retain_graph=training)
        return (sdf, hidden, slope) if training else (sdf.detach(), hidden.detach(), slope)

    def sample(self, points: Tensor, codes: Tensor) -> PointSamples:
        """Density and features at world points, the latter as seen straight on.

        Args:
            points: [B, M, 3]
            codes: One for each layer of the field. [P, L, W]

        Returns:
            Raw density, so that softplus(density − 1) is the extinction per world unit [B, M, 1]; colour in [0, 1] and
            the W features [B, M, 3 + W].
        """
        films = self.siren.films(codes)
        field, hidden, _ = self.geometry(points, films)
        straight = points.new_tensor([0.0, 0.0, -1.0]).expand_as(points)
        logits, features = self.siren.appearance(hidden, straight, films[-1])
        if self.volume.mode == "density":
            density = field + 1
        else:  # inverse of the softplus; far outside a surface the extinction is too small for a float
            extinction = self.extinction(field).clamp(min=1e-30)
            density = extinction + torch.log(-torch.expm1(-extinction)) + 1
        return PointSamples(density, torch.cat([torch.sigmoid(logits), features], dim=-1))

    def forward(
        self,
        codes: Tensor,
        rays: FieldRays,
        *,
        draws: Tensor | None = None,
        noise: Tensor | None = None,
        modulation: PointModulation | None = None,
        gradient: bool = False,
        block: int = 256,
    ) -> FieldSums:
        """Render rays, `block` of them at a time to bound the memory; the block size does not change the result.

        Args:
            codes: One for each layer of the field. [P, L, W]
            rays: [B, N]
            draws: Jitter of the depths, see `depths`; None: none.
            noise: Added to raw densities in mode "density". [B, N, S]
            modulation: Of the features that the colour layer sees; the distance does not change.
            gradient: Also the derivative of the field.
        """
        films = self.siren.films(codes)
        step = max(1, block // len(rays.origins))

        def march(start: int) -> FieldSums:
            part = slice(start, start + step)
            depths = self.depths(None if draws is None else draws[:, part])
            part_noise = None if noise is None else noise[:, part]
            return self._block(films, rays[part], depths, part_noise, modulation, gradient=gradient)

        parts = map_blocks(march, range(0, rays.origins.shape[1], step), rays.origins.device)
        names = [name for name, value in vars(parts[0]).items() if value is not None]
        return FieldSums(**{name: torch.cat([getattr(part, name) for part in parts], dim=1) for name in names})

    def _block(
        self,
        films: list[Film],
        rays: FieldRays,
        depths: Tensor,
        noise: Tensor | None,
        modulation: PointModulation | None,
        *,
        gradient: bool,
    ) -> FieldSums:
        points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]  # [B, N, S, 3]
        shape = points.shape[:3]
        field, hidden, slope = self.geometry(points.flatten(1, 2), films, gradient=gradient)
        if modulation is not None:
            hidden = modulation(points.flatten(1, 2))(hidden)
        looks = rays.looks[:, :, None].expand_as(points).flatten(1, 2)
        logits, features = self.siren.appearance(hidden, looks, films[-1])
        sdf = field.view(shape)

        depths = depths.expand(shape)
        stretch = rays.directions.norm(dim=-1, keepdim=True)
        lengths = F.pad(depths[..., 1:] - depths[..., :-1], (0, 1), value=_ENDLESS) * stretch
        weights = point_weights(self.extinction(sdf, noise), lengths, force_background=self.volume.force_background)
        return FieldSums(
            rgb=2 * composite(torch.sigmoid(logits).view(*shape, 3), weights) - 1,
            features=composite(features.view(*shape, -1), weights),
            xyz=composite(points, weights),
            depth=(weights * depths * stretch).sum(dim=-1),
            background=weights[..., -1],
            sdf=sdf,
            gradient=None if slope is None else slope.view(points.shape),
        )
