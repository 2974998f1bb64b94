"""Plan: a step keeps to its tokens, gives every stream its share, and never the same work twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.scoring.jobs import TrackedQuestion, TrackedStream
from stream_app.scoring.planner import AdaptiveStepSize, StepPlan, Wanted
from stream_app.store.state import Cursor, QuestionRecord, ScoredRange

SEGMENT, QUESTION = 12, 5
LIVE = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 3))


def stream(retained: int, live: int, questions: int) -> TrackedStream:
    """One with so many segments before its questions' ranges, and so many behind."""
    standing = {
        f"q{i}": TrackedQuestion(QuestionRecord(f"{i}?"), ScoredRange(retained, retained))
        for i in range(questions)
    }
    return TrackedStream(Cursor(head=retained + live), owned=True, questions=standing)


def wanted(streams: list[TrackedStream]) -> list[Wanted]:
    return [Wanted(f"s{i}", each, [*each.questions]) for i, each in enumerate(streams)]


def plan(room: int) -> StepPlan:
    return StepPlan(room, SEGMENT, lambda _: QUESTION)


def cost(watched: TrackedStream) -> int:
    return SEGMENT + QUESTION * len(watched.questions)


@pytest.mark.guarantee("Bounded memory")
@given(st.lists(LIVE, max_size=6), st.integers(1, 400), st.integers(-5, 400))
def test_a_step_keeps_to_its_room_or_has_a_segment_more(
    given_: list[tuple[int, int, int]], room: int, share: int
) -> None:
    streams, step = [stream(*each) for each in given_], plan(room)
    owing = any(each.owed(True) for each in wanted(streams))
    step.add(wanted(streams[:2]), min(share, room), back=True)
    step.add(wanted(streams), step.room, back=False)
    step.add(wanted(streams), step.room, back=True)
    most = max([room, *map(cost, streams)])
    assert step.tokens <= most + SEGMENT + QUESTION
    assert step.tokens + step.room == room
    assert bool(step.jobs) is owing


@given(st.lists(LIVE, min_size=1, max_size=4), st.integers(1, 200))
def test_step_by_step_everything_is_planned_once(
    given_: list[tuple[int, int, int]], room: int
) -> None:
    streams, done = [stream(*each) for each in given_], list[tuple[str, str, int]]()
    while True:
        step = plan(room)
        step.add(wanted(streams), room, back=True)
        if not step.jobs:
            break
        done += [(w.stream, w.qid, i) for w in step.jobs for i in range(w.lo, w.hi)]
    assert sorted(done) == [
        (f"s{i}", qid, index)
        for i, each in enumerate(streams)
        for qid in sorted(each.questions)
        for index in range(each.cursor.head)
    ]


@pytest.mark.guarantee("Scheduling")
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(0, 60))
def test_what_a_stream_leaves_the_others_get(owed: list[int], segments: int) -> None:
    room = (SEGMENT + QUESTION) * max(segments, len(owed))
    streams, step = [stream(0, live, 1) for live in owed], plan(room)
    step.add(wanted(streams), room, back=False)
    got = [each.questions["q0"].planned.hi for each in streams]
    assert sum(got) == min(sum(owed), max(segments, len(owed)))
    least = min((g for g, o in zip(got, owed, strict=True) if g < o), default=max(got))
    assert all(g <= least + 1 for g in got), "nobody has more while another goes short"


def test_questions_that_stand_alike_get_the_same_segments() -> None:
    one, step = stream(0, 30, 3), plan(200)
    step.add(wanted([one]), 200, back=False)
    assert {(w.lo, w.hi) for w in step.jobs} == {(0, 200 // cost(one))}


def test_a_step_is_filled_by_what_questions_owe_that_owe_any() -> None:
    one, step = stream(0, 30, 3), plan(10 * (SEGMENT + QUESTION))
    for qid in ("q1", "q2"):
        one.questions[qid].planned.hi = 30
    step.add(wanted([one]), step.room, back=True)
    assert [(w.qid, w.lo, w.hi) for w in step.jobs] == [("q0", 0, 10)]
    assert step.fill == 1


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
