"""Planner: which segments the next scoring step takes, within a budget of tokens.

Streams get equal shares, and what one of them does not need goes to the others. Planning changes
the tracked questions: the segments of a planned job are marked as in flight, so that nothing is
planned twice (see `TrackedQuestion.next_job`). No I/O.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from stream_app.scoring.jobs import ScoringJob, TrackedQuestion, TrackedStream
from stream_app.scoring.triage import picks
from xl3m_core import Engine

MAX_BATCHES = 16
SMOOTHING = 0.7
TRIAGE_STEPS = 2
"""A live edge that takes more steps than this is in triage."""

Selection = tuple[TrackedStream, Sequence[TrackedQuestion]]
"""A stream, and those of its questions that are to be scored."""


@dataclass(slots=True)
class StepPlan:
    """The jobs of one step. size: its budget in tokens; segment_tokens: the most in a segment;
    question_tokens: how many a question has; triage_above: of a live edge with more unread segments
    the most promising are read first, of another the oldest; in_triage: one of them has more."""

    size: int
    segment_tokens: int
    question_tokens: Callable[[str], int]
    jobs: list[ScoringJob] = field(default_factory=list)
    tokens: int = 0
    triage_above: float = math.inf
    in_triage: bool = False

    @property
    def room(self) -> int:
        """Tokens left in the budget; negative if it is exceeded."""
        return self.size - self.tokens

    @property
    def fill(self) -> float:
        """Planned tokens over the budget; above 1 if it is exceeded."""
        return self.tokens / self.size

    def add(
        self,
        selections: Iterable[Selection],
        room: int,
        history: bool,
        at_least_one: bool = False,
    ) -> None:
        """Plan jobs for the selections within `room` tokens, which may be exceeded by one segment.

        Streams with the least to score come first, so that the rest of their shares goes to the
        others. history: plan the log before the ranges, too. at_least_one: plan one segment of
        the first stream even if it does not fit.
        """
        fitting = self._fitting(selections, room, history, at_least_one or not self.jobs)
        fitting.sort(key=lambda selection: selection[0].unscored(selection[1], history))
        for i, (stream, questions) in enumerate(fitting):
            spent = self._add_jobs(stream, questions, room // (len(fitting) - i), history)
            room -= spent
            self.tokens += spent

    def _fitting(
        self, selections: Iterable[Selection], room: int, history: bool, at_least_one: bool
    ) -> list[Selection]:
        """The first selections with unscored segments, as many as have room for one each."""
        fitting = list[Selection]()
        for stream, questions in selections:
            if unscored := stream.with_unscored(questions, history):
                room -= self._cost(unscored)
                if room < 0 and (fitting or not at_least_one):
                    break
                fitting.append((stream, questions))
        return fitting

    def _cost(self, questions: Iterable[TrackedQuestion]) -> int:
        """Tokens of one segment with each of the questions."""
        return self.segment_tokens + sum(self.question_tokens(q.record.question) for q in questions)

    def _add_jobs(
        self, stream: TrackedStream, questions: Sequence[TrackedQuestion], share: int, history: bool
    ) -> int:
        """Plan jobs within `share` tokens, one segment at least; returns the tokens planned.

        Questions with equal ranges get the same segments, which the model then reads once, and so
        do all questions in triage. If the ranges differ, questions with the most unscored segments
        come first, and the others wait when the share is used up.
        """
        unscored = stream.with_unscored(questions, history)
        share = max(share, cost := self._cost(unscored))
        limit = share // cost
        chosen = self._picks(stream, unscored, limit)
        spent, segments = 0, set[int]()
        for question in unscored:
            if spent + self.segment_tokens * len(segments) >= share:
                break
            if job := question.next_job(stream.cursor, limit, history, chosen):
                self.jobs.append(job)
                segments.update(job.indices)
                spent += self.question_tokens(question.record.question) * len(job.indices)
        return spent + self.segment_tokens * len(segments)

    def _picks(
        self, stream: TrackedStream, questions: Sequence[TrackedQuestion], limit: int
    ) -> Sequence[int]:
        """The segments to read in triage; none if the stream is not far behind."""
        behind = [q for q in questions if q.unscored(stream.cursor, False) > self.triage_above]
        self.in_triage |= bool(behind)
        return picks(stream, behind, limit) if behind else ()


class Planner:
    """Plans a worker's steps. seconds: about how long one may take; 0: a step is one batch. triage:
    whether live edges that are far behind are read in the order of promise."""

    def __init__(self, engine: Engine, seconds: float, triage: bool) -> None:
        self.engine = engine
        self.triage = triage
        least = engine.method.segment_tokens + engine.method.question_tokens
        self.size = AdaptiveStepSize(engine.batch_tokens, least, seconds)
        self.in_triage = False

    @property
    def is_urgent(self) -> bool:
        """Whether the last step read the most promising segments of a stream, and was a long one
        even with a single segment."""
        return self.in_triage and self.size.is_slow

    def plan(
        self, waiting: Sequence[Selection], lagging: Callable[[], Iterable[Selection]], streams: int
    ) -> StepPlan:
        """The next step's jobs, which are in flight from now on: those that queries wait for, then
        live edges, then history. lagging: what lags; streams: of about how many streams.

        Queries get three quarters of a step, so that they do not hold up the live edges.
        """
        method, suffix = self.engine.method, self.engine.suffix
        plan = StepPlan(
            self.size.tokens,
            method.segment_tokens,
            lambda question: len(suffix(question)),
            triage_above=self.triage_above(streams),
        )
        any_lagging = next(iter(lagging()), None) is not None
        plan.add(waiting, plan.room * (3 if any_lagging else 4) // 4, history=True)
        plan.add(lagging(), plan.room, history=False, at_least_one=True)
        plan.add(lagging(), plan.room, history=True)
        self.in_triage = plan.in_triage
        return plan

    def triage_above(self, streams: int) -> float:
        """How many unread segments each of so many lagging streams may have before it is read in
        the order of promise."""
        if not self.triage:
            return math.inf
        each = self.size.tokens / self.engine.method.segment_tokens / max(1, streams)
        return TRIAGE_STEPS * max(1.0, each)


class AdaptiveStepSize:
    """How many tokens a step may have for the model to be busy for about `seconds`.

    Starts with one batch of the model, and stays there if `seconds` is 0. least: never fewer.
    """

    def __init__(self, batch_tokens: int, least: int, seconds: float) -> None:
        self.tokens = max(batch_tokens, least)
        self.least, self.most = least, max(least, MAX_BATCHES * batch_tokens)
        self.seconds = seconds
        self._tokens_per_second = 0.0

    @property
    def is_slow(self) -> bool:
        """Whether the model needs more than twice the time of a step for one segment."""
        return 0 < 2 * self.seconds * self._tokens_per_second < self.least

    def observe(self, tokens: int, seconds: float) -> None:
        """Take a measurement: a step of `tokens` took `seconds`."""
        if not self.seconds or not tokens:
            return
        speed = tokens / max(seconds, 1e-6)
        if self._tokens_per_second:
            speed = SMOOTHING * self._tokens_per_second + (1 - SMOOTHING) * speed
        self._tokens_per_second = speed
        self.tokens = min(max(self.least, int(speed * self.seconds)), self.most)
