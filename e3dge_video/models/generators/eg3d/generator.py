"""The EG3D generator: z, camera → w → three planes → volume rendering → super-resolution.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks", 2022; numerically the released networks.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from e3dge_video.config.generators import EG3DConfig, NoiseMode
from e3dge_video.errors import ConfigError
from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.rays import Rays, camera_rays
from e3dge_video.geometry.trajectories import FRONT, eg3d_orbit
from e3dge_video.models.generators.base import Planes, PointModulation, PointSamples, RenderOutput, Shading
from e3dge_video.models.generators.eg3d.superresolution import SuperResolution
from e3dge_video.models.generators.eg3d.triplane import PointDecoder, TriPlaneField
from e3dge_video.models.mapping import MappingNetwork, broadcast_latents
from e3dge_video.models.rendering.sampling import RayDraws
from e3dge_video.models.rendering.volume import RaySums, render_rays
from e3dge_video.models.stylegan2 import SynthesisNetwork


class EG3D(nn.Module):
    """A 3D-aware GAN of heads.

    In training mode rays and (if asked for) noise are drawn at random, from `random` when it is given; in evaluation
    mode the same call always gives the same result.
    """

    def __init__(self, config: EG3DConfig) -> None:
        super().__init__()
        self.config = config
        mapping, backbone, decoder = config.mapping, config.backbone, config.decoder
        self.mapping = MappingNetwork(
            config.z_dim,
            config.camera_dim,
            config.w_dim,
            layers=mapping.layers,
            embed_width=mapping.camera_width,
            hidden_width=mapping.hidden_width,
            lr_multiplier=mapping.lr_multiplier,
        )
        self.backbone = SynthesisNetwork(
            config.w_dim,
            3 * backbone.plane_channels,
            backbone.widths,
            use_noise=backbone.use_noise,
            clamp=backbone.clamp,
        )
        self.decoder = PointDecoder(
            backbone.plane_channels, decoder.hidden, decoder.features, lr_multiplier=decoder.lr_multiplier
        )
        self.superresolution = (
            None
            if config.superresolution.kind == "none"
            else SuperResolution(config.superresolution, decoder.features, config.w_dim)
        )

    @property
    def z_dim(self) -> int:
        """Numbers Z of a random input."""
        return self.config.z_dim

    @property
    def feature_width(self) -> int:
        """Channels of the mean of the planes' features."""
        return self.config.backbone.plane_channels

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(L, W) of a W+ code."""
        return self.config.latent_shape

    @property
    def mean_latents(self) -> Tensor:
        """Running mean of w, the target of truncation. [W]"""
        assert self.mapping.mean_latents is not None
        return self.mapping.mean_latents

    def frontal_camera(self) -> Camera:
        """The camera in front of the face at the training distance. One camera"""
        return self.camera_at(self.mean_latents.new_zeros(1, 2))

    def camera_at(self, viewpoint: Tensor) -> Camera:
        """Cameras on the training sphere, which is centred on the world origin.

        Args:
            viewpoint: Azimuth (towards the face's +x side) and elevation, radians. [B, 2]
        """
        camera = self.config.camera
        azimuth, elevation = viewpoint.unbind(dim=1)
        # The polar angle that EG3D's own mapping of it takes to this elevation.
        polar = FRONT * (1 - elevation.sin())
        return eg3d_orbit(FRONT + azimuth, polar, target=camera.pivot, radius=camera.radius, focal=camera.focal)

    def map(
        self,
        z: Tensor,
        camera: Camera | None = None,
        *,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Tensor:
        """z → latents in W, repeated over the rows of W+.

        Args:
            z: Standard normal numbers. [B, Z]
            camera: Camera that w may depend on (the pose bias of the training set), B cameras or one; None: the frontal
                one, which is what one wants unless imitating the training set. Not the camera to render with.
            truncation: 1 keeps w, 0 gives the mean.
            truncation_cutoff: Only so many first rows are truncated; None: all.

        Returns:
            [B, L, W]
        """
        w = self.mapping(z, self._condition(camera, len(z)))
        return broadcast_latents(
            w, self.config.latent_rows, mean=self.mean_latents, truncation=truncation, cutoff=truncation_cutoff
        )

    def planes(self, latents: Tensor, *, noise: NoiseMode = "const", random: torch.Generator | None = None) -> Planes:
        """Draw the three planes of each head.

        Args:
            latents: W+ codes. [B, L, W]
            noise: "const": each layer's own noise image; "none"; "random": fresh noise.
        """
        image = self.backbone(latents, noise=noise, random=random)
        return Planes(image.unflatten(1, (3, -1)))

    def field(self, planes: Planes) -> TriPlaneField:
        """The function world points [P, M, 3] → `PointSamples` of these heads, made ready for many calls."""
        volume = self.config.volume
        return TriPlaneField(planes.values, self.decoder, box_warp=volume.box_warp, axes=volume.plane_axes)

    def sample(self, planes: Planes, points: Tensor) -> PointSamples:
        """Density and features at world points [P, M, 3]; one head may be asked at [B, M, 3]."""
        if len(planes) == 1 and len(points) > 1:
            seen = self.field(planes)(points.reshape(1, -1, 3))
            shape = points.shape[:2]
            return PointSamples(seen.density.view(*shape, 1), seen.features.view(*shape, -1))
        return self.field(planes)(points)

    def shade(self, planes: Planes, points: Tensor) -> Shading:
        """What an opaque surface at world points [P, M, 3] would add to a rendering; for learning at known surfaces."""
        seen = self.sample(planes, points)
        features = seen.features * 2 - 1
        return Shading(features[..., :3], features, seen.density)

    def render(
        self,
        planes: Planes,
        camera: Camera,
        *,
        resolution: int | None = None,
        modulation: PointModulation | None = None,
        draws: RayDraws | None = None,
        random: torch.Generator | None = None,
        block: int = 512,
    ) -> RenderOutput:
        """Volume rendering G0. As many cameras as heads, or one head and many cameras, or many heads and one camera.

        Args:
            resolution: Pixels R; None: the configured one.
            modulation: Local detail for colours and features (E3DGE, Eq. 9), where a ray's samples weigh most; the
                geometry does not change.
            draws: Positions of the samples; None: regular in evaluation mode, random in training mode.
            random: Source of random draws; also asks for them in evaluation mode.
            block: Rays rendered at once. Bounds the memory, does not change the result.
        """
        size = resolution or self.config.resolution
        rays = camera_rays(camera, size)
        sums = self.render_rays(planes, rays, modulation=modulation, draws=draws, random=random, block=block)
        features = sums.features.transpose(1, 2).unflatten(2, (size, size))
        depth, alpha = (values.unflatten(1, (1, size, size)) for values in (sums.depth, sums.alpha))
        return RenderOutput(features[:, :3], features, depth, alpha)

    def render_rays(
        self,
        planes: Planes,
        rays: Rays,
        *,
        modulation: PointModulation | None = None,
        draws: RayDraws | None = None,
        random: torch.Generator | None = None,
        block: int = 512,
    ) -> RaySums:
        """`render` for any rays [B, N]."""
        config = self.config
        heads, views, count = len(planes), *rays.origins.shape[:2]
        if heads != views and 1 not in (heads, views):
            raise ValueError(f"{heads} heads and {views} cameras: give equal numbers, or one of either")
        if views < heads:
            rays = Rays(rays.origins.expand(heads, -1, -1), rays.directions.expand(heads, -1, -1))
            views = heads
        if draws is None:
            device = rays.origins.device
            if self.training or random is not None:
                draws = RayDraws.random(
                    (views, count), config.rays.coarse, config.rays.fine, random=random, device=device
                )
            else:
                draws = RayDraws.regular(config.rays.coarse, config.rays.fine, device=device)
        if heads < views and modulation is not None:  # detail may differ from view to view
            planes, heads = Planes(planes.values.expand(views, -1, -1, -1, -1)), views
        if heads < views:  # one head: all rays are alike, whichever camera they come from
            rays = Rays(rays.origins.reshape(1, -1, 3), rays.directions.reshape(1, -1, 3))
            draws = RayDraws(_one_row(draws.coarse), _one_row(draws.fine))
        field = self.field(planes)
        sums = render_rays(
            field,
            rays,
            draws,
            config.rays,
            box_side=config.volume.box_warp,
            white_back=config.volume.white_back,
            detail=None if modulation is None else partial(field.detailed, modulation=modulation),
            block=block,
        )
        if heads == views:
            return sums
        return RaySums(
            sums.features.unflatten(1, (views, count))[0],
            sums.depth.view(views, count),
            sums.alpha.view(views, count),
        )

    def upsample(self, rendered: RenderOutput, latents: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Super-resolution G1, or the rendering itself if the model has none.

        Args:
            latents: [B or 1, L, W]
            dtype: Of the features inside: torch.float16 is what the released code uses on a GPU; None: full precision.

        Returns:
            [B, 3, H, H]
        """
        if self.superresolution is None:
            return rendered.rgb
        return self.superresolution(rendered.rgb, rendered.features, latents, dtype=dtype)

    def synthesize(self, latents: Tensor, camera: Camera) -> Tensor:
        """Latents [B or 1, L, W] and cameras → final images. [B, 3, H, H]"""
        return self.upsample(self.render(self.planes(latents), camera), latents)

    def _condition(self, camera: Camera | None, batch: int) -> Tensor | None:
        """Input of the mapping network for these cameras. [batch, 25]"""
        mapping = self.config.mapping
        if mapping.camera == "none":
            return None
        label = (camera or self.frontal_camera()).to_eg3d()
        if len(label) not in (1, batch):
            raise ConfigError(f"map: {batch} codes z need as many cameras, or one; got {len(label)}")
        scale = 0.0 if mapping.camera == "zeroed" else mapping.camera_scale
        return (label * scale).expand(batch, -1)


def _one_row(values: Tensor) -> Tensor:
    """[B, N, S] → [1, B N, S]; values shared by all rays stay as they are."""
    return values if values.shape[1] == 1 else values.reshape(1, -1, values.shape[-1])
