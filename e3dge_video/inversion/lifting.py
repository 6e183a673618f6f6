"""The plain local branch: lift the residual of the real pixels onto the predicted head, depth-tested.

A global code gives a head of the right pose, expression and colouring; what makes it *this* person is the residual
Δ = I − Î0. Every surface point of the head reads Δ where it projects into the input picture, if it was visible there.
Points that were hidden get a smooth continuation of their neighbours' residual, so that skin tone and light stay whole
without a seam. Hair and clothing outside the predicted outline stand on a board through the head's pivot, and behind
everything is the picture's own background with the person filled in.

So much is geometry alone. A `ResidualBlender` learns the rest: how far to trust what was seen, and what else to show.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from e3dge_video.geometry.cameras import EG3D_PIVOT, Camera
from e3dge_video.geometry.projection import nearest_in_image, pixel_directions, project, sample_map, unproject
from e3dge_video.inversion.painting import (
    EDIT_THRESHOLD,
    against_surroundings,
    box_mean,
    contour,
    dilated,
    eroded,
    flat_areas,
    push_pull,
    replaced_share,
    shifted_share,
    solid,
    widened,
)
from e3dge_video.models.encoders.residual_blender import ResidualBlender

#: What remains of a colour in a cartoon's outline.
_INK = 0.4
#: Where the crop puts a frontal face's chin, and a little more, in crop heights from above.
_CHIN = 0.78


@dataclass(frozen=True)
class LiftConfig:
    """Tolerances of the lift, in world units unless stated."""

    #: Depth difference up to which a point counts as the one that the input view saw, and the softness beyond.
    depth_tolerance: float = 0.02
    depth_softness: float = 0.01
    #: Cosine between viewing ray and surface below which a residual is not trusted (it would be smeared).
    grazing: float = 0.25
    #: An edit that changes a place by more than this replaces what the camera saw there (see `Change`).
    edit_threshold: float = EDIT_THRESHOLD
    #: Angle beside the input view from which on nothing of the picture's head is left on the board. [rad]
    turned: float = 0.1
    #: How far beyond the crop's border its foreground is continued, fading out, in crop widths.
    margin: float = 0.15
    #: Angle beside the input view from which on the learned blend counts fully. [rad]
    aside: float = 0.15
    #: Share of the hidden side's smooth continuation that is applied.
    fill: float = 1.0


@dataclass(frozen=True)
class Layer:
    """A head seen by a camera.

    Attributes:
        color: RGB in 0..1, multiplied by alpha. [B, 3, S, S]
        alpha: Opacity. [B, 1, S, S]
        depth: Distance along the ray, world units. [B, 1, S, S]
    """

    color: Tensor
    alpha: Tensor
    depth: Tensor


@dataclass(frozen=True)
class LiftedResidual:
    """What the input picture adds to the global reconstruction, ready to be read from any view.

    Attributes:
        residual: Δ, colours in 0..1 not multiplied by alpha. [B, 3, S, S]
        confidence: Trust in Δ, 0..1. [B, 1, S, S]
        depth: Depth of the coarse reconstruction at the input view. [B, 1, S, S]
        matte: Foreground of the picture. [B, 1, S, S]
        image: The picture itself, in 0..1. [B, 3, S, S]
        background: The picture with the person filled in, in 0..1. [B, 3, S, S]
        behind: What stands behind the head as far as its surroundings tell: colour in 0..1 and opacity. [B, 4, S, S]
        camera: Camera of the picture.
    """

    residual: Tensor
    confidence: Tensor
    depth: Tensor
    matte: Tensor
    image: Tensor
    background: Tensor
    behind: Tensor
    camera: Camera


@dataclass(frozen=True)
class Change:
    """What an edit does to the head at the input view.

    Attributes:
        replaced: How much something else stands in a place than before (an open mouth, glasses, longer hair). Broad
            changes of tone (greying hair, paler skin) are no reason to drop the real detail: they add to it. So colours
            are compared with their surroundings (0..2), outlines and depths (a tenth of a world unit is 1) as they are.
            [B, 1, S, S]
        tone: Change of colour, continued beyond the head: hair outside the predicted outline greys too. [B, 3, S, S]
        shade: Share of its light that a place keeps where the edit darkens it, 0.5..1. A wrinkle takes a share of the
            light, not an amount: what the person is brighter than the model darkens along. [B, 1, S, S]
        steady: What takes back an edit that only shifts what is there (the light in an eye, the rim of a brow): the
            person has it in a place of their own, and would get it twice. [B, 3, S, S]
    """

    replaced: Tensor
    tone: Tensor
    shade: Tensor
    steady: Tensor

    @classmethod
    @torch.no_grad()
    def between(cls, before: Layer, after: Layer) -> Change:
        """Of two layers at the same camera; what it finds carries no gradient."""
        difference = after.color - before.color
        fine = against_surroundings(difference)
        shifted, strength = shifted_share(after.color - fine, after.color), 2 * fine.abs().mean(dim=1, keepdim=True)
        # Beside a place that shows something new, a shift is part of it: a mouth that smiles is to be seen as a whole.
        side = shifted.shape[-1] // 10 | 1
        new = replaced_share(dilated((1 - shifted) * strength, side), EDIT_THRESHOLD)
        shifted = shifted * (1 - new)
        color = (1 - shifted) * strength
        outline = (after.alpha - before.alpha).abs()
        both = torch.minimum(before.alpha, after.alpha)
        depth = 10 * (after.depth - before.depth).abs() * both
        change = torch.maximum(color, torch.maximum(outline, depth))
        replaced = widened(change)
        tone = push_pull(difference, solid(both) * (1 - replaced).clamp(0, 1))
        light = [layer.color.mean(dim=1, keepdim=True) / layer.alpha.clamp_min(0.5) for layer in (before, after)]
        shade = ((light[1] + 0.02) / (light[0] + 0.02)).clamp(0.5, 1)
        return cls(replaced, tone, torch.lerp(torch.ones_like(shade), shade, solid(both)), -shifted * fine)


@dataclass(frozen=True)
class LiftReading:
    """What the input view says of each place that another camera sees.

    Attributes:
        target: The (edited) head from there.
        uv: Where the input view has the places, row by row, in image coordinates 0..1. [B, S·S, 2]
        seen: Residual at the place itself. [B, 3, S, S]
        weight: Trust in it, 0..1: 0 where the input view did not see the place. [B, 1, S, S]
        mirrored: Residual at the place's mirror image: a head's two sides are much alike. [B, 3, S, S]
        mirror_weight: Trust in that. [B, 1, S, S]
        continued: Smooth continuation of what was seen around. [B, 3, S, S]
        hull: 0 where the input camera saw background. [B, 1, S, S]
        replaced: How much an edit puts something else there, see `Change`. [B, 1, S, S]
        shade: Share of its light that an edit leaves, see `Change`. [B, 1, S, S]
    """

    target: Layer
    uv: Tensor
    seen: Tensor
    weight: Tensor
    mirrored: Tensor
    mirror_weight: Tensor
    continued: Tensor
    hull: Tensor
    replaced: Tensor
    shade: Tensor

    def features(self) -> Tensor:
        """What the learned blend looks at, at half the size. [B, 17, S/2, S/2]"""
        maps = [
            self.target.color,
            self.target.alpha,
            self.seen * self.weight.clamp_min(0.1),
            self.weight,
            self.mirrored * self.mirror_weight.clamp_min(0.1),
            self.mirror_weight,
            self.continued,
            self.hull,
            self.replaced.clamp(0, 2),
        ]
        return F.avg_pool2d(torch.cat(maps, dim=1), 2)


def blended(shares: Tensor, seen: Tensor, mirrored: Tensor, continued: Tensor) -> Tensor:
    """Residual from the shares of its candidates [B, 4, S, S]. [B, 3, S, S]"""
    return shares[:, :1] * seen + shares[:, 1:2] * mirrored + shares[:, 2:3] * continued


@dataclass(frozen=True)
class Toon:
    """What kind of cartoon a head is.

    Attributes:
        degree: 0 a photograph to 1 a cartoon.
        tone: How many times lighter, darker or redder the person is than their cartoon around each place of the input
            view. A factor, so that dark lines and pupils stay dark. [B, 3, S, S]
        outline: Whether a line is drawn around it. A line belongs to a view, not to a surface: G has none to draw.
    """

    degree: float
    tone: Tensor
    outline: bool = False

    @classmethod
    def of(
        cls, lifted: LiftedResidual, drawn: Layer, degree: float, *, outline: bool = False, most: float = 1.6
    ) -> Toon:
        """Of the cartoon at the input view; `most` bounds the factor, and it holds as far as the degree goes."""
        reach = drawn.color.shape[-1] // 5 | 1
        trust = lifted.confidence * solid(drawn.alpha) + 1e-4
        seen, painted = (
            box_mean(box_mean(values * trust, reach), reach)
            for values in (lifted.image, drawn.color / drawn.alpha.clamp_min(0.5))
        )
        tone = ((seen + 1e-6) / (painted + 1e-6)).clamp(1 / most, most)
        return cls(degree, torch.lerp(torch.ones_like(tone), tone, degree), outline)

    def outlined(self, drawn: Layer) -> Layer:
        """The head with a clear outline and a line inside it, as far as the degree goes."""
        if not self.outline:
            return drawn
        inside, line = contour(drawn.alpha)
        alpha = torch.lerp(drawn.alpha, inside, self.degree)
        ink = 1 - (1 - _INK) * self.degree * line
        return replace(drawn, color=drawn.color / drawn.alpha.clamp_min(1e-3) * alpha * ink, alpha=alpha)


class ResidualLift:
    """Depth-tested residual lift.

    Args:
        config: Tolerances.
        blender: Learned choice among what a place may show; None: what was seen there, else a smooth continuation.
    """

    def __init__(self, config: LiftConfig | None = None, blender: ResidualBlender | None = None) -> None:
        self.config, self.blender = config or LiftConfig(), blender

    def lift(self, image: Tensor, foreground: Tensor, coarse: Layer, camera: Camera) -> LiftedResidual:
        """Take the residual at the input view.

        Args:
            image: The picture, in [-1, 1]. [B, 3, S, S]
            foreground: Where it shows the person, 0..1. [B, 1, S, S]
            coarse: Global reconstruction at `camera`.
            camera: Camera of the picture.
        """
        image = (image + 1) / 2
        confidence = foreground * solid(coarse.alpha) * self._facing(coarse.depth, camera)
        # One pixel of erosion: at the very outline a pixel mixes head and background.
        confidence = eroded(confidence, 3)
        person = dilated(foreground, 9)
        background = push_pull(image, (1 - person) ** 2)
        return LiftedResidual(
            residual=image - coarse.color / coarse.alpha.clamp_min(0.5),
            confidence=confidence,
            depth=coarse.depth,
            matte=foreground,
            image=image,
            background=torch.lerp(image, background, person),
            behind=_behind(image, foreground, coarse.alpha),
            camera=camera,
        )

    def render(
        self,
        lifted: LiftedResidual,
        target: Layer,
        camera: Camera,
        change: Change | None = None,
        toon: Toon | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Put the residual on a head seen from `camera` and lay it over the person's own surroundings.

        Args:
            lifted: Residual of the input view.
            target: The (edited) head from `camera`.
            camera: Target view.
            change: What the edit does to the input view; where it replaces something, the residual steps back.
            toon: What kind of cartoon the head is. A cartoon has no local branch (§7.5): the residual fades and
                leaves its broad tone alone, the person's own outline gives way to the cartoon's, the background to flat
                areas.

        Returns:
            The picture, RGB in [-1, 1] [B, 3, S, S], and the opacity of the head itself [B, 1, S, S].
        """
        reading = self.read(lifted, target, camera, change)
        if self.blender is None or (camera is lifted.camera and change is None):
            # A place shows what was seen there; from the input's own camera nothing has to be learned.
            added = torch.lerp(reading.continued, reading.seen, reading.weight)
        else:
            added = self._blended(self.blender, reading, lifted.camera, camera)
        if change is not None:
            added = added * torch.lerp(torch.ones_like(reading.weight), reading.shade, reading.weight)
        hull = reading.hull
        if toon is not None:
            target = toon.outlined(target)
            hull = torch.lerp(hull, torch.ones_like(hull), toon.degree)
            added = (1 - toon.degree) * added
            # Past the crop's border the tone is that at the border.
            tone = sample_map(toon.tone, nearest_in_image(reading.uv, target.color.shape[-1]))
            target = replace(target, color=target.color * tone.view_as(target.color))
        alpha = target.alpha * hull
        head = target.color * hull + alpha * added
        picture = head + (1 - alpha) * self._surroundings(lifted, camera, target.depth.shape[-1], change, toon)
        return 2 * picture.clamp(0, 1) - 1, alpha

    def read(self, lifted: LiftedResidual, target: Layer, camera: Camera, change: Change | None) -> LiftReading:
        """What the input view says of each place that `camera` sees; arguments as of `render`."""
        size, config = target.depth.shape[-1], self.config
        points = unproject(target.depth, camera)
        residual = lifted.residual if change is None else lifted.residual + change.steady
        maps = [residual, lifted.confidence, lifted.depth, lifted.matte]
        if change is not None:
            gone = replaced_share(change.replaced, config.edit_threshold)
            maps += [gone, change.shade, change.replaced]
        seen = torch.cat(maps, dim=1)

        def at(places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """Maps [B, K, S, S] at world points, trust in them [B, 1, S, S] and where they are in the picture."""
            uv, distance = project(places, lifted.camera)
            read = sample_map(seen, uv).view(len(uv), -1, size, size)
            behind = (distance.view(-1, 1, size, size) - read[:, 4:5]).abs() - config.depth_tolerance
            visible = torch.exp(-behind.clamp_min(0) / config.depth_softness)
            weight = read[:, 3:4] * visible * (target.alpha > 0.05)
            if change is not None:
                weight = weight * (1 - read[:, 6:7])
            weight = F.avg_pool2d(eroded(weight, 3), 7, 1, 3, count_include_pad=False)
            return read, weight, uv

        read, weight, uv = at(points)
        mirror, mirror_weight, _ = at(points * points.new_tensor([-1.0, 1.0, 1.0]))
        # Nothing can stand where the input camera saw background (visual hull).
        inside = ((uv > 0) & (uv < 1)).all(dim=-1).view(-1, 1, size, size)
        nothing, whole = torch.zeros_like(weight), torch.ones_like(weight)
        return LiftReading(
            target=target,
            uv=uv,
            seen=read[:, :3],
            weight=weight,
            mirrored=mirror[:, :3],
            mirror_weight=mirror_weight,
            continued=config.fill * push_pull(read[:, :3], weight),
            hull=torch.where(inside, read[:, 5:6], 1.0),
            replaced=nothing if change is None else read[:, 8:9],
            shade=whole if change is None else read[:, 7:8],
        )

    def _blended(self, blender: ResidualBlender, reading: LiftReading, source: Camera, camera: Camera) -> Tensor:
        """The residual that each place of the target view shows, by the learned blend. [B, 3, S, S]"""
        # Near the input's own camera what was seen is right, unless an edit puts something else there.
        aside = torch.arccos((source.cam2world[:, :3, 2] * camera.cam2world[:, :3, 2]).sum(-1).clamp(-1, 1))
        trust = torch.maximum(
            (aside / self.config.aside).clamp(0, 1).view(-1, 1, 1, 1),
            (reading.replaced / self.config.edit_threshold).clamp(0, 1),
        )
        shares = blender(reading.features(), reading.weight, reading.mirror_weight, trust)
        return blended(shares, reading.seen, reading.mirrored, reading.continued)

    def _facing(self, depth: Tensor, camera: Camera) -> Tensor:
        """Trust by the angle between surface and ray: 0 where the surface is seen edge-on. [B, 1, S, S]"""
        size = depth.shape[-1]
        points = unproject(depth, camera).view(-1, size, size, 3)
        across = F.pad(points[:, :, 2:] - points[:, :, :-2], (0, 0, 1, 1), mode="replicate")
        along = F.pad((points[:, 2:] - points[:, :-2]).permute(0, 3, 1, 2), (0, 0, 1, 1), mode="replicate").permute(
            0, 2, 3, 1
        )
        normal = F.normalize(torch.linalg.cross(across, along), dim=-1)
        rays = pixel_directions(camera, size).view(-1, size, size, 3)
        cosine = (normal * rays).sum(dim=-1).abs()[:, None]
        return (cosine / self.config.grazing).clamp(0, 1)

    def _surroundings(
        self, lifted: LiftedResidual, camera: Camera, size: int, change: Change | None, toon: Toon | None
    ) -> Tensor:
        """The person's remaining foreground on a board through the pivot, over the still background."""
        pivot = torch.tensor(EG3D_PIVOT, device=lifted.image.device)
        normal = lifted.camera.cam2world[:, :3, 2]
        origin, rays = camera.position, pixel_directions(camera, size)
        slope = (rays * normal[:, None]).sum(-1)
        reach = ((pivot - origin) * normal).sum(-1, keepdim=True) / slope.clamp_min(1e-3)
        uv, _ = project(origin[:, None] + rays * reach[..., None], lifted.camera)
        # Seen from elsewhere, the head's place on the board must not show the head a second time.
        turned = torch.arccos((normal * camera.cam2world[:, :3, 2]).sum(-1).clamp(-1, 1)) / self.config.turned
        picture = torch.cat([lifted.image, lifted.matte], dim=1)
        shown = torch.lerp(picture, lifted.behind, turned.clamp(0, 1).view(-1, 1, 1, 1))
        if change is not None:
            shown = torch.cat([shown[:, :3] + change.tone, shown[:, 3:]], dim=1)
        if toon is not None:
            shown = _drawn_board(shown, toon.degree)
        # Past the crop's border the foreground goes on for a little: shoulders and hair must not end in a straight cut.
        nearest = nearest_in_image(uv, shown.shape[-1])
        beyond = (uv - nearest).abs().amax(dim=-1).view(-1, 1, size, size)
        board = sample_map(shown, nearest).view(-1, 4, size, size)
        matte = board[:, 3:] * (1 - beyond / self.config.margin).clamp(0, 1)
        background = lifted.background
        if toon is not None:
            background = torch.lerp(background, flat_areas(background), toon.degree)
        return matte * board[:, :3] + (1 - matte) * background


def _behind(image: Tensor, matte: Tensor, head: Tensor) -> Tensor:
    """Hair, clothing and gaps around the head, continued into its place: colour and opacity. [B, 4, S, S]"""
    reach = image.shape[-1] // 32 * 2 + 1
    beside = 1 - dilated(head, reach)
    return torch.cat([push_pull(image, matte * beside), push_pull(matte, beside)], dim=1)


def _drawn_board(shown: Tensor, degree: float) -> Tensor:
    """The board of a cartoon, which has its own hair: what stands below the chin stays, in flat areas. [B, 4, S, S]"""
    size = shown.shape[-1]
    height = (torch.arange(size, device=shown.device) + 0.5) / size
    below = ((height - _CHIN) / 0.15).clamp(0, 1)[:, None]
    color = torch.lerp(shown[:, :3], flat_areas(shown[:, :3]), degree)
    return torch.cat([color, shown[:, 3:] * torch.lerp(torch.ones_like(below), below, degree)], dim=1)
