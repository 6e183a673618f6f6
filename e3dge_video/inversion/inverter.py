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
from e3dge_video.geometry.projection import project
from e3dge_video.geometry.views import Orbit
from e3dge_video.inversion.branch_views import DETAIL_SIZE, smooth_view
from e3dge_video.inversion.detail import (
    LocalDetail,
    SourceDetail,
    View,
    detail_toward,
    edited_source,
    encode_source,
    moved_codes,
)
from e3dge_video.inversion.lifting import Change, Layer, LiftedResidual, ResidualLift, Toon
from e3dge_video.inversion.maps import enlarged_surface, resized
from e3dge_video.inversion.painting import clean_rim
from e3dge_video.inversion.portrait import DirectedModel, Observation, Picture, Reconstruction
from e3dge_video.inversion.toon import ToonGenerator
from e3dge_video.models.encoders.global_encoder import GlobalEncoder
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.encoders.pose_encoder import PoseEncoder
from e3dge_video.models.encoders.residual_blender import ResidualBlender
from e3dge_video.models.face_points import FacePoints
from e3dge_video.models.generators.base import Generator, Planes, RenderOutput
from e3dge_video.models.matting import MatteNet


@dataclass(frozen=True)
class Inversion:
    """An inverted batch: it can be rendered from any view, with or without edits.

    Attributes:
        latents: W+ codes. [B, L, W]
        camera: Camera of each picture.
        planes: Heads of the codes; computed once, rendered from as many views as wanted.
        coarse: The global reconstruction, Î0.
        local: Δ and what E1 makes of it; None without a local branch.
        layer: The reconstruction with local detail; without a local branch the global one.
        lifted: What the pictures add to `layer`.
    """

    latents: Tensor
    camera: Camera
    planes: Planes
    coarse: Layer
    local: SourceDetail | None
    layer: Layer
    lifted: LiftedResidual


@dataclass(frozen=True)
class EditedHead:
    """An inversion with its codes moved.

    Attributes:
        latents: Edited codes. [B, L, W]
        planes: Their heads.
        local: Local detail as E_ADA fits it to the edited head; None without a local branch.
        layer: The edited head at the input view.
        change: What the edit does to the input view.
        toon: What kind of cartoon it is; None: a photograph.
    """

    latents: Tensor
    planes: Planes
    local: SourceDetail | None
    layer: Layer
    change: Change
    toon: Toon | None = None


class Inverter(DirectedModel):
    """The method: E0 and E_ξ → G0 → Δ → E1 → G with local detail → lift of what is still missing.

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
        local: E1, E_ADA, fusion and FiLM head; None: local detail is the lift's alone.
        blender: Learned part of the lift; None: its plain rule.
        toon: What draws cartoons of a code; None: nothing does.
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
        local: LocalBranch | None = None,
        blender: ResidualBlender | None = None,
        toon: ToonGenerator | None = None,
    ) -> None:
        super().__init__(directions)
        self.toon = toon
        self.generator, self.encoder, self.pose_encoder = generator, encoder, pose_encoder
        self.face_points, self.matte = face_points, matte
        self.local, self.blender = local, blender
        self.register_buffer("expression", expression)
        self.neural_resolution, self.resolution = neural_resolution, resolution
        self.lift = ResidualLift(blender=blender)
        self.orbit = Orbit()

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.expression.device

    def with_weights(self, weights: Mapping[str, Tensor]) -> Inverter:
        """The same inverter with a generator of its own, some of whose parameters are others; the rest is shared."""
        generator = copy.deepcopy(self.generator)
        assert isinstance(generator, nn.Module)
        with torch.no_grad():
            own = dict(generator.named_parameters())
            for name, value in weights.items():
                own[name].copy_(value)
        return self._with(generator=generator)

    def with_branch(self, branch: LocalBranch) -> Inverter:
        """The same inverter with another local branch; all is shared."""
        return self._with(local=branch)

    def _with(self, **modules: nn.Module) -> Inverter:
        changed = copy.copy(self)
        # A part that there was not is a plain attribute, None, and would hide the module.
        changed.__dict__ = {name: value for name, value in vars(self).items() if name not in modules}
        changed._modules = {**self._modules, **modules}
        return changed

    def observe(self, image: Tensor, landmarks: Tensor | None = None) -> Observation:
        """Run the encoders.

        Args:
            image: Face crops in [-1, 1]. [B, 3, S, S]
            landmarks: 68 points in crop coordinates 0..1; None: where the model itself puts them. [B, 68, 2]
        """
        landmarks = self.own_landmarks(image) if landmarks is None else landmarks
        output = self.encoder(image, landmarks)  # w = E0(I)
        return Observation(output.latents, self.pose_encoder(output.features))  # ξ = E_ξ(I)

    def own_landmarks(self, image: Tensor) -> Tensor:
        """68 points of face crops [B, 3, S, S] as the predicted head has them. [B, 68, 2] in crop coordinates 0..1

        The encoder's close-ups need points to begin with: those of the mean head, seen from the front.
        """
        count = len(image)
        front = self.generator.frontal_camera().to(image.device)
        mean = project(self.face_points.mean_points[None].to(image), front)[0].expand(count, -1, -1)
        seen = self.observe(image, mean)
        return project(self.face_points(seen.latents), seen.camera)[0]

    def invert(
        self,
        image: Tensor,
        camera: Camera | None = None,
        *,
        landmarks: Tensor | None = None,
        latents: Tensor | None = None,
    ) -> Inversion:
        """Reconstruct pictures and lift what is missing. One pass of the backbone, however many views will be drawn.

        Args:
            image: Face crops in [-1, 1]. [B, 3, S, S], S the inverter's resolution
            camera: Camera of each crop; None: E_ξ's.
            landmarks: 68 points in crop coordinates 0..1; None: the model's own, see `own_landmarks`. [B, 68, 2]
            latents: W+ codes, for video those of `observe` settled over time; None: E0's. [B, L, W]
        """
        landmarks = self.own_landmarks(image) if landmarks is None else landmarks
        if camera is None or latents is None:
            seen = self.observe(image, landmarks)
            camera, latents = camera or seen.camera, seen.latents if latents is None else latents
        planes = self.generator.planes(latents)
        rendered = self._rendered(self.generator, planes, camera)  # Î0 = G0(w, ξ)
        coarse, foreground = self._finished(rendered, latents, self.generator), self.foreground(image, landmarks)
        local, layer = None, coarse
        if self.local is not None:
            view = self.view(rendered, camera)
            local = encode_source(self.local, self.residual(image, foreground, rendered, view), view)  # F_L = E1(Δ)
            layer = self._detailed(planes, latents, camera, local.residual, local, view)
        lifted = self.lift.lift(image, foreground, layer, camera)
        return Inversion(latents, camera, planes, coarse, local, layer, lifted)

    def edit(self, inversion: Inversion, latents: Tensor) -> EditedHead:
        """Move an inversion's codes; where something new stands, the residual will step back."""
        planes, camera, local = self.generator.planes(latents), inversion.camera, None
        if self.local is None or inversion.local is None:
            layer = self.layer(planes, latents, camera)
        else:
            view = self.view(self._rendered(self.generator, planes, camera), camera)
            residual, moved = inversion.local.residual, moved_codes(inversion.latents, latents)
            local = edited_source(self.local, residual, inversion.local.view, view, moved)
            layer = self._detailed(planes, latents, camera, residual, local, view)
        return EditedHead(latents, planes, local, layer, Change.between(inversion.layer, layer))

    def toonify(self, inversion: Inversion, latents: Tensor) -> EditedHead:
        """Draw an inversion, or its moved codes, as a cartoon (§7.5), of the degree the inverter was loaded with."""
        assert self.toon is not None, "load_inverter(…, toon=degree) loads what draws cartoons"
        planes = self.toon.generator.planes(latents)
        drawn = self.layer(planes, latents, inversion.camera, self.toon.generator)
        kind = Toon.of(inversion.lifted, drawn, self.toon.degree, outline=self.toon.outline)
        return EditedHead(latents, planes, None, drawn, Change.between(inversion.layer, drawn), kind)

    def synthesize(self, inversion: Inversion, camera: Camera, edited: EditedHead | None = None) -> Picture:
        """Render the inverted subject from any camera, with its own detail.

        Args:
            inversion: The subject.
            camera: Where to look from; `inversion.camera` itself costs no rendering, that view is known.
            edited: The subject with moved codes.
        """
        target = self.target(inversion, camera, edited)
        change, toon = (None, None) if edited is None else (edited.change, edited.toon)
        image, alpha = self.lift.render(inversion.lifted, target, camera, change, toon)
        return Picture(image, target.depth, alpha)

    def target(self, inversion: Inversion, camera: Camera, edited: EditedHead | None = None) -> Layer:
        """What `synthesize` lays the lifted residual on: the head with local detail, as the camera sees it."""
        head = inversion if edited is None else edited
        if camera is inversion.camera:
            return head.layer
        if self.local is None or inversion.local is None or head.local is None:
            drawn_by = None if edited is None or edited.toon is None or self.toon is None else self.toon.generator
            return self.layer(head.planes, head.latents, camera, drawn_by)
        view = self.view(self._rendered(self.generator, head.planes, camera), camera)
        return self._detailed(head.planes, head.latents, camera, inversion.local.residual, head.local, view)

    def reconstruction(self, inversion: Inversion) -> Reconstruction:
        """What the global codes alone show, over grey; compared where the head is."""
        coarse, lifted = inversion.coarse, inversion.lifted
        shown = 2 * (coarse.color + 0.5 * (1 - coarse.alpha)) - 1
        return Reconstruction(shown, coarse.alpha * lifted.matte, lifted.confidence)

    def foreground(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """Where face crops [B, 3, S, S] show the head: the matte, and the face beyond doubt. [B, 1, S, S] in 0..1"""
        return torch.maximum(self.matte(image), face_region(landmarks, image.shape[-1]).to(image))

    def view(self, rendered: RenderOutput, camera: Camera) -> View:
        """A global reconstruction as the local branch sees it: the raw neural image, enlarged."""
        return smooth_view(rendered, camera)

    def residual(self, image: Tensor, foreground: Tensor, rendered: RenderOutput, view: View) -> Tensor:
        """Δ = I − Î0 where both the picture and the reconstruction show the head, else 0. [B, 3, S, S]

        It carries no gradient into the codes: E1 is trained on what E0 leaves.

        Args:
            image: Pictures in [-1, 1]. [B, 3, H, H]
            foreground: Their heads, 0..1. [B, 1, H, H]
            rendered: Their global reconstruction.
            view: The same, as `view` gives it.
        """
        image, foreground, alpha = (resized(values, DETAIL_SIZE) for values in (image, foreground, rendered.alpha))
        # The reconstruction stands on black: so must the picture, or its background would shine through the outline.
        whole = torch.minimum(foreground, alpha)
        return (whole * ((image + 1) * alpha - 1 - view.picture)).detach()

    def layer(self, planes: Planes, latents: Tensor, camera: Camera, generator: Generator | None = None) -> Layer:
        """Heads as a camera sees them, without local detail, at the pictures' size.

        Args:
            generator: What draws them; None: the inverter's own.
        """
        generator = generator or self.generator
        return self._finished(self._rendered(generator, planes, camera), latents, generator)

    def _detailed(
        self, planes: Planes, latents: Tensor, camera: Camera, residual: Tensor, source: SourceDetail, view: View
    ) -> Layer:
        """Heads with local detail, `view` being their global reconstruction from `camera`."""
        assert self.local is not None
        detail = detail_toward(self.local, residual, source, view)
        rendered = self._rendered(self.generator, planes, camera, detail)
        return self._finished(rendered, latents, self.generator)

    def _rendered(
        self, generator: Generator, planes: Planes, camera: Camera, detail: LocalDetail | None = None
    ) -> RenderOutput:
        """Volume rendering in full precision, however the networks compute."""
        return generator.render(planes, camera, resolution=self.neural_resolution, modulation=detail).float()

    def _finished(self, rendered: RenderOutput, latents: Tensor, generator: Generator) -> Layer:
        """After super-resolution, at the pictures' size."""
        color = _continued_to_border((generator.upsample(rendered, latents).float() + 1) / 2)
        depth, alpha = enlarged_surface(rendered, color.shape[-1])
        return Layer(clean_rim(color, alpha), alpha, depth)


def _continued_to_border(color: Tensor) -> Tensor:
    """The outermost pixels, where a super-resolution sees the zeros around its input, replaced by those beside them."""
    width = color.shape[-1] // 48
    return F.pad(color[..., width:-width, width:-width], (width,) * 4, mode="replicate") if width else color


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
