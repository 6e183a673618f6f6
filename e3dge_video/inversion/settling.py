"""One identity per scene: codes of single frames settled over time.

A code predicted frame by frame lets age, hair and face shape wander. Expression moves codes within a small subspace,
found from heads that differ in nothing else; there every frame keeps its own value, and everywhere else the scene's
median holds:  w_t = anchor + E Eᵀ mean_rows(w_t − anchor).
"""

from __future__ import annotations

from torch import Tensor

#: Frames of a scene that its anchor is the median of, evenly spread: more would not change it.
ANCHOR_FRAMES = 256


def anchor_frames(count: int) -> list[int]:
    """Which of a scene's frames make its anchor."""
    take = min(count, ANCHOR_FRAMES)
    return [(2 * k + 1) * count // (2 * take) for k in range(take)]


def scene_anchor(latents: Tensor) -> Tensor:
    """The code that the frames of a scene share. [T, L, W] → [L, W]"""
    return latents.median(dim=0).values


def expression_coefficients(latents: Tensor, anchor: Tensor, basis: Tensor) -> Tensor:
    """Where each frame stands within the expression subspace.

    Args:
        latents: Codes of frames. [T, L, W]
        anchor: The scene's code. [L, W]
        basis: Orthonormal basis of what expression changes in a row of a code. [K, W]

    Returns:
        [T, K]
    """
    return (latents - anchor).mean(dim=1) @ basis.T


def compose(anchor: Tensor, coefficients: Tensor, basis: Tensor) -> Tensor:
    """Codes from a scene's anchor and each frame's expression. [L, W] or [T, L, W], [T, K], [K, W] → [T, L, W]"""
    return anchor + (coefficients @ basis)[:, None]
