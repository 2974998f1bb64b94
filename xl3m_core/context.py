"""KeyContext: the chosen segments in time order, overlaps merged, within a token budget.

Knows segments and a token counter; which segments are chosen is decided before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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
        whole: a segment is never cut.
        """
        for chosen in range(len(ranked), 0, -1):
            segments = sorted(ranked[:chosen], key=lambda segment: segment.start)
            text = splice(segments)
            if count([text])[0] <= budget:
                return cls(tuple(segments), text)
        return cls((), "")


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
