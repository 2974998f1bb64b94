"""Lanes: calls side by side, their threads, their order and their errors."""

import gc
import threading
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core.lanes import Lanes, shares


def test_calls_run_side_by_side_and_return_in_their_order() -> None:
    together = threading.Barrier(3, timeout=30)

    def call(n: int) -> int:
        together.wait()  # passed by nobody unless all three are under way
        return n

    assert Lanes(3).run([partial(call, n) for n in range(3)]) == [0, 1, 2]


def test_a_lane_that_is_done_takes_what_another_has_no_time_for() -> None:
    others = threading.Barrier(2, timeout=30)

    def long() -> str:
        others.wait()  # until the last of the others is under way
        return "long"

    calls = [long, *[lambda: "short"] * 8, lambda: str(others.wait() >= 0)]
    assert Lanes(2).run(calls) == ["long", *["short"] * 8, "True"]


def test_each_has_its_share_of_the_threads_and_the_caller_keeps_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        shares = Lanes(2).run([torch.get_num_threads] * 2)
        alone = Lanes(2).run([torch.get_num_threads])
        assert (shares, alone, torch.get_num_threads()) == ([2, 2], [4], 4)
    finally:
        torch.set_num_threads(before)


def test_what_a_call_raises_comes_out_when_all_have_ended_and_the_threads_are_as_before() -> None:
    before, failed, ended = torch.get_num_threads(), threading.Event(), threading.Event()

    def fail() -> None:
        failed.set()
        raise ZeroDivisionError

    def last() -> None:
        failed.wait(30)
        gc.collect()  # goes on for a while after the other has failed
        ended.set()

    with pytest.raises(ZeroDivisionError):
        Lanes(2).run([fail, last])
    assert ended.is_set()
    assert torch.get_num_threads() == before


@given(st.integers(1, 64), st.integers(1, 8))
def test_no_thread_is_left_over_and_no_lane_is_without_one(threads: int, lanes: int) -> None:
    each = shares(threads, lanes)
    assert len(each) == lanes
    assert sum(each) == max(threads, lanes)
    assert max(each) - min(each) <= 1


def test_one_lane_where_the_processor_does_not_score() -> None:
    assert Lanes.on(torch.device("cuda")).count == 1
    assert Lanes.on(torch.device("cpu")).count == min(torch.get_num_threads(), 4)
