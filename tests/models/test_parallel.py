"""Blocks of work on threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from e3dge_video.models.parallel import map_blocks


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_stand_in_order(threads: int) -> None:
    assert map_blocks(lambda item: item * item, range(50)) == [item * item for item in range(50)]
    assert map_blocks(abs, []) == []


def test_each_block_computes_with_one_thread_and_the_caller_keeps_its_own(threads: int) -> None:
    counts = map_blocks(lambda _: torch.get_num_threads(), range(20))
    assert set(counts) == {1}
    assert torch.get_num_threads() == threads
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]


def test_blocks_know_no_gradients_and_stay_usable_for_them(threads: int) -> None:
    weight = torch.ones(3, requires_grad=True)
    made = map_blocks(lambda item: weight * item, range(4))
    assert not any(value.requires_grad or value.is_inference() for value in made)
    with torch.inference_mode():
        out = torch.zeros(4)
        map_blocks(lambda item: out[item].add_(item), range(4))  # writes to a tensor of the caller's mode
    assert out.tolist() == [0, 1, 2, 3]


def test_a_failure_is_the_callers(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        map_blocks(lambda item: 1 / item, range(3))
    assert torch.get_num_threads() == threads
