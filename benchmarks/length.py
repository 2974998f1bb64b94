"""How the method's cost grows with the length of the text: time should, memory should not.

One text, read in chunks as from a file, with a fact at a third of it and look-alikes all
around; the process's memory is read after each length.
"""

import argparse
import resource
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from stream_app.sample import Fact, service_log
from xl3m_core import XL3M

LENGTHS = (10_000, 30_000, 100_000, 300_000)
LINES = 200


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a length, in tokens."""
    method = XL3M.load(args.model)
    return [_row(method, tokens) for tokens in tqdm(LENGTHS, desc="length", disable=None)]


def _row(method: XL3M, tokens: int) -> dict[str, Any]:
    chunks = Chunks(method, tokens)
    started = time.perf_counter()
    answer = method.answer(chunks, chunks.fact.question)
    seconds = time.perf_counter() - started
    return {
        "tokens": chunks.tokens,
        "tokens_per_s": chunks.tokens / seconds,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "evidence_recall": int(any(chunks.line in e.text for e in answer.evidence)),
        "exact_match": int(answer.answer == chunks.fact.answer),
    }


class Chunks:
    """A made-up log of so many tokens, made as it is read."""

    def __init__(self, method: XL3M, tokens: int) -> None:
        self.model = method.engine.model
        self.wanted, self.tokens = tokens, 0
        lines, facts = service_log(LINES, seed=0)
        self.first = "\n".join(lines) + "\n"
        self.fact: Fact = facts[len(facts) // 2]
        self.line = lines[self.fact.line]

    def __iter__(self) -> Iterator[str]:
        """The fact comes at a third of the text."""
        seed, planted = 1, False
        while self.tokens < self.wanted:
            text = "\n".join(service_log(LINES, seed)[0]) + "\n"
            if not planted and self.tokens >= self.wanted / 3:
                text, planted = self.first, True
            elif self.fact.question in (fact.question for fact in service_log(LINES, seed)[1]):
                text = ""  # the same key with another value would be a second answer
            self.tokens += self.model.count([text])[0]
            seed += 1
            yield text
