"""Single-image inversion with StyleSDF as E3DGE was released: global codes, local detail aligned both ways.

E3DGE, section 4 and Fig. 3. Letters: B batch, R pixels of the volume rendering, M points of a view's rays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import axial_depth, in_image, project, sample_map
from e3dge_video.models.discriminators import ViewpointDiscriminator
from e3dge_video.models.encoders.hybrid import HybridEncoders, LocalBranch
from e3dge_video.models.encoders.psp import INPUT_SIZE
from e3dge_video.models.generators.base import FeatureModulation
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
        local_features: F_L: what E1 makes of Δ, for edited codes of Δ realigned to them. [B, 256, 64, 64]; None
            without a 3D-aligned branch
    """

    latents: Tensor
    camera: Camera
    coarse: SurfaceRender
    residual: Tensor
    local_features: Tensor | None


@dataclass(frozen=True)
class LocalDetail:
    """What the pictures' residual does to the generator's features at any point, for one target view.

    Attributes:
        branch: The networks.
        source: Cameras of the pictures.
        target: Cameras of the view.
        local_features: F_L, read where a point appears in the picture. [B, 256, 64, 64]
        aligned_features: F_ADA, read where it appears in the target view. [B, 256, 64, 64]
        visible: 1 where the target view's surface lies inside the picture, else 0. [B, 1, R, R]
    """

    branch: LocalBranch
    source: Camera
    target: Camera
    local_features: Tensor | None
    aligned_features: Tensor
    visible: Tensor

    def features(self, points: Tensor) -> Tensor:
        """Local features of world points [B, M, 3]: 3D- and 2D-aligned ones, fused (Eqs. 7 and 10). [B, M, 256]"""
        target = project(points, self.target)[0]
        aligned = sample_map(self.aligned_features, target).transpose(1, 2)
        if self.branch.fusion is None or self.local_features is None:
            return aligned
        local = sample_map(self.local_features, project(points, self.source)[0]).transpose(1, 2)
        visible = sample_map(self.visible, target, mode="nearest").transpose(1, 2)
        return self.branch.fusion(local, aligned, visible)

    def __call__(self, points: Tensor) -> FeatureModulation:
        """World points [B, M, 3] → modulation of the features there (Eq. 9)."""
        return self.branch.film_head(self.features(points), points)


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
        return HybridInversion(latents, camera, coarse, residual, self._local_features(residual, coarse, camera))

    def edit(self, inversion: HybridInversion, latents: Tensor) -> HybridInversion:
        """The same pictures with other codes: E_ADA moves the residual along with what the codes change.

        Args:
            latents: Edited W+ codes. [B, L, W]
        """
        coarse = self.generator.render(self.generator.planes(latents), inversion.camera)
        features = None
        if inversion.local_features is not None:
            features = self._local_features(self.align(inversion.residual, coarse), coarse, inversion.camera)
        return replace(inversion, latents=latents, coarse=coarse, local_features=features)

    def align(self, residual: Tensor, target: SurfaceRender) -> Tensor:
        """E_ADA: the residual as it would be of another global reconstruction. [B, 3, 256, 256]"""
        assert self.encoders.local is not None
        return self.encoders.local.aligner(residual, _enlarged(target.rgb))

    def detail(self, inversion: HybridInversion, target: SurfaceRender, camera: Camera) -> LocalDetail | None:
        """Local detail for a view; None of a model without a local branch.

        Args:
            target: The global reconstruction from there.
            camera: Of the view.
        """
        branch = self.encoders.local
        if branch is None:
            return None
        aligned = branch.encoder(self.align(inversion.residual, target), _enlarged(optical_depth(target, camera)))
        seen = in_image(project(surface_points(target), inversion.camera)[0])
        visible = seen.to(aligned.dtype).unflatten(1, target.xyz.shape[-2:])[:, None]
        return LocalDetail(branch, inversion.camera, camera, inversion.local_features, aligned, visible)

    def render(self, inversion: HybridInversion, camera: Camera) -> SurfaceRender:
        """Volume rendering of the inverted heads with local detail; its geometry is that of the codes alone."""
        planes = self.generator.planes(inversion.latents)
        target = inversion.coarse if camera is inversion.camera else self.generator.render(planes, camera)
        detail = self.detail(inversion, target, camera)
        return target if detail is None else self.generator.render(planes, camera, modulation=detail)

    def synthesize(self, inversion: HybridInversion, camera: Camera) -> Tensor:
        """Pictures of the inverted heads from any camera. [B, 3, S, S], S pixels of the generator's image"""
        return self.generator.upsample(self.render(inversion, camera), inversion.latents)

    def _local_features(self, residual: Tensor, coarse: SurfaceRender, camera: Camera) -> Tensor | None:
        """F_L = E1(Δ, depth), if the model reads it."""
        branch = self.encoders.local
        if branch is None or branch.fusion is None:
            return None
        return branch.encoder(residual, _enlarged(optical_depth(coarse, camera)))


def surface_points(rendered: SurfaceRender) -> Tensor:
    """Expected surface points of all pixels, row by row, world units. [B, R·R, 3]"""
    return rendered.xyz.flatten(2).transpose(1, 2)


def optical_depth(rendered: SurfaceRender, camera: Camera) -> Tensor:
    """Depth of the expected surface along the optical axis, world units, which the released E1 sees. [B, 1, R, R]"""
    return axial_depth(surface_points(rendered), camera).unflatten(1, rendered.xyz.shape[-2:])[:, None]


def _enlarged(values: Tensor) -> Tensor:
    """A rendered map at the encoders' size; nearest, as the released weights were trained. [B, C, 256, 256]"""
    return F.interpolate(values, (INPUT_SIZE, INPUT_SIZE), mode="nearest")
