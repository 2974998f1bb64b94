"""Plan: which segments the next step scores, within the tokens it may have.

Streams share a step alike, and what one of them does not need the others get. Pure: watched
streams in, work out. Knows no store and no model.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from stream_app.scoring.jobs import ScoringJob, TrackedStream, next_job

MAX_BATCHES = 16
SMOOTHING = 0.7


@dataclass(frozen=True, slots=True)
class Wanted:
    """Questions of one stream that are to be scored."""

    stream: str
    watched: TrackedStream
    qids: Sequence[str]

    @property
    def asked(self) -> dict[str, str]:
        """Those that the stream has (still), and what they ask."""
        questions = self.watched.questions
        return {qid: questions[qid].record.question for qid in self.qids if qid in questions}

    def owed(self, back: bool) -> int:
        """Segments that are not under way: of the live edges, with `back` of what is before."""
        return sum(self._owed(qid, back) for qid in self.asked)

    def owing(self, back: bool) -> list[str]:
        """What the questions ask that owe any."""
        return [question for qid, question in self.asked.items() if self._owed(qid, back)]

    def most_owing(self, back: bool) -> list[tuple[str, str]]:
        """Ids and questions, those first that owe most."""
        return sorted(self.asked.items(), key=lambda asked: -self._owed(asked[0], back))

    def _owed(self, qid: str, back: bool) -> int:
        return self.watched.questions[qid].unscored(self.watched.cursor, back)


@dataclass(slots=True)
class StepPlan:
    """The work of one step, which may have so many tokens."""

    size: int
    segment_tokens: int
    question_tokens: Callable[[str], int]
    jobs: list[ScoringJob] = field(default_factory=list)
    tokens: int = 0

    @property
    def room(self) -> int:
        """Tokens it may have beside those it has."""
        return self.size - self.tokens

    @property
    def fill(self) -> float:
        """Tokens it has over those it may have; at times more than 1."""
        return self.tokens / self.size

    def add(
        self, wanted: Iterable[Wanted], room: int, back: bool, at_least_one: bool = False
    ) -> None:
        """Put in what is wanted, in the room, or a segment more: those first that owe least, as
        what they leave of their share goes to those that owe more. at_least_one: a segment of
        one stream, whether or not it fits."""
        fitting = self._fitting(wanted, room, back, at_least_one or not self.jobs)
        for i, each in enumerate(sorted(fitting, key=lambda each: each.owed(back))):
            spent = self._take(each, room // (len(fitting) - i), back)
            room -= spent
            self.tokens += spent

    def _fitting(
        self, wanted: Iterable[Wanted], room: int, back: bool, at_least_one: bool
    ) -> list[Wanted]:
        """As many as a segment each fits of, in their order."""
        fitting = list[Wanted]()
        for each in wanted:
            if each.owed(back):
                room -= self._cost(each, back)
                if room < 0 and (fitting or not at_least_one):
                    break
                fitting.append(each)
        return fitting

    def _cost(self, wanted: Wanted, back: bool) -> int:
        """Tokens of one segment and all that is still to be asked of it."""
        return self.segment_tokens + sum(map(self.question_tokens, wanted.owing(back)))

    def _take(self, wanted: Wanted, share: int, back: bool) -> int:
        """Work for the questions, one segment at least; how many tokens it has.

        Questions that stand alike get the same segments, which then are read once. Of others
        those that owe most come first, and when the share is used up the rest wait.
        """
        cost = self._cost(wanted, back)
        share = max(share, cost)
        most = share // cost
        spent, segments = 0, set[int]()
        for qid, question in wanted.most_owing(back):
            if spent + self.segment_tokens * len(segments) >= share:
                break
            if work := next_job(wanted.stream, qid, wanted.watched, most, back):
                self.jobs.append(work)
                segments.update(work.indices)
                spent += self.question_tokens(question) * len(work.indices)
        return spent + self.segment_tokens * len(segments)


class AdaptiveStepSize:
    """How many tokens a step may have, so that the model is busy no longer than `seconds`.

    Begins with one batch of the model, and stays there if `seconds` is 0.
    """

    def __init__(self, batch_tokens: int, least: int, seconds: float) -> None:
        self.tokens = max(batch_tokens, least)
        self.least, self.most = least, max(least, MAX_BATCHES * batch_tokens)
        self.seconds = seconds
        self._speed = 0.0

    def observe(self, tokens: int, seconds: float) -> None:
        """A step of so many tokens took so long."""
        if not self.seconds or not tokens:
            return
        speed = tokens / max(seconds, 1e-6)
        self._speed = SMOOTHING * self._speed + (1 - SMOOTHING) * speed if self._speed else speed
        self.tokens = min(max(self.least, int(self._speed * self.seconds)), self.most)
