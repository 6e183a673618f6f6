"""The StyleSDF generator: z → codes → implicit surface → volume rendering → StyleGAN2 decoder.

Or-El et al., "StyleSDF: High-Resolution 3D-Consistent Image and Geometry Generation", 2022; numerically the released
networks. Letters: B batch, P heads, F rows of W+ for the field, D for the decoder, L = F + D, W its width.

The field's codes and the decoder's have different widths (256 and 512). A W+ code holds both, one row for each layer,
the narrower ones filled up with zeros that nothing reads: so codes are added, mixed and averaged like anybody's.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.config.generators import NoiseMode
from e3dge_video.config.stylesdf import StyleSDFConfig
from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.models.generators.base import (
    Planes,
    PointModulation,
    PointSamples,
    RenderOutput,
    Shading,
)
from e3dge_video.models.generators.stylesdf.decoder import StyleDecoder
from e3dge_video.models.generators.stylesdf.film_siren import CodeMapping
from e3dge_video.models.generators.stylesdf.sdf_renderer import FieldRays, FieldSums, SurfaceRender, SurfaceRenderer
from e3dge_video.models.rendering.sampling import RayDraws


class StyleSDF(nn.Module):
    """A 3D-aware GAN whose heads are signed distance fields.

    In training mode the samples along rays are jittered, from `random` when it is given; in evaluation mode the same
    call always gives the same result.
    """

    mean_latents: Tensor

    def __init__(self, config: StyleSDFConfig) -> None:
        super().__init__()
        self.config = config
        self.mapping = CodeMapping(config.siren.width, config.siren.mapping_layers)
        self.renderer = SurfaceRenderer(config.siren, config.volume)
        self.decoder = (
            None if config.decoder is None else StyleDecoder(config.decoder, config.siren.width, config.resolution)
        )
        self.register_buffer("mean_latents", torch.zeros(self.latent_shape))

    @property
    def z_dim(self) -> int:
        """Numbers Z of a random input."""
        return self.config.z_dim

    @property
    def feature_width(self) -> int:
        """Channels of the field's last layer before the view's."""
        return self.config.siren.width

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, W) of a W+ code."""
        return self.config.latent_shape

    @property
    def half_fov(self) -> float:
        """Half the field of view of its cameras, radians."""
        return math.radians(self.config.viewpoint.half_fov_deg)

    def frontal_camera(self) -> Camera:
        """The camera in front of the face. One camera"""
        return self.camera_at(self.mean_latents.new_zeros(1, 2))

    def camera_at(self, viewpoint: Tensor) -> Camera:
        """Cameras of these viewpoints: azimuth (towards the face's +x side) and elevation, radians. [B, 2]"""
        return Camera.from_stylesdf(viewpoint, self.half_fov)

    def map(
        self,
        z: Tensor,
        camera: Camera | None = None,
        *,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """z → latents in W, repeated over the rows of W+.

        Truncation acts twice, as in the released code: the field's code is drawn towards its mean; the decoder's,
        which is mapped from that code, is then drawn towards its own.

        Args:
            z: Standard normal numbers. [B, Z]
            camera: Plays no part: StyleSDF's codes know of no camera.
            truncation: 1 keeps w, 0 gives the mean.
            truncation_cutoff: Only so many first rows are truncated; None: all.

        Returns:
            [B, L, W]
        """
        w = self.mapping(z)
        latents = self._latents(w)
        if truncation == 1.0:
            return latents
        mean, fields = self.mean_latents, self.config.field_rows
        truncated = self._latents(mean[0, : w.shape[1]].lerp(w, truncation))
        truncated = torch.cat([truncated[:, :fields], mean[fields:].lerp(truncated[:, fields:], truncation)], dim=1)
        cutoff = len(mean) if truncation_cutoff is None else truncation_cutoff
        return torch.cat([truncated[:, :cutoff], latents[:, cutoff:]], dim=1)

    @torch.no_grad()
    def measure_mean(self, z: Tensor) -> None:
        """Set the mean of W+, the target of truncation, from standard normal numbers [N, Z]; N = 10,000 will do."""
        self.mean_latents.copy_(self.map(z).mean(dim=0))

    def mix(self, latents: Tensor, others: Tensor, crossover: int) -> Tensor:
        """Style mixing: the decoder's rows from `crossover` (of 0 ... D) on come from `others`. [B, L, W]"""
        row = self.config.field_rows + crossover
        return torch.cat([latents[:, :row], others[:, row:]], dim=1)

    def pack(self, field_codes: Tensor, decoder_codes: Tensor) -> Tensor:
        """Codes of the field's layers [B, F, 256] and of the decoder's [B, D, 512] → latents [B, L, W]"""
        width = self.config.latent_width
        return torch.cat([F.pad(codes, (0, width - codes.shape[-1])) for codes in (field_codes, decoder_codes)], dim=1)

    def unpack(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, L, W] → codes of the field's layers [B, F, 256] and of the decoder's [B, D, 512]"""
        rows, decoder = self.config.field_rows, self.config.decoder
        decoder_codes = latents[:, rows:, : None if decoder is None else decoder.w_dim]
        return latents[:, :rows, : self.config.siren.width], decoder_codes

    def planes(self, latents: Tensor, *, noise: NoiseMode = "const", random: torch.Generator | None = None) -> Planes:
        """The codes of each head's field, which is all there is to keep of it. The field has no noise.

        Args:
            latents: W+ codes. [B, L, W]
        """
        return Planes(self.unpack(latents)[0])

    def sample(self, planes: Planes, points: Tensor) -> PointSamples:
        """Density, and colour and features as seen straight on, at world points [P, M, 3]; one head: [B, M, 3]."""
        return self.renderer.sample(points, planes.values)

    def shade(self, planes: Planes, points: Tensor) -> Shading:
        """What an opaque surface at world points [P, M, 3], seen straight on, would add to a rendering."""
        seen = self.sample(planes, points)
        return Shading(seen.features[..., :3] * 2 - 1, seen.features[..., 3:], seen.density)

    def signed_distance(self, planes: Planes, points: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance and its derivative by the world point, the normal's direction.

        Both are differentiable by codes and parameters while gradients are on.

        Args:
            points: World coordinates. [P, M, 3], or [B, M, 3] for one head

        Returns:
            In the network's own units [B, M, 1], and those per world unit [B, M, 3].
        """
        sdf, _, gradient = self.renderer.geometry(points, self.renderer.siren.films(planes.values), gradient=True)
        assert gradient is not None
        return sdf, gradient

    @torch.no_grad()
    def distance_volume(
        self, planes: Planes, camera: Camera | None = None, *, resolution: int = 128, block: int = 256
    ) -> Tensor:
        """Signed distances on the samples of a fine rendering, for `geometry.meshes.unwarp_frustum`.

        Args:
            camera: One camera, or as many as heads; None: the frontal one.
            resolution: Rays on a side, and samples along each of them.
            block: Rays looked at together.

        Returns:
            In the network's own units. [P, R, R, R] (depth from near to far, rows, columns)
        """
        rays = self.renderer.rays(camera or self.frontal_camera(), resolution)
        depths, films = self.renderer.depths(samples=resolution), self.renderer.siren.films(planes.values)
        parts = []
        for start in range(0, resolution**2, max(1, block // len(planes))):
            part = rays[start : start + max(1, block // len(planes))]
            points = part.origins[:, :, None] + depths[..., None] * part.directions[:, :, None]
            sdf, _, _ = self.renderer.geometry(points.flatten(1, 2), films)
            parts.append(sdf.unflatten(1, (-1, resolution))[..., 0])
        return torch.cat(parts, dim=1).transpose(1, 2).unflatten(2, (resolution, resolution))

    def render(
        self,
        planes: Planes,
        camera: Camera,
        *,
        resolution: int | None = None,
        modulation: PointModulation | None = None,
        draws: RayDraws | None = None,
        random: torch.Generator | None = None,
        block: int = 256,
    ) -> SurfaceRender:
        """Volume rendering G0. As many cameras as heads, or one head and many cameras, or many heads and one camera.

        Args:
            resolution: Pixels R; None: the configured one.
            modulation: Local detail for colours and features (E3DGE, Eq. 9); the geometry does not change.
            draws: Jitter of the samples (`coarse`: one number per ray with offset sampling, else one per sample);
                None: none in evaluation mode, random in training mode.
            random: Source of random draws; also asks for them in evaluation mode.
            block: Rays rendered at once. Bounds the memory, does not change the result.
        """
        rays = self.renderer.rays(camera, resolution or self.config.resolution)
        return self.render_rays(planes, rays, modulation=modulation, draws=draws, random=random, block=block).images()

    def render_rays(
        self,
        planes: Planes,
        rays: FieldRays,
        *,
        modulation: PointModulation | None = None,
        draws: RayDraws | None = None,
        random: torch.Generator | None = None,
        gradient: bool = False,
        block: int = 256,
    ) -> FieldSums:
        """`render` for any rays [B, N]; `gradient` also asks for the field's derivative (for the eikonal loss)."""
        heads, views, count = len(planes), *rays.origins.shape[:2]
        if heads != views and 1 not in (heads, views):
            raise ValueError(f"{heads} heads and {views} cameras: give equal numbers, or one of either")
        if views < heads:
            rays = FieldRays(*(values.expand(heads, -1, -1) for values in vars(rays).values()))
            views = heads
        volume = self.config.volume
        jitter, noise = (None if draws is None else draws.coarse), None
        if self.training or random is not None:
            device = rays.origins.device
            if jitter is None:
                per_ray = 1 if volume.sampling == "offset" else volume.samples
                jitter = torch.rand((views, count, per_ray), generator=random, device=device)
            if volume.density_noise:
                noise = torch.randn((views, count, volume.samples), generator=random, device=device)
                noise = noise * volume.density_noise
        if jitter is not None:
            jitter = jitter.expand(views, count, -1)
        return self.renderer(
            planes.values, rays, draws=jitter, noise=noise, modulation=modulation, gradient=gradient, block=block
        )

    def upsample(
        self,
        rendered: RenderOutput,
        latents: Tensor,
        *,
        noise: NoiseMode = "const",
        random: torch.Generator | None = None,
    ) -> Tensor:
        """Super-resolution G1, or the rendering itself if the model has no decoder. [B, 3, H, H]

        Args:
            latents: [B or 1, L, W]
            noise: "const": each layer's own noise image, the same in every frame of a video; "none"; "random".
        """
        if self.decoder is None:
            return rendered.rgb
        size = rendered.features.shape[-1]
        if size != self.config.resolution:
            raise ConfigError(f"StyleSDF's decoder takes renderings of {self.config.resolution} px, got {size}")
        return self.decoder(rendered.features, self.unpack(latents)[1], noise=noise, random=random)

    def synthesize(self, latents: Tensor, camera: Camera) -> Tensor:
        """Latents [B or 1, L, W] and cameras → final images. [B, 3, H, H]"""
        return self.upsample(self.render(self.planes(latents), camera), latents)

    def _latents(self, w: Tensor) -> Tensor:
        """One code [B, 256] for all layers of the field, its image under the decoder's mapping for the decoder's."""
        decoder_code = w if self.decoder is None else self.decoder.mapping(w)
        return self.pack(
            w[:, None].expand(-1, self.config.field_rows, -1),
            decoder_code[:, None].expand(-1, self.config.decoder_rows, -1),
        )
