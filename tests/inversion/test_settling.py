import itertools

import torch

from e3dge_video.inversion.settling import (
    ANCHOR_FRAMES,
    anchor_frames,
    compose,
    expression_coefficients,
    scene_anchor,
)


def test_identity_is_shared_and_expression_is_not():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(16, 3, generator=generator)).Q.T
    person = torch.randn(4, 16, generator=generator)
    motion = torch.randn(41, 3, generator=generator)
    motion = motion - motion.median(dim=0).values
    wandering = 0.1 * torch.randn(41, 4, 16, generator=generator)
    latents = person + (motion @ basis)[:, None] + wandering
    anchor = scene_anchor(latents)
    settled = compose(anchor, expression_coefficients(latents, anchor, basis), basis)
    outside = settled - (settled @ basis.T) @ basis
    assert outside.std(dim=0).max() < 1e-6
    before = (latents - person - (motion @ basis)[:, None]).norm(dim=-1).mean()
    after = (settled - person - (motion @ basis)[:, None]).norm(dim=-1).mean()
    assert after < 0.7 * before
    found = expression_coefficients(latents, anchor, basis)
    assert torch.corrcoef(torch.stack([found[:, 0], motion[:, 0]]))[0, 1] > 0.99


def test_anchor_frames_are_spread_evenly_and_bounded():
    assert anchor_frames(3) == [0, 1, 2]
    many = anchor_frames(10_000)
    assert len(many) == ANCHOR_FRAMES and many[0] < 40 and many[-1] >= 9_960
    steps = [b - a for a, b in itertools.pairwise(many)]
    assert max(steps) - min(steps) <= 1
