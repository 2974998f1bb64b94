"""Real texts with annotated evidence: LogQA's logs and QMSum's meetings, read from a local folder.

A text is a list of lines; a question's evidence is spans of them.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

NOT_OF_THE_LOG = ("LineId", "EventId", "EventTemplate", "Content")

Span = tuple[int, int]
"""First and last line, both included."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and the lines of the text that answer it."""

    text: str
    evidence: tuple[Span, ...]


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


def load(folder: Path) -> dict[str, list[Document]]:
    """Every set below the folder by its name, such as logqa/HDFS or qmsum/val."""
    logs = sorted(folder.glob("logqa/*/*_structured.csv"))
    sets = {f"logqa/{log.parent.name}": [read_log(log)] for log in logs}
    for file in sorted(folder.glob("qmsum/*.jsonl")):
        sets[f"qmsum/{file.stem}"] = read_meetings(file)
    return sets


def read_log(log: Path) -> Document:
    """LogQA: a log as a table, with the questions of all its parts in files beside it."""
    with log.open(newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    lines = tuple(_line(record) for record in records)
    places: dict[str, list[Span]] = {}
    for i, record in enumerate(records):
        places.setdefault(record["Content"], []).append((i, i))
    questions = [q for part in sorted(log.parent.glob("qa.json.*")) for q in _json_lines(part)]
    asked = [Question(q["Question"], tuple(places.get(q["RawLog"], ()))) for q in questions]
    return Document(log.parent.name, lines, tuple(a for a in asked if a.evidence))


def read_meetings(file: Path) -> list[Document]:
    """QMSum: one line per turn. Only questions with spans of turns, none about a whole meeting."""
    return [_meeting(f"{file.stem}-{i}", m) for i, m in enumerate(_json_lines(file))]


def _meeting(name: str, meeting: dict[str, Any]) -> Document:
    turns = [f"{t['speaker']}: {t['content']}" for t in meeting["meeting_transcripts"]]
    asked = [
        Question(q["query"], tuple((int(a), int(b)) for a, b in q["relevant_text_span"]))
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
