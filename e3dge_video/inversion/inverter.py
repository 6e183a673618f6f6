"""Single-image 3D GAN inversion (E3DGE): global shape first, then local detail; and its way back to pictures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from e3dge_video.geometry.cameras import Camera
from e3dge_video.inversion.lifting import Change, Layer, LiftedResidual, ResidualLift, clean_rim
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.pose_encoder import PoseEncoder
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.base import Generator, Planes
from e3dge_video.models.matting import MatteNet


@dataclass(frozen=True)
class Observation:
    """What the encoders alone say of a batch of face crops.

    Attributes:
        latents: W+ codes, E0(I). [B, L, W]
        camera: Cameras, E_ξ(I).
    """

    latents: Tensor
    camera: Camera


@dataclass(frozen=True)
class Inversion:
    """An inverted batch: it can be rendered from any view, with or without edits.

    Attributes:
        latents: W+ codes. [B, L, W]
        camera: Camera of each picture.
        planes: Heads of the codes; computed once, rendered from as many views as wanted.
        lifted: What the pictures add to the global reconstruction.
        coarse: The global reconstruction itself, Î0.
    """

    latents: Tensor
    camera: Camera
    planes: Planes
    lifted: LiftedResidual
    coarse: Layer


@dataclass(frozen=True)
class EditedHead:
    """An inversion with its codes moved.

    Attributes:
        latents: Edited codes. [B, L, W]
        planes: Their heads.
        layer: The edited head at the input view.
        change: What the edit does to the input view.
    """

    latents: Tensor
    planes: Planes
    layer: Layer
    change: Change


@dataclass(frozen=True)
class Picture:
    """A rendered batch.

    Attributes:
        image: RGB in [-1, 1]. [B, 3, S, S]
        depth: Distance along the ray, world units; meaningful where alpha is large. [B, 1, S, S]
        alpha: Opacity of the head. [B, 1, S, S]
    """

    image: Tensor
    depth: Tensor
    alpha: Tensor


class Inverter(nn.Module):
    """The method: E0 and E_ξ → G0 → residual → lift.

    Args:
        generator: G.
        encoder: E0.
        pose_encoder: E_ξ.
        face_points: 3D landmarks of a code.
        matte: Foreground of a picture.
        directions: One direction per attribute. [L, W] each
        expression: Orthonormal basis of what expression changes in a code. [K, W]
        neural_resolution: Side of the volume rendering, pixels.
        resolution: Side of the pictures, pixels.
    """

    expression: Tensor

    def __init__(
        self,
        generator: Generator,
        encoder: GlobalEncoder,
        pose_encoder: PoseEncoder,
        face_points: FacePoints,
        matte: MatteNet,
        directions: Mapping[str, Tensor],
        expression: Tensor,
        *,
        neural_resolution: int,
        resolution: int,
    ) -> None:
        super().__init__()
        self.generator, self.encoder, self.pose_encoder = generator, encoder, pose_encoder
        self.face_points, self.matte = face_points, matte
        self.register_buffer("expression", expression)
        self._edits = tuple(directions)
        for edit, direction in directions.items():
            self.register_buffer(f"direction_{edit}", direction)
        self.neural_resolution, self.resolution = neural_resolution, resolution
        self.lift = ResidualLift()

    @property
    def directions(self) -> dict[str, Tensor]:
        """One direction per attribute. [L, W] each"""
        return {edit: self.get_buffer(f"direction_{edit}") for edit in self._edits}

    def with_weights(self, weights: Mapping[str, Tensor]) -> Inverter:
        """The same inverter with a generator of its own, some of whose parameters are others; the rest is shared."""
        generator = copy.deepcopy(self.generator)
        assert isinstance(generator, nn.Module)
        with torch.no_grad():
            own = dict(generator.named_parameters())
            for name, value in weights.items():
                own[name].copy_(value)
        changed = copy.copy(self)
        changed._modules = {**self._modules, "generator": generator}
        return changed

    def observe(self, image: Tensor, landmarks: Tensor) -> Observation:
        """Run the encoders.

        Args:
            image: Face crops in [-1, 1]. [B, 3, S, S]
            landmarks: 68 points in crop coordinates 0..1. [B, 68, 2]
        """
        output = self.encoder(image, landmarks)  # w = E0(I)
        return Observation(output.latents, self.pose_encoder(output.features))  # ξ = E_ξ(I)

    def invert(self, image: Tensor, landmarks: Tensor, latents: Tensor, camera: Camera) -> Inversion:
        """Reconstruct globally and lift what is missing.

        Args:
            image: Face crops in [-1, 1]. [B, 3, S, S], S the inverter's resolution
            landmarks: 68 points in crop coordinates 0..1. [B, 68, 2]
            latents: W+ codes, from `observe`, settled over time for video. [B, L, W]
            camera: Camera of each crop.
        """
        planes = self.generator.planes(latents)
        coarse = self._layer(planes, latents, camera)  # Î0 = G(w, ξ)
        face = face_region(landmarks, image.shape[-1]).to(image)
        lifted = self.lift.lift(image, self.matte(image), coarse, camera, face)  # Δ = I − Î0
        return Inversion(latents, camera, planes, lifted, coarse)

    def edit(self, inversion: Inversion, latents: Tensor) -> EditedHead:
        """Move an inversion's codes; where something new stands, the residual will step back."""
        planes = self.generator.planes(latents)
        edited = self._layer(planes, latents, inversion.camera)
        return EditedHead(latents, planes, edited, Change.between(inversion.coarse, edited))

    def synthesize(self, inversion: Inversion, camera: Camera, edited: EditedHead | None = None) -> Picture:
        """Render the inverted subject from any camera, with its own detail.

        Args:
            inversion: The subject.
            camera: Where to look from; `inversion.camera` itself costs no rendering, that view is known.
            edited: The subject with moved codes.
        """
        if camera is inversion.camera:
            target = inversion.coarse if edited is None else edited.layer
        elif edited is None:
            target = self._layer(inversion.planes, inversion.latents, camera)
        else:
            target = self._layer(edited.planes, edited.latents, camera)
        change = None if edited is None else edited.change
        image, alpha = self.lift.render(inversion.lifted, target, camera, change)
        return Picture(image, target.depth, alpha)

    def _layer(self, planes: Planes, latents: Tensor, camera: Camera) -> Layer:
        rendered = self.generator.render(planes, camera, resolution=self.neural_resolution)
        color = _continued_to_border((self.generator.upsample(rendered, latents) + 1) / 2)
        size = color.shape[-1]
        alpha = _enlarged(rendered.alpha, size)
        # Empty rays have no depth of their own: they must not pull the outline's depth away from the head.
        weighted = _enlarged(rendered.depth * rendered.alpha, size)
        far = _enlarged(rendered.depth, size)
        depth = torch.where(alpha > 0.02, weighted / alpha.clamp_min(0.02), far)
        return Layer(clean_rim(color, alpha), alpha, depth)


def _continued_to_border(color: Tensor) -> Tensor:
    """The outermost pixels, where a super-resolution sees the zeros around its input, replaced by those beside them."""
    width = color.shape[-1] // 48
    return F.pad(color[..., width:-width, width:-width], (width,) * 4, mode="replicate") if width else color


def _enlarged(values: Tensor, size: int) -> Tensor:
    """A rendered map at the picture's size, smoothed so that an outline does not show the steps of its pixels."""
    large = F.interpolate(values, (size, size), mode="bilinear", align_corners=False)
    reach = size // values.shape[-1] + 1 - size // values.shape[-1] % 2
    return F.avg_pool2d(large, reach, 1, reach // 2, count_include_pad=False)


def face_region(landmarks: Tensor, size: int) -> Tensor:
    """The part of each crop inside jaw line and brows, feathered: foreground whatever the matte says. [B, 1, S, S]"""
    masks = []
    for points in landmarks.detach().cpu().numpy():
        centre = points.mean(axis=0)
        hull = cv2.convexHull(((centre + 0.92 * (points - centre)) * size).astype(np.float32))
        mask = np.zeros((size, size), np.float32)
        cv2.fillConvexPoly(mask, np.round(hull * 16).astype(np.int32), 1.0, cv2.LINE_AA, shift=4)
        masks.append(np.asarray(cv2.GaussianBlur(mask, (0, 0), size / 128), np.float32))
    return torch.from_numpy(np.stack(masks))[:, None]
