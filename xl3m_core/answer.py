"""Answer and its evidence, in the one form that all endpoints and commands return."""

from dataclasses import asdict, dataclass, field
from typing import Any

from xl3m_core.grounding import is_grounded
from xl3m_core.segment import Segment


@dataclass(frozen=True, slots=True)
class Evidence:
    """A segment of the key context; `score` is in nats, `start` and `end` are in characters."""

    stream: str
    index: int
    score: float
    start: int
    end: int
    text: str
    start_ms: int | None = None
    end_ms: int | None = None

    @classmethod
    def of(cls, stream: str, segment: Segment, score: float) -> "Evidence":
        """The segment as evidence."""
        s = segment
        return cls(stream, s.index, score, s.start, s.end, s.text, s.start_ms, s.end_ms)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and the evidence for it.

    certainty: negative entropy, in nats, of the first answer token; 0 means certain.
    grounded: whether the answer occurs in the evidence, word for word; see `is_grounded`. None if
    there is no answer.
    coverage: the share of the stream's segments that were scored for this question, 0 to 1.
    as_of: for each topic/partition the next offset to be read; empty without Kafka.
    timings: seconds by step. error: the reason, if there is no answer.
    """

    question: str
    answer: str = ""
    certainty: float | None = None
    grounded: bool | None = field(init=False, default=None)
    coverage: float = 0.0
    as_of: dict[str, int] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def __post_init__(self) -> None:
        if self.error is None:
            grounded = is_grounded(self.answer, [evidence.text for evidence in self.evidence])
            object.__setattr__(self, "grounded", grounded)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON and msgpack; `error` only if there is one."""
        plain = asdict(self)
        plain["evidence"] = list(plain["evidence"])
        if self.error is None:
            del plain["error"]
        return plain
