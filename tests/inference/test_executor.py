"""The executor: concurrent calls, their threads, their order, their priority and their errors."""

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
    """A job whose calls, at most one per worker, are all running."""
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
        together.wait()  # returns only if all three are running
        return n

    assert ModelExecutor(3).run([partial(call, n) for n in range(3)]) == [0, 1, 2]


def test_an_idle_worker_takes_the_calls_that_wait_for_a_busy_one() -> None:
    others = threading.Barrier(2, timeout=30)

    def long() -> str:
        others.wait()  # until the last of the others is running
        return "long"

    calls = [long, *[lambda: "short"] * 8, lambda: str(others.wait() >= 0)]
    assert ModelExecutor(2).run(calls) == ["long", *["short"] * 8, "True"]


def test_idle_workers_go_on_with_the_next_job() -> None:
    executor, later = ModelExecutor(2), threading.Event()
    calls: list[Callable[[], bool]] = [partial(later.wait, 30), lambda: True]
    first = executor.submit(calls)
    second = executor.submit([later.set, lambda: None])  # by the one worker that is free
    assert first.results() == [True, True]
    assert second.results() == [None, None]


@pytest.mark.guarantee("Scheduling")
@pytest.mark.parametrize("queued", [1, 4])
def test_priority_waits_for_calls_in_progress_and_not_for_queued_ones(queued: int) -> None:
    executor, ended, going = ModelExecutor(2), list[str](), threading.Barrier(3, timeout=30)

    def slow() -> None:
        going.wait()
        gc.collect()
        ended.append("in progress")

    run = executor.submit([slow, slow])
    going.wait()
    later = threading.Thread(
        target=lambda: executor.run([partial(ended.append, "queued")] * queued)
    )
    with executor.priority():
        assert ended == ["in progress"] * 2
        assert run.results() == [None, None], "results need no gate"
        later.start()
        gc.collect()
        assert ended == ["in progress"] * 2
    later.join(30)
    assert ended[2:] == ["queued"] * queued


@pytest.mark.parametrize("calls", [1, 2])
def test_calls_held_back_by_a_block_begin_before_the_next_block(calls: int) -> None:
    executor, order = ModelExecutor(1), list[str]()
    with executor.priority():
        other = threading.Thread(
            target=lambda: executor.run([partial(order.append, "call")] * calls)
        )
        other.start()
        while not (executor.gate.blocked or len(executor.gate.sections) > 1):
            gc.collect(0)
    for _ in range(2):
        with executor.priority():
            order.append("alone")
    other.join(30)
    assert order[0] == "call"


@pytest.mark.parametrize("count", [1, 3])
def test_a_block_runs_beside_no_other_and_no_call_as_large_and_no_worker_has_two(
    count: int,
) -> None:
    executor, wrong, lock = ModelExecutor(count), list[str](), threading.Lock()
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
            with executor.priority():
                enter("alone")

    def call() -> None:
        for calls in (0, 1, 2, 3, 5) * 6:
            executor.run([partial(enter, "call")] * calls)

    threads = [threading.Thread(target=work) for work in (be_alone, be_alone, call, call)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []


def test_a_single_call_waits_for_calls_in_progress() -> None:
    executor, ended = ModelExecutor(2), list[int]()

    def slow() -> None:
        gc.collect()
        ended.append(0)

    begun(executor, [slow, slow])
    assert executor.run([lambda: list(ended)]) == [[0, 0]]


@pytest.mark.guarantee("Scheduling")
def test_a_small_call_runs_beside_large_ones_in_progress_and_before_queued_ones() -> None:
    executor, done, order = ModelExecutor(2), threading.Event(), list[str]()
    large = begun(executor, [partial(done.wait, 30)] * 2, size=10)
    later = threading.Thread(target=lambda: executor.run([partial(order.append, "queued")] * 2))
    later.start()
    assert executor.run([lambda: not done.is_set()], size=5) == [True]
    with executor.priority(5):
        done.set()
        assert large.results() == [True, True]
        order.append("priority")
    later.join(30)
    assert order == ["priority", "queued", "queued"]


def test_a_single_worker_has_nothing_beside_it_however_small() -> None:
    executor, ended = ModelExecutor(1), list[int]()
    begun(executor, [lambda: ended.append(gc.collect())], size=10)
    assert executor.run([lambda: [*executor.gate.running]], size=1) == [[]]
    assert len(ended) == 1


@pytest.fixture
def four_threads() -> Iterator[None]:
    """Torch has four threads on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_a_thread_that_asks_first_while_another_has_a_share_has_all_threads_afterwards(
    four_threads: None,
) -> None:
    executor, done, found = ModelExecutor(2), threading.Event(), list[int]()
    large = begun(executor, [partial(done.wait, 30)] * 2, size=10)

    def other() -> None:
        with executor.priority():
            found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    late = threading.Thread(target=other)
    with executor.priority(1):
        assert torch.get_num_threads() == 2
        late.start()
        while len(executor.gate.sections) < 2:
            gc.collect(0)
    done.set()
    late.join(30)
    large.results()
    assert found == [4, 4]


def test_priority_has_a_share_of_the_threads_beside_calls_in_progress_and_then_all(
    four_threads: None,
) -> None:
    executor, done = ModelExecutor(2), threading.Event()
    large = begun(executor, [partial(done.wait, 30)] * 2, size=10)
    with executor.priority(1) as claim:
        found = [torch.get_num_threads()]
        done.set()
        large.results()
        claim()
        found.append(torch.get_num_threads())
    assert found == [2, 4]
    done.clear()
    begun(executor, [partial(done.wait, 30)] * 2, size=10)
    with executor.priority(1):
        done.set()
    assert torch.get_num_threads() == 4


def test_each_worker_has_its_share_of_the_threads_and_the_caller_keeps_its_own(
    four_threads: None,
) -> None:
    shares = ModelExecutor(2).run([torch.get_num_threads] * 2)
    alone = ModelExecutor(2).run([torch.get_num_threads])
    assert (shares, alone, torch.get_num_threads()) == ([2, 2], [4], 4)


def test_an_error_is_raised_when_all_calls_have_ended_and_the_threads_are_as_before() -> None:
    before, going, failed = torch.get_num_threads(), threading.Event(), threading.Event()
    ended = threading.Event()

    def fail() -> None:
        going.wait(30)
        failed.set()
        raise ZeroDivisionError

    def last() -> None:
        going.set()
        failed.wait(30)
        gc.collect()  # still runs for a while after the other has failed
        ended.set()

    with pytest.raises(ZeroDivisionError):
        ModelExecutor(2).run([fail, last])
    assert ended.is_set()
    assert torch.get_num_threads() == before


def test_after_a_failed_call_no_other_begins_and_workers_go_on_with_the_next_job() -> None:
    executor, begun = ModelExecutor(1), list[int]()
    calls: list[Callable[[], object]] = [lambda: 1 // 0, lambda: begun.append(1)]
    with pytest.raises(ZeroDivisionError):
        executor.run(calls)
    assert begun == []
    assert executor.run([partial(str, n) for n in range(3)]) == ["0", "1", "2"]


def test_a_call_inside_a_priority_block_is_refused_and_later_ones_are_not() -> None:
    executor = ModelExecutor(2)
    for calls in (1, 3):
        with executor.priority(), pytest.raises(RuntimeError, match="inside an answer"):
            executor.run([lambda: None] * calls)
    assert executor.run([lambda: 1]) == [1]


def test_a_thread_that_never_set_a_number_keeps_the_threads_that_torch_had() -> None:
    before, found = torch.get_num_threads(), list[int]()
    executor = ModelExecutor(2)
    executor.run([lambda: None] * 5)
    one = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    one.start()
    one.join(30)
    assert (found, torch.get_num_threads()) == ([before], before)


@given(st.integers(1, 64), st.integers(1, 8))
def test_no_thread_is_left_over_and_no_worker_is_without_one(threads: int, workers: int) -> None:
    shares = split_threads(threads, workers)
    assert len(shares) == workers
    assert sum(shares) == max(threads, workers)
    assert max(shares) - min(shares) <= 1


def test_a_gpu_has_one_worker() -> None:
    assert ModelExecutor.on(torch.device("cuda")).workers == 1
    assert ModelExecutor.on(torch.device("cpu")).workers == min(torch.get_num_threads(), 4)
