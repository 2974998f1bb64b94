"""Readings: the raw numbers of segments and questions, read by the model once and kept on disk.

What is kept is one file of records of one size, each a hash of a segment's text and a question, and
their numbers. Records are only added, so a run that was interrupted goes on where it stopped, and
other questions, pools and segment sizes share the file.
"""

from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.progress import Progress
from xl3m_core import Engine, Measure
from xl3m_core.features import Features
from xl3m_core.lexical import words

Floats = np.ndarray[Any, np.dtype[np.float64]]
Pair = tuple[str, str]

STEP_TOKENS = 30_000
"""So many tokens, half a minute of a small real model on two cores, are read between two writes."""
CHECKED = 4
"""So many kept pairs are read again before others are taken as they are."""
TOLERANCE, HALF_TOLERANCE = 0.005, 0.05
"""A pair's numbers differ by so much, in float32 and in types of half its size, with what shares
its batch."""
LEXICAL = Features._fields.index("lexical")
"""The field that needs no model: it is computed anew, since its weights may have changed."""
RECORD = np.dtype([("pair", "S32"), ("numbers", "<f8", (len(Features._fields),))])


class Readings:
    """Reads pairs with an engine, unless they are kept already.

    measures: which the numbers are for. folder: of the files, one for each model and way of
    asking; None: nothing is kept on disk. Raises SystemExit if kept numbers are not what the engine
    reads now.
    """

    def __init__(self, engine: Engine, measures: Collection[Measure], folder: Path | None) -> None:
        self.engine, self.measures = engine, measures
        self.file = folder / f"{_name(engine, measures)}.readings" if folder else None
        self.kept: dict[bytes, Floats] = {}
        if self.file and self.file.exists():
            self._restore(self.file)

    def missing(self, texts: Sequence[str], questions: Sequence[str]) -> int:
        """How many tokens must be read for all pairs of these."""
        return sum(tokens for tokens, _ in self._unread(texts, questions))

    def read(self, texts: Sequence[str], questions: Sequence[str], progress: Progress) -> Floats:
        """The numbers of all pairs, in the order of the fields of `Features`: (questions, texts,
        fields)."""
        self._check([(text, question) for question in questions for text in texts])
        for tokens, pairs in _steps(self._unread(texts, questions)):
            self._keep(pairs, self._features(pairs))
            progress.add(tokens)
        numbers = np.array([[self.kept[_hash((t, q))] for t in texts] for q in questions])
        if "fused" in self.measures:
            asked = [self.engine.words(question) for question in questions]
            in_texts = [{*words(text)} for text in texts]
            numbers[..., LEXICAL] = [[each.share(found) for found in in_texts] for each in asked]
        return numbers

    def _unread(
        self, texts: Sequence[str], questions: Sequence[str]
    ) -> Iterator[tuple[int, list[Pair]]]:
        """Each text with the questions it was not read with, and the tokens of both."""
        lengths = {question: len(self.engine.suffix(question)) for question in questions}
        for text, tokens in zip(texts, self.engine.model.count_tokens(texts), strict=True):
            pairs = [(text, q) for q in questions if _hash((text, q)) not in self.kept]
            if pairs:
                yield tokens + sum(lengths[question] for _, question in pairs), pairs

    def _features(self, pairs: Sequence[Pair]) -> Floats:
        return np.array(self.engine.features(pairs, self.measures), dtype=np.float64)

    def _keep(self, pairs: Sequence[Pair], numbers: Floats) -> None:
        records = np.zeros(len(pairs), dtype=RECORD)
        records["pair"], records["numbers"] = [*map(_hash, pairs)], numbers
        self.kept |= zip(records["pair"].tolist(), numbers, strict=True)
        if self.file:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as file:
                file.write(records.tobytes())

    def _restore(self, file: Path) -> None:
        """Take what is kept; the record that an interrupted run left half written is cut off."""
        size = file.stat().st_size // RECORD.itemsize * RECORD.itemsize
        with file.open("r+b") as opened:
            opened.truncate(size)
            records = np.frombuffer(opened.read(), dtype=RECORD)
        self.kept = dict(zip(records["pair"].tolist(), records["numbers"], strict=True))

    def _check(self, pairs: Sequence[Pair]) -> None:
        """Raise SystemExit unless the first kept pairs have the numbers that are read now."""
        known = [pair for pair in pairs if _hash(pair) in self.kept][:CHECKED]
        if not known or not self.file:
            return
        kept = np.delete([self.kept[_hash(pair)] for pair in known], LEXICAL, axis=1)
        now = np.delete(self._features(known), LEXICAL, axis=1)
        full = self.engine.model.model.dtype.itemsize >= 4
        tolerance = TOLERANCE if full else HALF_TOLERANCE
        if not np.allclose(kept, now, tolerance, tolerance, equal_nan=True):
            raise SystemExit(
                f"retrieval: {self.file} was read by another version: give another --cache, or "
                "delete this file"
            )


def _steps(unread: Iterator[tuple[int, list[Pair]]]) -> Iterator[tuple[int, list[Pair]]]:
    """Texts together, up to STEP_TOKENS."""
    total, step = 0, list[Pair]()
    for tokens, pairs in unread:
        if step and total + tokens > STEP_TOKENS:
            yield total, step
            total, step = 0, []
        total, step = total + tokens, step + pairs
    if step:
        yield total, step


def _hash(pair: Pair) -> bytes:
    """32 letters and digits; numpy would cut a hash that ends with a zero byte."""
    return blake2b("\0".join(pair).encode(), digest_size=16).hexdigest().encode()


def _name(engine: Engine, measures: Collection[Measure]) -> str:
    """What the numbers depend on beside the pair: weights, how a question is asked, which are
    wanted."""
    model = engine.model
    asked = (model.fingerprint, model.template, model.bos, Features._fields, sorted(measures))
    return blake2b(repr(asked).encode(), digest_size=8).hexdigest()
