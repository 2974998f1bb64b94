"""Lanes: calls side by side, their threads, their order and their errors."""

import gc
import threading
from collections.abc import Callable
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


def test_lanes_with_nothing_left_go_on_with_what_is_started_next() -> None:
    lanes, later = Lanes(2), threading.Event()
    calls: list[Callable[[], bool]] = [partial(later.wait, 30), lambda: True]
    first = lanes.start(calls)
    second = lanes.start([later.set, lambda: None])  # by the one lane that is free
    assert first() == [True, True]
    assert second() == [None, None]


def test_who_is_alone_waits_for_what_is_under_way_and_not_for_what_is_behind() -> None:
    lanes, ended, going, gone = Lanes(2), list[str](), threading.Barrier(3, timeout=30), []

    def slow() -> None:
        going.wait()
        gc.collect()
        ended.append("under way")

    ends = [lanes.start([slow, slow])]
    going.wait()
    behind = threading.Thread(
        target=lambda: ends.append(lanes.start([partial(ended.append, "behind")] * 4))
    )
    with lanes.alone():
        assert ended == ["under way"] * 2
        behind.start()
        gc.collect()
        gone.append(len(ended))
    behind.join(30)
    for end in ends:
        end()
    assert gone == [2]
    assert ended[2:] == ["behind"] * 4


def test_calls_that_were_held_up_go_before_another_is_alone() -> None:
    lanes, order = Lanes(1), list[str]()
    with lanes.alone():
        calls = threading.Thread(target=lambda: lanes.run([lambda: order.append("call")]))
        calls.start()
        while not lanes.held_up:
            gc.collect(0)
    with lanes.alone():
        order.append("alone")
    calls.join(30)
    assert order == ["call", "alone"]


def test_nobody_is_alone_beside_another_or_a_call() -> None:
    lanes, wrong, lock = Lanes(3), list[str](), threading.Lock()
    inside = {"alone": 0, "call": 0}

    def enter(kind: str) -> None:
        with lock:
            inside[kind] += 1
            if inside["alone"] and sum(inside.values()) > 1:
                wrong.append(kind)
        gc.collect(0)
        with lock:
            inside[kind] -= 1

    def be_alone() -> None:
        for _ in range(50):
            with lanes.alone():
                enter("alone")

    others = [threading.Thread(target=be_alone) for _ in range(2)]
    for other in others:
        other.start()
    for count in (1, 2, 3, 5) * 10:
        lanes.run([partial(enter, "call")] * count)
    for other in others:
        other.join(60)
    assert wrong == []


def test_a_single_call_has_all_threads_and_nothing_beside_it() -> None:
    lanes, ended = Lanes(2), list[int]()
    calls: list[Callable[[], object]] = [gc.collect, partial(ended.append, 0)]
    lanes.start(calls)
    assert lanes.run([lambda: list(ended)]) == [[0]]


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
