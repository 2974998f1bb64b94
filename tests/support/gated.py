"""An engine whose scoring steps wait for the test."""

import threading
from collections.abc import Callable, Sequence

from tests.support.fakes import HashEngine
from xl3m_core import Generated, KeyContext
from xl3m_core.scoring import Scores


class GatedEngine(HashEngine):
    """Scores one step for each permit, and answers at once with the first line of its context.
    answered: the contexts it answered from."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = threading.Semaphore(0)
        self.answered: list[str] = []

    def permit(self, steps: int) -> None:
        """Let the scorer score so many more steps."""
        self.permits.release(steps)

    def timed_features(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """A step's features, with a duration of zero."""
        self.permits.acquire(timeout=20)
        return super().timed_features(pairs)

    def answer(
        self, context: KeyContext, question: str, on_text: Callable[[str], None] | None = None
    ) -> Generated:
        self.answered.append(context.text)
        pieces = [*context.text.split("\n")[0].strip("."), "!"]
        for piece in pieces if on_text else []:
            on_text(piece)  # type: ignore[misc]
        return Generated("".join(pieces), -0.5)
