"""How much of the evidence is in the k best segments, on real texts with annotated evidence.

Evidence recall @k: the share of a question's evidence, in characters, that lies in the k best
segments, averaged over questions. All rankers have the same segments and the same k, so their
contexts are of one size. A line of LogQA is therefore a hit or a miss, unless it is longer than a
segment. A rank is that of the first segment with any evidence. The project ships no data.

Intervals and tests are by document where a set has several, else by question.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.accuracy.datasets import Document, load
from benchmarks.accuracy.ranking import rankers, report
from benchmarks.accuracy.ranking.evidence import Evidence
from benchmarks.accuracy.ranking.outcomes import Outcome, ideal, ranked, rows
from benchmarks.accuracy.ranking.pools import cut, pool
from benchmarks.accuracy.ranking.rankers import (
    BASELINES,
    CONTENT_FREE,
    ORACLE,
    RANKERS,
    WITHOUT_MODEL,
)
from benchmarks.accuracy.ranking.readings import Readings
from benchmarks.accuracy.ranking.samples import count, first, fitting, sample
from benchmarks.harness.progress import Progress
from xl3m_core import XL3M, Engine, Method, MethodError, Segmenter

SHORT_LINES, SHORT_QUESTIONS = 60, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--data", type=Path, help="a folder with logqa/ and qmsum/")
    parser.add_argument("--sets", nargs="+", help="such as qmsum/val, paraphrased/HDFS; all")
    parser.add_argument("--questions", type=int, help="per set, sampled with a fixed seed; all")
    parser.add_argument("--documents", type=int, help="the first ones of each set; all")
    parser.add_argument(
        "--segment-tokens", nargs="+", type=int, help="such as 128 256 512; the method's own size"
    )
    parser.add_argument("--segment-words", type=int, help="words per segment, instead of tokens")
    parser.add_argument(
        "--pool", type=int, metavar="SEGMENTS",
        help="of each text: those with evidence, BM25's best and others at random. Faster, and "
        "better for every ranker but BM25 than the whole text, the default",
    )  # fmt: skip
    parser.add_argument("--rankers", nargs="+", choices=RANKERS, default=RANKERS)
    parser.add_argument(
        "--cache", type=Path, help="a folder for what the model read: a run that stops goes on"
    )


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per set, segment size, group of questions and ranker, and a plot of recall over k.

    The rows so far are in `retrieval.md` and `retrieval.json` after each set.
    """
    sets = _sets(args)
    tasks = list(_tasks(args, sets))
    progress = Progress("retrieval", sum(task.missing() for task in tasks))
    found = list[dict[str, Any]]()
    for task in tasks:
        found += task.rows(args.rankers, progress)
        report.write(Path(args.out), found)
    report.plot(Path(args.out), found)
    return found


def _sets(args: argparse.Namespace) -> dict[str, list[Document]]:
    sets = load(args.data, args.sets) if args.data else {}
    if not sets:
        raise SystemExit("retrieval: give --data PATH, a folder with logqa/ and qmsum/ in it")
    questions = args.questions or (SHORT_QUESTIONS if args.short else None)
    if args.short:
        sets = {name: [d.head(SHORT_LINES) for d in docs] for name, docs in sets.items()}
    return {
        name: sample(first(documents, args.documents), questions)
        for name, documents in sets.items()
    }


# --- what is to be ranked -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document cut into segments, with the evidence and the group of each of its questions.
    whole: how many segments it has, of which some may not be ranked."""

    text: rankers.Text
    evidence: list[Evidence]
    groups: list[str]
    whole: int

    @classmethod
    def of(cls, document: Document, segmenter: Segmenter, size: int | None) -> "Prepared":
        """size: of the pool of segments; None: all are ranked."""
        segments = cut(document.text, segmenter)
        masks = [document.evidence(question) for question in document.questions]
        questions = [question.text for question in document.questions]
        words = rankers.bm25([segment.text for segment in segments], questions)
        kept = pool(size, words, [Evidence.of(mask, segments) for mask in masks])
        some = [segments[place] for place in kept]
        text = rankers.Text(document.name, some, questions, words[:, kept])
        evidence = [Evidence.of(mask, some) for mask in masks]
        groups = [question.group for question in document.questions]
        return cls(text, evidence, groups, len(segments))


@dataclass(frozen=True, slots=True)
class Task:
    """A set at one segment size. readings: None if no ranker needs the model."""

    head: dict[str, Any]
    documents: list[Prepared]
    readings: Readings | None

    def missing(self) -> int:
        """How many tokens the model must read."""
        if not self.readings:
            return 0
        return sum(self.readings.missing(*_pairs(each.text)) for each in self.documents)

    def rows(self, chosen: Sequence[str], progress: Progress) -> list[dict[str, Any]]:
        """The figures of the chosen rankers."""
        names = dict.fromkeys([*BASELINES, *chosen])
        found: dict[str, list[Outcome]] = {name: [] for name in names}
        for i, prepared in enumerate(self.documents):
            text = self._read(prepared.text, progress)
            for name, outcomes in found.items():
                outcomes += self._outcomes(i, replace(prepared, text=text), name)
        return rows(self.head, found, chosen)

    def _read(self, text: rankers.Text, progress: Progress) -> rankers.Text:
        if not self.readings:
            return text
        return replace(text, numbers=self.readings.read(*_pairs(text), progress))

    def _outcomes(self, document: int, prepared: Prepared, name: str) -> Iterator[Outcome]:
        questions = list(zip(prepared.groups, prepared.evidence, strict=True))
        if name == ORACLE:
            yield from (ideal(document, group, evidence) for group, evidence in questions)
            return
        engine = self.readings.engine if self.readings else None
        scores = rankers.scores(prepared.text, name, engine)
        for (group, evidence), row in zip(questions, scores, strict=True):
            order = rankers.order(row)
            yield ranked(document, group, evidence, order, prepared.text.segments)


def _tasks(args: argparse.Namespace, sets: dict[str, list[Document]]) -> Iterator[Task]:
    by_model = not set(args.rankers) <= set(WITHOUT_MODEL)
    needs_model = by_model or not args.segment_words
    loaded = XL3M.load(args.model).engine if needs_model else None
    for size in [None] if args.segment_words else args.segment_tokens or [None]:
        engine = _sized(loaded, size) if loaded else None
        wanted = rankers.measures_needed(args.rankers, engine) if engine else None
        readings = Readings(engine, wanted, args.cache) if engine and wanted else None
        for name, documents in sets.items():
            task = _task(args, name, documents, engine, readings)
            if task.documents:
                yield task


def _task(
    args: argparse.Namespace,
    name: str,
    documents: Sequence[Document],
    engine: Engine | None,
    readings: Readings | None,
) -> Task:
    segmenter = Segmenter(_count_words, args.segment_words) if args.segment_words else None
    if segmenter is None:
        assert engine
        segmenter = engine.segmenter()
    kept = fitting(documents, engine)
    prepared = [Prepared.of(document, segmenter, args.pool) for document in kept]
    if readings and prepared:
        _check_fit(readings.engine, prepared)
    unit = (
        f"{args.segment_words} words"
        if args.segment_words
        else f"{segmenter.segment_tokens} tokens"
    )
    whole = sum(each.whole for each in prepared)
    head = {
        "set": name,
        "segment": unit,
        "pool": f"an optimistic pool of {args.pool} of {whole:,}" if args.pool else None,
        "refused": count(documents) - count(kept),
    }
    return Task(head, prepared, readings)


def _pairs(text: rankers.Text) -> tuple[list[str], list[str]]:
    """What the model reads: the segments, with the questions and those without content."""
    return [segment.text for segment in text.segments], [*text.questions, *CONTENT_FREE]


def _sized(engine: Engine, tokens: int | None) -> Engine:
    """The engine with segments of so many tokens. Raises SystemExit if they do not fit."""
    if tokens is None:
        return engine
    model, measure = engine.model, engine.method.measure
    try:
        method = Method.fit(model.window, segment_tokens=tokens, k=model.k, measure=measure)
        return Engine(model, method, engine.batch_tokens)
    except MethodError as error:
        raise SystemExit(f"retrieval: {error}") from error


def _check_fit(engine: Engine, documents: Sequence[Prepared]) -> None:
    """Raises SystemExit if a segment would be truncated to leave room for its question."""
    longest = 0
    for texts, questions in (_pairs(each.text) for each in documents):
        suffix = max(len(engine.suffix(question)) for question in questions)
        longest = max(longest, suffix + max(engine.model.count_tokens(texts)))
    longest += len(engine.model.bos)
    if longest > engine.model.window:
        raise SystemExit(
            f"retrieval: a segment and its question take {longest} tokens of a window of "
            f"{engine.model.window}: leave --segment-words out, or take --rankers bm25"
        )


def _count_words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]
