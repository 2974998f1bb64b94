"""KeyContext: the chosen segments in time order, overlaps merged, within a token budget.

Knows segments and a token counter; which segments are chosen is decided before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xl3m_core.segment import Segment, TokenCounter


@dataclass(frozen=True, slots=True)
class KeyContext:
    """What the answer is read from: `segments` in chronological order, spliced into `text`."""

    segments: tuple[Segment, ...]
    text: str

    @classmethod
    def assemble(cls, ranked: Sequence[Segment], budget: int, count: TokenCounter) -> "KeyContext":
        """The most certain segments that fit `budget` tokens together.

        ranked: the most certain first. When all do not fit, the least certain are left out,
        whole. If not even the first one fits, as when it was cut for another model, it gives way
        at its start, as in scoring.
        """
        for chosen in range(len(ranked), 0, -1):
            segments = sorted(ranked[:chosen], key=lambda segment: segment.start)
            text = splice(segments)
            if count([text])[0] <= budget:
                return cls(tuple(segments), text)
        best = _end_of(ranked[0], budget, count) if ranked else None
        return cls((best,), best.text) if best else cls((), "")


def _end_of(segment: Segment, budget: int, count: TokenCounter) -> Segment | None:
    """As much of the segment's end as fits; None if nothing does. It begins with a line, if that
    costs no more than half of it."""
    least, most = 0, len(segment.text)  # characters that fit, and that may
    while least < most:
        middle = (least + most + 1) // 2
        fits = count([segment.text[-middle:]])[0] <= budget
        least, most = (middle, most) if fits else (least, middle - 1)
    text = segment.text[len(segment.text) - least :]
    lines = text[text.find("\n") + 1 :]
    text = lines if 2 * len(lines) >= len(text) else text
    if not text or count([text])[0] > budget:
        return None
    return replace(segment, text=text, start=segment.end - len(text))


def splice(segments: Sequence[Segment]) -> str:
    """Texts of segments in order of their start, what they share written once.

    A line break stands between segments that are apart, so that no record runs into another.
    """
    text, end = "", 0
    for segment in segments:
        if text and segment.start > end and not text.endswith("\n"):
            text += "\n"
        text += segment.text[max(end - segment.start, 0) if text else 0 :]
        end = max(end, segment.end)
    return text
