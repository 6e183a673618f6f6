"""Local detail: the residual of a picture → modulation of the generator's features, for any target view (§4.2, §4.3).

```
 Δ, depth ─────────────► E1 ─► F_L ──── read where a point appears in the picture ──┐
    └► E_ADA(Δ, target) ─► E1 ─► F_ADA ─ read where it appears in the target view ───┴► fusion ─► FiLM(f_G)
```
Letters: B batch, C channels, S side of the encoders' pictures, R of a rendering, M points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from e3dge_video.geometry.cameras import Camera
from e3dge_video.geometry.projection import in_image, project, sample_map
from e3dge_video.inversion.painting import EDIT_THRESHOLD, replaced_share, standing_out, widened
from e3dge_video.models.encoders.hybrid import LocalBranch
from e3dge_video.models.generators.base import FeatureModulation

#: Difference of distances up to which a point counts as the one that the picture shows, world units.
DEPTH_TOLERANCE = 0.05


@dataclass(frozen=True)
class View:
    """A global reconstruction as the encoders of the local branch see it.

    Attributes:
        picture: RGB in [-1, 1]. [B, 3, S, S]
        depth: As E1 takes it: StyleSDF along the optical axis, EG3D normalised, see `normalised_depth`. [B, 1, S, S]
        surface: World points of the expected surface, row by row. [B, R·R, 3]
        camera: Where it is seen from.
    """

    picture: Tensor
    depth: Tensor
    surface: Tensor
    camera: Camera


@dataclass(frozen=True)
class SourceDetail:
    """What a picture has that its global reconstruction lacks.

    Attributes:
        residual: Δ as it fits the source's view: of edited codes realigned to them. [B, 3, S, S]
        features: F_L = E1(Δ); None where the branch does not read it. [B, C, S/4, S/4]
        view: The global reconstruction that Δ belongs to.
    """

    residual: Tensor
    features: Tensor | None
    view: View


@dataclass(frozen=True)
class LocalDetail:
    """What the pictures' residual does to the generator's features at any point, for one target view.

    Attributes:
        branch: The networks.
        source: Cameras of the pictures.
        target: Cameras of the view.
        local_features: F_L, read where a point appears in the picture. [B, C, S/4, S/4]
        aligned_features: F_ADA, read where it appears in the target view. [B, C, S/4, S/4]
        visible: 1 where the target view's surface is seen in the picture, else 0. [B, 1, R, R]
        aligned_residual: What E_ADA made of Δ for the view. [B, 3, S, S]
    """

    branch: LocalBranch
    source: Camera
    target: Camera
    local_features: Tensor | None
    aligned_features: Tensor | None = None
    visible: Tensor | None = None
    aligned_residual: Tensor | None = None

    def features(self, points: Tensor) -> Tensor:
        """Local features of world points [B, M, 3]: 3D- and 2D-aligned ones, fused (Eqs. 7 and 10). [B, M, C]"""
        if self.aligned_features is None:
            assert self.local_features is not None
            return sample_map(self.local_features, project(points, self.source)[0]).transpose(1, 2)
        target = project(points, self.target)[0]
        aligned = sample_map(self.aligned_features, target).transpose(1, 2)
        if self.branch.fusion is None or self.local_features is None or self.visible is None:
            return aligned
        local = sample_map(self.local_features, project(points, self.source)[0]).transpose(1, 2)
        visible = sample_map(self.visible, target, mode="nearest").transpose(1, 2)
        return self.branch.fusion(local, aligned, visible)

    def __call__(self, points: Tensor) -> FeatureModulation:
        """World points [B, M, 3] → modulation of the features there (Eq. 9)."""
        return self.branch.film_head(self.features(points), points)


def encode_source(branch: LocalBranch, residual: Tensor, view: View) -> SourceDetail:
    """F_L of a residual [B, 3, S, S] and the view that it belongs to, if the branch reads it (Eq. 7)."""
    reads = branch.config.mode != "aligned"
    return SourceDetail(residual, branch.encoder(residual, view.depth) if reads else None, view)


def edited_source(
    branch: LocalBranch, residual: Tensor, before: View, after: View, changed: Tensor | None = None
) -> SourceDetail:
    """The same of edited codes: E_ADA moves the residual along with the edit (§4.3).

    With `realign: changed` it does so where the edit puts something else; elsewhere the residual, sharper, stays.

    Args:
        residual: Δ of the picture itself. [B, 3, S, S]
        before: The global reconstruction that it belongs to.
        after: That of the edited codes.
        changed: Which codes of the batch the edit moved; the others keep their residual as it is. None: all. [B]
    """
    if branch.config.mode == "hybrid":
        share = torch.ones_like(residual[:, :1])
        if branch.config.realign == "changed":
            share = changed_share(before, after)
        if changed is not None:
            share = share * changed.view(-1, 1, 1, 1)
        residual = torch.lerp(residual, realigned(branch, residual, after).to(residual), share)
    return encode_source(branch, residual, after)


def changed_share(before: View, after: View) -> Tensor:
    """How far an edit puts something else in a place of a view, 0..1. [B, 1, S, S]"""
    return replaced_share(widened(standing_out(after.picture - before.picture)), EDIT_THRESHOLD)


def moved_codes(before: Tensor, after: Tensor) -> Tensor:
    """Which codes of a batch an edit moved. [B, L, W] twice → [B]"""
    return (before != after).flatten(1).any(dim=1)


def realigned(branch: LocalBranch, residual: Tensor, view: View) -> Tensor:
    """E_ADA: the residual as it would be of another global reconstruction (Eq. 11). [B, 3, S, S]"""
    assert branch.aligner is not None
    return branch.aligner(residual, view.picture)


def detail_toward(branch: LocalBranch, residual: Tensor, source: SourceDetail, target: View) -> LocalDetail:
    """Local detail for a target view.

    Args:
        residual: Δ of the picture itself, before any edit. [B, 3, S, S]
        source: Its (edited) detail at its own view.
        target: The (edited) global reconstruction from the target view.
    """
    if branch.aligner is None:
        read = target if branch.config.mode == "unaligned" else source.view
        return LocalDetail(branch, read.camera, target.camera, source.features)
    aligned = realigned(branch, residual, target)
    features = branch.encoder(aligned, target.depth)
    visible = None
    if source.features is not None:
        by_depth = branch.config.visibility == "depth"
        visible = seen_from(source.view, target, by_depth=by_depth).to(features.dtype)
    return LocalDetail(branch, source.view.camera, target.camera, source.features, features, visible, aligned)


def seen_from(source: View, target: View, *, by_depth: bool) -> Tensor:
    """Where the target view's surface is seen in the source: projects inside it, and nothing hides it there if asked.

    [B, 1, R, R], booleans
    """
    uv, distance = project(target.surface, source.camera)
    seen, side = in_image(uv), round(target.surface.shape[1] ** 0.5)
    if by_depth:
        extent = round(source.surface.shape[1] ** 0.5)
        reached = (source.surface - source.camera.position[:, None]).norm(dim=-1).unflatten(1, (1, extent, extent))
        seen = seen & (distance - sample_map(reached, uv, mode="nearest")[:, 0] < DEPTH_TOLERANCE)
    return seen.unflatten(1, (side, side))[:, None]


def normalised_depth(depth: Tensor, near: float = 2.25, far: float = 3.3) -> Tensor:
    """Distances along the ray as EG3D's E1 takes them: 0 at the near plane of EG3D's renderer, 1 at the far one."""
    return ((depth - near) / (far - near)).clamp(0, 1)
