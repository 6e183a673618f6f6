"""Blocks of work on threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from e3dge_video.models.parallel import map_blocks


def on_cpu(work: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    with torch.no_grad():
        return map_blocks(work, items, torch.device("cpu"))


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_results_stand_in_order() -> None:
    assert on_cpu(lambda item: item * item, range(50)) == [item * item for item in range(50)]
    assert on_cpu(abs, []) == []


@pytest.mark.usefixtures("three_threads")
def test_each_block_computes_with_one_thread_and_the_caller_keeps_its_own() -> None:
    assert set(on_cpu(lambda _: torch.get_num_threads(), range(20))) == {1}
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *later] == [3, 3]


@pytest.mark.usefixtures("three_threads")
def test_blocks_are_in_the_callers_mode() -> None:
    weight = torch.ones(3, requires_grad=True)
    made = on_cpu(lambda item: weight * item, range(4))
    assert not any(value.requires_grad or value.is_inference() for value in made)
    with torch.inference_mode():
        out = torch.zeros(4)
        map_blocks(lambda item: out[item].add_(item), range(4), out.device)
    assert out.tolist() == [0, 1, 2, 3]


@pytest.mark.usefixtures("three_threads")
def test_gradients_and_other_devices_stay_with_the_caller() -> None:
    weight = torch.ones(3, requires_grad=True)
    made = map_blocks(lambda item: (weight * item, threading.get_ident()), range(4), torch.device("cpu"))
    assert all(value.requires_grad and ident == threading.get_ident() for value, ident in made)
    with torch.no_grad():
        idents = map_blocks(lambda _: threading.get_ident(), range(4), torch.device("meta"))
    assert set(idents) == {threading.get_ident()}


@pytest.mark.usefixtures("three_threads")
def test_a_failure_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        on_cpu(lambda item: 1 / item, range(3))
    assert torch.get_num_threads() == 3
