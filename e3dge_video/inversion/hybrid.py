"""Single-image inversion with StyleSDF as E3DGE was released: global codes, local detail aligned both ways.

E3DGE, section 4 and Fig. 3. Letters: B batch, R pixels of the volume rendering.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import axial_depth
from e3dge_video.inversion.detail import (
    LocalDetail,
    SourceDetail,
    View,
    detail_toward,
    edited_source,
    encode_source,
)
from e3dge_video.models.discriminators import ViewpointDiscriminator
from e3dge_video.models.encoders.hybrid import HybridEncoders
from e3dge_video.models.encoders.psp import INPUT_SIZE
from e3dge_video.models.generators.stylesdf.generator import StyleSDF
from e3dge_video.models.generators.stylesdf.sdf_renderer import SurfaceRender


@dataclass(frozen=True)
class HybridInversion:
    """An inverted batch of pictures, with its own codes or edited ones.

    Attributes:
        latents: W+ codes. [B, L, W]
        camera: Camera of each picture.
        coarse: The global reconstruction at that camera, Î0.
        residual: Δ = I − Î0 of the codes that the encoder gave. [B, 3, 256, 256]
        detail: What E1 makes of Δ, for edited codes of Δ realigned to them; None without a local branch.
    """

    latents: Tensor
    camera: Camera
    coarse: SurfaceRender
    residual: Tensor
    detail: SourceDetail | None


class HybridInverter(nn.Module):
    """E3DGE with StyleSDF: picture → codes and residual → picture from any view, edited or not.

    Args:
        generator: G.
        viewpoints: Tells the camera of a picture: StyleSDF's volume discriminator.
        encoders: E0, E1, E_ADA and the fusion.
    """

    def __init__(self, generator: StyleSDF, viewpoints: ViewpointDiscriminator, encoders: HybridEncoders) -> None:
        super().__init__()
        self.generator, self.viewpoints, self.encoders = generator, viewpoints, encoders

    def estimate_camera(self, image: Tensor) -> Camera:
        """ξ of pictures [B, 3, H, H]."""
        _, viewpoint = self.viewpoints(F.adaptive_avg_pool2d(image, self.viewpoints.resolution))
        return Camera.from_stylesdf(viewpoint, self.generator.half_fov)

    def encode(self, image: Tensor) -> Tensor:
        """w = E0(I): mean codes plus offsets. [B, 3, 256, 256] → [B, L, W]"""
        return self.generator.mean_latents + self.generator.pack(*self.encoders.global_encoder(image))

    def invert(self, image: Tensor, camera: Camera | None = None) -> HybridInversion:
        """Reconstruct pictures globally and keep what is missing.

        Args:
            image: Aligned faces in [-1, 1], H a multiple of 256. [B, 3, H, H]
            camera: Their cameras, if they are known.
        """
        camera = camera or self.estimate_camera(image)
        image = F.adaptive_avg_pool2d(image, INPUT_SIZE)
        latents = self.encode(image)
        coarse = self.generator.render(self.generator.planes(latents), camera)  # Î0 = G0(w, ξ)
        # Δ carries no gradient into the codes: E1 is trained on what E0 leaves.
        residual = (image - _enlarged(coarse.rgb)).detach()
        return HybridInversion(latents, camera, coarse, residual, self._detail(residual, coarse, camera))

    def edit(self, inversion: HybridInversion, latents: Tensor) -> HybridInversion:
        """The same pictures with other codes: E_ADA moves the residual along with what the codes change.

        Args:
            latents: Edited W+ codes. [B, L, W]
        """
        coarse = self.generator.render(self.generator.planes(latents), inversion.camera)
        branch = self.encoders.local
        view = seen_from(coarse, inversion.camera)
        detail = None if branch is None else edited_source(branch, inversion.residual, view)
        return replace(inversion, latents=latents, coarse=coarse, detail=detail)

    def detail(self, inversion: HybridInversion, target: SurfaceRender, camera: Camera) -> LocalDetail | None:
        """Local detail for a view; None of a model without a local branch.

        Args:
            target: The global reconstruction from there.
            camera: Of the view.
        """
        if self.encoders.local is None or inversion.detail is None:
            return None
        return detail_toward(self.encoders.local, inversion.residual, inversion.detail, seen_from(target, camera))

    def render(self, inversion: HybridInversion, camera: Camera) -> SurfaceRender:
        """Volume rendering of the inverted heads with local detail; its geometry is that of the codes alone."""
        planes = self.generator.planes(inversion.latents)
        target = inversion.coarse if camera is inversion.camera else self.generator.render(planes, camera)
        detail = self.detail(inversion, target, camera)
        return target if detail is None else self.generator.render(planes, camera, modulation=detail)

    def synthesize(self, inversion: HybridInversion, camera: Camera) -> Tensor:
        """Pictures of the inverted heads from any camera. [B, 3, S, S], S pixels of the generator's image"""
        return self.generator.upsample(self.render(inversion, camera), inversion.latents)

    def _detail(self, residual: Tensor, coarse: SurfaceRender, camera: Camera) -> SourceDetail | None:
        branch = self.encoders.local
        return None if branch is None else encode_source(branch, residual, seen_from(coarse, camera))


def surface_points(rendered: SurfaceRender) -> Tensor:
    """Expected surface points of all pixels, row by row, world units. [B, R·R, 3]"""
    return rendered.xyz.flatten(2).transpose(1, 2)


def optical_depth(rendered: SurfaceRender, camera: Camera) -> Tensor:
    """Depth of the expected surface along the optical axis, world units, which the released E1 sees. [B, 1, R, R]"""
    return axial_depth(surface_points(rendered), camera).unflatten(1, rendered.xyz.shape[-2:])[:, None]


def seen_from(rendered: SurfaceRender, camera: Camera) -> View:
    """A global reconstruction as the released encoders see it."""
    depth = _enlarged(optical_depth(rendered, camera))
    return View(_enlarged(rendered.rgb), depth, surface_points(rendered), camera)


def _enlarged(values: Tensor) -> Tensor:
    """A rendered map at the encoders' size; nearest, as the released weights were trained. [B, C, 256, 256]"""
    return F.interpolate(values, (INPUT_SIZE, INPUT_SIZE), mode="nearest")
