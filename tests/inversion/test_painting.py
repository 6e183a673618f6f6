"""Operations on pictures that are done another way than torch does them: the same numbers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from e3dge_video.inversion.painting import dilated, eroded, shifted_share


@pytest.mark.parametrize("side", [1, 3, 5, 9, 25])
@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (1, 3, 17, 20), (1, 1, 4, 6)])
def test_dilation_is_torchs_largest_in_a_window(side: int, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(side)).round(decimals=1)  # with ties
    before = values.clone()
    assert torch.equal(dilated(values, side), F.max_pool2d(values, side, 1, side // 2))
    assert torch.equal(eroded(values, side), -F.max_pool2d(-values, side, 1, side // 2))
    assert torch.equal(values, before)
    last = values.to(memory_format=torch.channels_last)
    assert torch.equal(dilated(last, side), dilated(values, side))


def test_a_gradient_goes_where_torch_sends_it() -> None:
    values = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round(decimals=0)
    ours, torchs = (values.clone().requires_grad_(True) for _ in range(2))
    dilated(ours, 3).square().sum().backward()
    F.max_pool2d(torchs, 3, 1, 1).square().sum().backward()
    assert torch.equal(ours.grad, torchs.grad)


@pytest.mark.parametrize("size", [128, 256, 384])
def test_either_end_of_a_shift_is_looked_for_beside_the_other(size: int) -> None:
    """By hand: the least mean difference to any neighbour within the reach, of both pictures."""
    generator = torch.Generator().manual_seed(size)
    before, after = (torch.rand(1, 3, 40, 40, generator=generator) for _ in range(2))
    before, after = (F.pad(x, (0, size - 40, 0, size - 40), value=0.5) for x in (before, after))
    reach = size // 128
    steps = sorted({round(reach * k / 2) - reach for k in range(5)})

    def least(source: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        place = torch.arange(size)
        found = []
        for y in steps:
            for x in steps:
                moved = source[..., (place + y).clamp(0, size - 1), :][..., (place + x).clamp(0, size - 1)]
                found.append((other - moved).abs().mean(dim=1, keepdim=True))
        return torch.stack(found).amin(dim=0)

    change = (after - before).abs().mean(dim=1, keepdim=True)
    far = torch.maximum(least(before, after), least(after, before))
    clear = F.max_pool2d(((change - 0.06) / 0.08).clamp(0, 1), 5, 1, 2)
    wanted = F.avg_pool2d(clear * (1 - far / change.clamp_min(0.02)).clamp_min(0), 3, 1, 1)
    assert float(wanted.max()) > 0.3
    assert torch.equal(shifted_share(before, after), wanted)
