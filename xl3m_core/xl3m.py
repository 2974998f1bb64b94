"""XL3M: the whole method on one text.

Reads a text once, keeps the most certain segments, answers from them. Knows an engine.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from xl3m_core.answer import Answer, Evidence
from xl3m_core.engine import Engine
from xl3m_core.errors import ModelError
from xl3m_core.loading import SMALL
from xl3m_core.method import Method
from xl3m_core.model import LanguageModel
from xl3m_core.segment import Segment
from xl3m_core.topk import TopK


class XL3M:
    """The whole method on one text of any length, at hand or still being read."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def load(
        cls, name: str | Path | None = None, *, window: int | None = None, **method: Any
    ) -> "XL3M":
        """Load a model (a folder, a hub id, or the small one that comes with this package).

        window: for a model that does not say how long its own is. method: what `Method.fit`
        takes, to change its defaults.
        """
        model = LanguageModel.load(name or SMALL, window=window)
        method["k"] = method.get("k") or model.k
        return cls(Engine(model, Method.fit(model.window, **method)))

    def answer(
        self,
        text: str | Iterable[str],
        question: str,
        *,
        on_progress: Callable[[int], None] | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer the question from the text, given whole or in chunks.

        Memory holds the k best segments and a few batches, however long the text. on_progress is
        given the number of tokens scored so far; on_text the answer as it is generated.
        """
        started = time.perf_counter()
        self.engine.suffix(question)  # refused before a long text is read
        try:
            best, total = self._scan(_chunks(text), question, on_progress)
            scanned = time.perf_counter()
            if not total:
                return Answer(question=question, error="the text is empty")
            context = self.engine.assemble([segment for segment, _ in best], question)
            generated = self.engine.answer(context, question, on_text)
        except ModelError as error:
            return Answer(question=question, error=f"the model failed: {error}")
        scores = {segment.index: score for segment, score in best}
        return Answer(
            question=question,
            answer=generated.text,
            certainty=generated.certainty,
            coverage=1.0,
            evidence=tuple(Evidence.of("", s, scores[s.index]) for s in context.segments),
            timings={"scan": scanned - started, "answer": time.perf_counter() - scanned},
        )

    def _scan(
        self, chunks: Iterable[str], question: str, on_progress: Callable[[int], None] | None
    ) -> tuple[list[tuple[Segment, float]], int]:
        """The k most certain segments with their scores, and how many there were in all."""
        top, kept, total = TopK(self.engine.method.k), dict[int, Segment](), 0
        several = 4 * self.engine.batch_tokens  # some forwards' worth, so that lengths sort well
        for batch in self.engine.segmenter().batches(chunks, several):
            scores = self.engine.score([(segment.text, question) for segment in batch])
            for segment, score in zip(batch, scores, strict=True):
                kept[segment.index] = segment
                kept.pop(top.add(segment.index, score), None)  # type: ignore[arg-type]
            total += len(batch)
            if on_progress:
                on_progress(batch[-1].end_token)
        return [(kept[index], score) for index, score in top.best()], total


def _chunks(text: str | Iterable[str], size: int = 1 << 16) -> Iterator[str]:
    """The text in pieces of a bounded size, so that no more than one is in work at a time."""
    for chunk in [text] if isinstance(text, str) else text:
        yield from (chunk[start : start + size] for start in range(0, len(chunk), size))
