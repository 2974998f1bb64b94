"""StepPlan: a step keeps to its tokens, shares them among streams and plans nothing twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.scoring.planner import AdaptiveStepSize, Selection, StepPlan
from stream_app.store.state import Cursor, QuestionRecord, ScoredRange

SEGMENT, QUESTION = 12, 5
STREAM = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 3))
"""Numbers: segments before the ranges of a stream's questions, segments after them, questions."""


def tracked(history: int, live: int, questions: int, name: str = "s") -> TrackedStream:
    """A stream whose questions have empty ranges between `history` and `live` segments."""
    by_qid = {
        f"q{i}": TrackedQuestion(
            name, f"q{i}", QuestionRecord(f"{i}?"), ScoredRange(history, history)
        )
        for i in range(questions)
    }
    return TrackedStream(Cursor(head=history + live), owned=True, questions=by_qid)


def named(shapes: list[tuple[int, int, int]]) -> list[TrackedStream]:
    return [tracked(*shape, name=f"s{i}") for i, shape in enumerate(shapes)]


def select(streams: list[TrackedStream]) -> list[Selection]:
    """Every question of the streams."""
    return [(stream, [*stream.questions.values()]) for stream in streams]


def reach(scored: ScoredRange) -> tuple[int, int]:
    return scored.lo, scored.hi


def plan(size: int) -> StepPlan:
    return StepPlan(size, SEGMENT, lambda _: QUESTION)


def cost(stream: TrackedStream) -> int:
    return SEGMENT + QUESTION * len(stream.questions)


@pytest.mark.guarantee("Bounded memory")
@given(st.lists(STREAM, max_size=6), st.integers(1, 400), st.integers(-5, 400))
def test_a_step_keeps_to_its_room_or_has_a_segment_more(
    shapes: list[tuple[int, int, int]], room: int, share: int
) -> None:
    streams, step = named(shapes), plan(room)
    is_unscored = any(stream.unscored(questions, True) for stream, questions in select(streams))
    step.add(select(streams[:2]), min(share, room), history=True)
    step.add(select(streams), step.room, history=False)
    step.add(select(streams), step.room, history=True)
    most = max([room, *map(cost, streams)])
    assert step.tokens <= most + SEGMENT + QUESTION
    assert step.tokens + step.room == room
    assert bool(step.jobs) is is_unscored


@given(st.lists(STREAM, min_size=1, max_size=4), st.integers(1, 200))
def test_step_by_step_everything_is_planned_once(
    shapes: list[tuple[int, int, int]], room: int
) -> None:
    streams, planned = named(shapes), list[tuple[str, str, int]]()
    while True:
        step = plan(room)
        step.add(select(streams), room, history=True)
        if not step.jobs:
            break
        planned += [(job.stream, job.qid, i) for job in step.jobs for i in job.indices]
    assert sorted(planned) == [
        (f"s{i}", qid, index)
        for i, stream in enumerate(streams)
        for qid in sorted(stream.questions)
        for index in range(stream.cursor.head)
    ]


@pytest.mark.guarantee("Scheduling")
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 60))
def test_the_unused_share_of_a_stream_goes_to_the_others(
    unscored: list[int], segments: int
) -> None:
    room = (SEGMENT + QUESTION) * max(segments, len(unscored))
    streams, step = [tracked(0, live, 1) for live in unscored], plan(room)
    step.add(select(streams), room, history=False)
    shares = [stream.questions["q0"].planned.hi for stream in streams]
    assert sum(shares) == min(sum(unscored), max(segments, len(unscored)))
    unfinished = (share for share, all_ in zip(shares, unscored, strict=True) if share < all_)
    least = min(unfinished, default=max(shares))
    assert all(share <= least + 1 for share in shares), "none has more while another goes short"


def test_questions_with_equal_ranges_get_the_same_segments() -> None:
    stream, step = tracked(0, 30, 3), plan(200)
    step.add(select([stream]), 200, history=False)
    assert {(job.lo, job.hi) for job in step.jobs} == {(0, 200 // cost(stream))}


def test_a_step_is_filled_by_the_questions_that_have_unscored_segments() -> None:
    stream, step = tracked(0, 30, 3), plan(10 * (SEGMENT + QUESTION))
    for qid in ("q1", "q2"):
        stream.questions[qid].planned.hi = 30
    step.add(select([stream]), step.room, history=True)
    assert [(job.qid, job.indices) for job in step.jobs] == [("q0", (*range(10),))]
    assert step.fill == 1


def test_candidates_come_first_and_are_scored_once() -> None:
    stream, step = tracked(20, 10, 1), plan(4 * (SEGMENT + QUESTION))
    question = stream.questions["q0"]
    question.planned.lo = 18
    question.candidates.extend([3, 19, 25])
    step.add(select([stream]), step.room, history=True)
    assert [job.indices for job in step.jobs] == [(3, 25)], "19 is planned already"
    assert reach(question.planned) == (18, 20), "no candidate is next to the range"
    step.add(select([stream]), step.size, history=True)
    assert step.jobs[1].indices == (20, 21, 22, 23)
    assert reach(step.jobs[1].seen) == (18, 20)


PICKS = st.lists(st.integers(0, 39), max_size=6)


@given(st.lists(st.tuples(PICKS, PICKS, st.integers(1, 5)), max_size=12), st.integers(0, 15))
def test_in_any_order_all_that_is_retained_is_planned_once(
    steps: list[tuple[list[int], list[int], int]], deleted: int
) -> None:
    """Halfway the first segments are deleted."""
    stream = tracked(20, 20, 1)
    question, planned = stream.questions["q0"], list[int]()
    for i, (picks, candidates, limit) in enumerate([*steps, *[([], [], 4)] * 40]):
        if i == len(steps) // 2:
            stream.cursor = Cursor(head=40, first=deleted)
        question.candidates.extend(candidates)
        is_unscored = bool(stream.with_unscored([question], True))
        job = question.next_job(stream.cursor, limit, True, picks)
        assert bool(job) is is_unscored
        if job:
            planned += job.indices
            assert all(job.lo <= j < job.hi or j in question.in_flight for j in job.indices)
    assert len(planned) == len({*planned})
    assert {*planned} >= {*range(deleted, 40)}
    assert question.planned.hi == 40 and question.planned.lo <= deleted


@pytest.mark.parametrize("history", [False, True])
def test_a_job_says_what_its_range_was_planned_to_be(history: bool) -> None:
    """What was planned first does not change with what is planned next."""
    stream = tracked(20, 10, 1)
    question, jobs = stream.questions["q0"], []
    while job := question.next_job(stream.cursor, 4, history):
        jobs.append(job)
    assert [(job.seen.lo, job.seen.hi) for job in jobs[:3]] == [(20, 20), (20, 24), (20, 28)]
    assert reach(question.planned) == (0 if history else 20, 30)
    assert reach(question.scored_range) == (20, 20)
    question.reset_plan()
    assert reach(question.planned) == (20, 20)


@pytest.mark.guarantee("Bounded memory")
@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 10)), max_size=30))
def test_a_step_is_never_less_than_a_row_nor_without_bound(steps: list[tuple[int, float]]) -> None:
    size = AdaptiveStepSize(batch_tokens=256, least=20, seconds=0.1)
    for tokens, seconds in steps:
        size.observe(tokens, seconds)
        assert 20 <= size.tokens <= 16 * 256


def test_a_step_takes_on_the_size_that_fits_its_time() -> None:
    size = AdaptiveStepSize(batch_tokens=256, least=20, seconds=0.1)
    for _ in range(40):
        size.observe(size.tokens, size.tokens / 5000)
    assert abs(size.tokens - 500) < 5
    fixed = AdaptiveStepSize(batch_tokens=256, least=20, seconds=0.0)
    fixed.observe(256, 9.0)
    assert fixed.tokens == 256
