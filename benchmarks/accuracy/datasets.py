"""Real texts with annotated evidence: LogQA's logs and QMSum's meetings, read from a local folder.

A text is a list of lines; a question's evidence is spans of them. The set paraphrased/NAME asks
about the log logqa/NAME in other words.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from stream_app.scoring.bm25 import words

WHOLE, ENDING, NONE = "whole identifier", "last digits only", "no identifier"
"""Groups of questions about logs: what a question has of its evidence's words with digits."""
SUMMARY, OTHER = "summary", "other"
"""Groups of questions about meetings: whether "Summarize" is asked."""
LAST_DIGITS = 4
"""So many digits of an identifier, or more, name it."""
NOT_OF_THE_LOG = ("LineId", "EventId", "EventTemplate", "Content")

Span = tuple[int, int]
"""First and last line, both included."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, the lines of the text that answer it, and the group it is counted in."""

    text: str
    evidence: tuple[Span, ...]
    group: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A text, line by line, and its questions."""

    name: str
    lines: tuple[str, ...]
    questions: tuple[Question, ...]

    @property
    def text(self) -> str:
        """The lines as one text."""
        return "".join(line + "\n" for line in self.lines)

    def evidence(self, question: Question) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """A mask over the text's characters: whether each belongs to the question's evidence."""
        starts = [0, *accumulate(len(line) + 1 for line in self.lines)]
        mask = np.zeros(starts[-1], dtype=bool)
        for first, last in question.evidence:
            mask[starts[first] : starts[last + 1] - 1] = True
        return mask

    def head(self, lines: int) -> "Document":
        """The first lines, and the questions whose evidence is all there."""
        kept = tuple(a for a in self.questions if all(last < lines for _, last in a.evidence))
        return replace(self, lines=self.lines[:lines], questions=kept)


def load(folder: Path, names: Iterable[str] | None = None) -> dict[str, list[Document]]:
    """Sets below the folder by their names, such as qmsum/val; default: every set. Raises
    SystemExit for a name that is none of them."""
    readers = _readers(folder)
    chosen = list(readers) if names is None else list(names)
    if unknown := [name for name in chosen if name not in readers]:
        raise SystemExit(f"{folder} has no set {unknown[0]}; it has {', '.join(readers) or 'none'}")
    return {name: readers[name]() for name in chosen}


def _readers(folder: Path) -> dict[str, Callable[[], list[Document]]]:
    logs = {log.parent.name: log for log in sorted(folder.glob("logqa/*/*_structured.csv"))}
    readers: dict[str, Callable[[], list[Document]]] = {
        f"logqa/{name}": partial(_read_logs, log) for name, log in logs.items()
    }
    for file in sorted(folder.glob("qmsum/*.jsonl")):
        readers[f"qmsum/{file.stem}"] = partial(read_meetings, file)
    for file in sorted(folder.glob("logqa-paraphrased/*.jsonl")):
        name = file.stem.removesuffix(".dev")
        if log := logs.get(name.partition(".")[0]):
            readers[f"paraphrased/{name}"] = partial(_read_logs, log, file)
    return readers


def _read_logs(log: Path, paraphrased: Path | None = None) -> list[Document]:
    return [read_log(log, paraphrased)]


def read_log(log: Path, paraphrased: Path | None = None) -> Document:
    """LogQA: a log as a table, with the questions of all its parts in files beside it; or with
    those of a file that asks in other words. A question whose evidence is not in the log is left
    out."""
    with log.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    lines = tuple(_line(record) for record in records)
    places: dict[str, list[Span]] = {}
    for i, record in enumerate(records):
        places.setdefault(record["Content"], []).append((i, i))
    asked = [
        Question(text, tuple(places.get(line, ())), identifier_group(text, line))
        for text, line in _asked(log, paraphrased)
    ]
    return Document(log.parent.name, lines, tuple(a for a in asked if a.evidence))


def _asked(log: Path, paraphrased: Path | None) -> Iterator[tuple[str, str]]:
    """Questions about a log, each with its evidence line."""
    if paraphrased:
        yield from ((q["question"], q["evidence"]) for q in _json_lines(paraphrased))
        return
    for part in sorted(log.parent.glob("qa.json.*")):
        yield from ((q["Question"], q["RawLog"]) for q in _json_lines(part))


def identifier_group(question: str, evidence: str) -> str:
    """What the question has of its evidence's identifiers, which are words with a digit."""
    named, told = _identifiers(question), _identifiers(evidence)
    if named & told:
        return WHOLE
    ends = {word for word in named if word.isdigit() and len(word) >= LAST_DIGITS}
    return ENDING if any(word.endswith(tuple(ends)) for word in told) else NONE


def _identifiers(text: str) -> set[str]:
    return {word for word in words(text) if any(map(str.isdigit, word))}


def read_meetings(file: Path) -> list[Document]:
    """QMSum: one line per turn. Only questions with spans of turns, none about a whole meeting."""
    return [_meeting(f"{file.stem}-{i}", m) for i, m in enumerate(_json_lines(file))]


def _meeting(name: str, meeting: dict[str, Any]) -> Document:
    turns = [f"{t['speaker']}: {t['content']}" for t in meeting["meeting_transcripts"]]
    asked = [
        Question(
            q["query"],
            tuple((int(a), int(b)) for a, b in q["relevant_text_span"]),
            SUMMARY if q["query"].lower().startswith("summar") else OTHER,
        )
        for q in meeting["specific_query_list"]
    ]
    return Document(name, tuple(" ".join(turn.split()) for turn in turns), tuple(asked))


def _line(record: dict[str, str]) -> str:
    head = " ".join(value for key, value in record.items() if key not in NOT_OF_THE_LOG)
    return f"{head}: {record['Content']}"


def _json_lines(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json.loads(line)
