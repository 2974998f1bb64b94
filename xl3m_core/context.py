"""KeyContext: the best segments in chronological order, overlaps merged, within a token budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xl3m_core.segment import Segment, TokenCounter


@dataclass(frozen=True, slots=True)
class KeyContext:
    """The text an answer is generated from: `segments` in chronological order, spliced."""

    segments: tuple[Segment, ...]
    text: str

    @classmethod
    def assemble(cls, ranked: Sequence[Segment], budget: int, count: TokenCounter) -> "KeyContext":
        """The most certain segments that fit `budget` tokens together.

        ranked: the most certain first. If they do not all fit, the least certain are left out. If
        not even the first one fits, because it was cut for another model, its start is left out, as
        in scoring. count: tokens of each text, in its prompt.
        """
        for chosen in range(len(ranked), 0, -1):
            segments = sorted(ranked[:chosen], key=lambda segment: segment.start)
            text = splice(segments)
            if count([text])[0] <= budget:
                return cls(tuple(segments), text)
        best = _end_of(ranked[0], budget, count) if ranked else None
        return cls((best,), best.text) if best else cls((), "")


def _end_of(segment: Segment, budget: int, count: TokenCounter) -> Segment | None:
    """The longest end of the segment that fits, None if none does. It begins with a line, unless
    that leaves less than half of it."""
    low, high = 0, len(segment.text)  # characters that fit, and that might
    while low < high:
        middle = (low + high + 1) // 2
        fits = count([segment.text[-middle:]])[0] <= budget
        low, high = (middle, high) if fits else (low, middle - 1)
    text = segment.text[len(segment.text) - low :]
    lines = text[text.find("\n") + 1 :]
    text = lines if 2 * len(lines) >= len(text) else text
    if not text or count([text])[0] > budget:
        return None
    return replace(segment, text=text, start=segment.end - len(text))


def splice(segments: Sequence[Segment]) -> str:
    """The texts of segments, sorted by their start, with overlapping text once.

    Segments that do not touch are separated by a line break, so that no two records join.
    """
    text, end = "", 0
    for segment in segments:
        if text and segment.start > end and not text.endswith("\n"):
            text += "\n"
        text += segment.text[max(end - segment.start, 0) if text else 0 :]
        end = max(end, segment.end)
    return text
