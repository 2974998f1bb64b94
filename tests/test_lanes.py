"""Lanes: calls side by side, their threads, their order and their errors."""

import threading
from functools import partial

import pytest
import torch

from xl3m_core.lanes import Lanes


def test_calls_run_side_by_side_and_return_in_their_order() -> None:
    together = threading.Barrier(3, timeout=30)

    def call(n: int) -> int:
        together.wait()  # passed by nobody unless all three are under way
        return n

    assert Lanes(3).run([partial(call, n) for n in range(3)]) == [0, 1, 2]


def test_each_has_its_share_of_the_threads_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        shares = Lanes(2).run([torch.get_num_threads] * 2)
        alone = Lanes(2).run([torch.get_num_threads])
        assert (shares, alone, torch.get_num_threads()) == ([2, 2], [4], 4)
    finally:
        torch.set_num_threads(before)


def test_what_a_call_raises_comes_out_and_the_threads_are_as_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        Lanes(2).run([lambda: 1 // 0, lambda: 1])
    assert torch.get_num_threads() == before


def test_one_lane_where_the_processor_does_not_score() -> None:
    assert Lanes.on(torch.device("cuda")).count == 1
    assert Lanes.on(torch.device("cpu")).count == min(torch.get_num_threads(), 4)
