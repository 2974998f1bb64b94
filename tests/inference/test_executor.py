"""Lanes: calls side by side, their threads, their order and their errors."""

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from xl3m_core.inference.executor import Job, ModelExecutor, split_threads

T = TypeVar("T")


def begun(executor: ModelExecutor, calls: Sequence[Callable[[], T]], size: int = 1) -> Job[T]:
    """A job of no more calls than there are workers, when all of them have begun."""
    going = threading.Barrier(len(calls) + 1, timeout=30)

    def begin(call: Callable[[], T]) -> T:
        going.wait()
        return call()

    job = executor.submit([partial(begin, call) for call in calls], size)
    going.wait()
    return job


def test_calls_run_side_by_side_and_return_in_their_order() -> None:
    together = threading.Barrier(3, timeout=30)

    def call(n: int) -> int:
        together.wait()  # passed by nobody unless all three are under way
        return n

    assert ModelExecutor(3).run([partial(call, n) for n in range(3)]) == [0, 1, 2]


def test_a_lane_that_is_done_takes_what_another_has_no_time_for() -> None:
    others = threading.Barrier(2, timeout=30)

    def long() -> str:
        others.wait()  # until the last of the others is under way
        return "long"

    calls = [long, *[lambda: "short"] * 8, lambda: str(others.wait() >= 0)]
    assert ModelExecutor(2).run(calls) == ["long", *["short"] * 8, "True"]


def test_lanes_with_nothing_left_go_on_with_what_is_started_next() -> None:
    lanes, later = ModelExecutor(2), threading.Event()
    calls: list[Callable[[], bool]] = [partial(later.wait, 30), lambda: True]
    first = lanes.submit(calls)
    second = lanes.submit([later.set, lambda: None])  # by the one lane that is free
    assert first.results() == [True, True]
    assert second.results() == [None, None]


@pytest.mark.guarantee("Scheduling")
@pytest.mark.parametrize("behind", [1, 4])
def test_who_goes_ahead_waits_for_what_is_under_way_and_not_for_what_is_behind(behind: int) -> None:
    lanes, ended, going = ModelExecutor(2), list[str](), threading.Barrier(3, timeout=30)

    def slow() -> None:
        going.wait()
        gc.collect()
        ended.append("under way")

    run = lanes.submit([slow, slow])
    going.wait()
    later = threading.Thread(target=lambda: lanes.run([partial(ended.append, "behind")] * behind))
    with lanes.priority():
        assert ended == ["under way"] * 2
        assert run.results() == [None, None], "what has ended waits for nobody"
        later.start()
        gc.collect()
        assert ended == ["under way"] * 2
    later.join(30)
    assert ended[2:] == ["behind"] * behind


@pytest.mark.parametrize("calls", [1, 2])
def test_what_a_block_held_up_goes_before_the_next_one(calls: int) -> None:
    lanes, order = ModelExecutor(1), list[str]()
    with lanes.priority():
        other = threading.Thread(target=lambda: lanes.run([partial(order.append, "call")] * calls))
        other.start()
        while not (lanes.gate.blocked or len(lanes.gate.sections) > 1):
            gc.collect(0)
    for _ in range(2):
        with lanes.priority():
            order.append("alone")
    other.join(30)
    assert order[0] == "call"


@pytest.mark.parametrize("count", [1, 3])
def test_nobody_is_ahead_beside_another_or_a_call_as_large_and_no_lane_has_two(count: int) -> None:
    lanes, wrong, lock = ModelExecutor(count), list[str](), threading.Lock()
    inside = {"alone": 0, "call": 0}

    def enter(kind: str) -> None:
        with lock:
            inside[kind] += 1
            if inside["call"] > count or (inside["alone"] and sum(inside.values()) > 1):
                wrong.append(kind)
        gc.collect(0)
        with lock:
            inside[kind] -= 1

    def be_alone() -> None:
        for _ in range(30):
            with lanes.priority():
                enter("alone")

    def call() -> None:
        for calls in (0, 1, 2, 3, 5) * 6:
            lanes.run([partial(enter, "call")] * calls)

    threads = [threading.Thread(target=work) for work in (be_alone, be_alone, call, call)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_single_call_waits_for_what_is_under_way() -> None:
    lanes, ended = ModelExecutor(2), list[int]()

    def slow() -> None:
        gc.collect()
        ended.append(0)

    begun(lanes, [slow, slow])
    assert lanes.run([lambda: list(ended)]) == [[0, 0]]


@pytest.mark.guarantee("Scheduling")
def test_what_is_small_begins_beside_what_is_under_way_and_ahead_of_what_is_behind() -> None:
    lanes, done, order = ModelExecutor(2), threading.Event(), list[str]()
    large = begun(lanes, [partial(done.wait, 30)] * 2, size=10)
    behind = threading.Thread(target=lambda: lanes.run([partial(order.append, "behind")] * 2))
    behind.start()
    assert lanes.run([lambda: not done.is_set()], size=5) == [True]
    with lanes.priority(5):
        done.set()
        assert large.results() == [True, True]
        order.append("ahead")
    behind.join(30)
    assert order == ["ahead", "behind", "behind"]


def test_one_lane_has_nothing_beside_it_however_small() -> None:
    lanes, ended = ModelExecutor(1), list[int]()
    begun(lanes, [lambda: ended.append(gc.collect())], size=10)
    assert lanes.run([lambda: [*lanes.gate.running]], size=1) == [[]]
    assert len(ended) == 1


@pytest.fixture
def four_threads() -> Iterator[None]:
    """What torch has here, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_who_asks_first_while_another_has_a_share_has_all_the_threads_afterwards(
    four_threads: None,
) -> None:
    lanes, done, found = ModelExecutor(2), threading.Event(), list[int]()
    large = begun(lanes, [partial(done.wait, 30)] * 2, size=10)

    def other() -> None:
        with lanes.priority():
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    late = threading.Thread(target=other)
    with lanes.priority(1):
        assert torch.get_num_threads() == 2
        late.start()
        while len(lanes.gate.sections) < 2:
            gc.collect(0)
    done.set()
    late.join(30)
    large.results()
    assert found == [4, 4]


def test_beside_what_is_under_way_one_has_a_share_of_the_threads_and_then_all(
    four_threads: None,
) -> None:
    lanes, done = ModelExecutor(2), threading.Event()
    large = begun(lanes, [partial(done.wait, 30)] * 2, size=10)
    with lanes.priority(1) as settle:
        found = [torch.get_num_threads()]
        done.set()
        large.results()
        settle()
        found.append(torch.get_num_threads())
    assert found == [2, 4]
    done.clear()
    begun(lanes, [partial(done.wait, 30)] * 2, size=10)
    with lanes.priority(1):
        done.set()
    assert torch.get_num_threads() == 4


def test_each_has_its_share_of_the_threads_and_the_caller_keeps_its_own(four_threads: None) -> None:
    shares = ModelExecutor(2).run([torch.get_num_threads] * 2)
    alone = ModelExecutor(2).run([torch.get_num_threads])
    assert (shares, alone, torch.get_num_threads()) == ([2, 2], [4], 4)


def test_what_a_call_raises_comes_out_when_all_have_ended_and_the_threads_are_as_before() -> None:
    before, going, failed = torch.get_num_threads(), threading.Event(), threading.Event()
    ended = threading.Event()

    def fail() -> None:
        going.wait(30)
        failed.set()
        raise ZeroDivisionError

    def last() -> None:
        going.set()
        failed.wait(30)
        gc.collect()  # goes on for a while after the other has failed
        ended.set()

    with pytest.raises(ZeroDivisionError):
        ModelExecutor(2).run([fail, last])
    assert ended.is_set()
    assert torch.get_num_threads() == before


def test_when_a_call_has_failed_no_other_begins_and_lanes_go_on_with_the_next_run() -> None:
    lanes, begun = ModelExecutor(1), list[int]()
    calls: list[Callable[[], object]] = [lambda: 1 // 0, lambda: begun.append(1)]
    with pytest.raises(ZeroDivisionError):
        lanes.run(calls)
    assert begun == []
    assert lanes.run([partial(str, n) for n in range(3)]) == ["0", "1", "2"]


def test_who_is_ahead_can_not_ask_for_it_again_and_others_can() -> None:
    lanes = ModelExecutor(2)
    for calls in (1, 3):
        with lanes.priority(), pytest.raises(RuntimeError, match="inside an answer"):
            lanes.run([lambda: None] * calls)
    assert lanes.run([lambda: 1]) == [1]


def test_whoever_never_said_keeps_the_threads_that_torch_had() -> None:
    before, found = torch.get_num_threads(), list[int]()
    lanes = ModelExecutor(2)
    lanes.run([lambda: None] * 5)
    one = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    one.start()
    one.join(30)
    assert (found, torch.get_num_threads()) == ([before], before)


@given(st.integers(1, 64), st.integers(1, 8))
def test_no_thread_is_left_over_and_no_lane_is_without_one(threads: int, lanes: int) -> None:
    each = split_threads(threads, lanes)
    assert len(each) == lanes
    assert sum(each) == max(threads, lanes)
    assert max(each) - min(each) <= 1


def test_one_lane_where_the_processor_does_not_score() -> None:
    assert ModelExecutor.on(torch.device("cuda")).workers == 1
    assert ModelExecutor.on(torch.device("cpu")).workers == min(torch.get_num_threads(), 4)
