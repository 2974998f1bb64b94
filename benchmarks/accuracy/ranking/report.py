"""Report: the rows of the retrieval benchmark as tables in Markdown, as JSON and as a plot."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.accuracy.ranking.outcomes import ALL, COMPARED, KS
from training import plots

Row = dict[str, Any]

COLUMNS = (
    "ranked by",
    *(f"@{k}" + (" (95 %)" if k == COMPARED else "") for k in KS),
    "against BM25",
    "against smoothed BM25",
    "median rank",
    f"tokens of the best {COMPARED}",
)


def write(folder: Path, rows: Sequence[Row]) -> None:
    """`retrieval.md` and `retrieval.json` in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "retrieval.md").write_text(markdown(rows), encoding="utf-8")
    (folder / "retrieval.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def markdown(rows: Sequence[Row]) -> str:
    """A table for each set, segment size and group of questions, in the order of the rows."""
    tables = [list(table) for _, table in groupby(rows, _title)]
    return "\n".join(f"**{_title(table[0])}**\n\n{_table(table)}" for table in tables)


def plot(folder: Path, rows: Sequence[Row]) -> None:
    """`retrieval.png`: the recall over k, a panel for each set and segment size."""
    panels: dict[str, dict[str, plots.Points]] = {}
    for row in rows:
        if row["group"] == ALL:
            points = [(float(k), float(row[f"evidence_recall_{k}"])) for k in KS]
            title = f"{row['set']}, {row['segment']}"
            panels.setdefault(title, {})[str(row["ranker"])] = points
    plots.lines(folder / "retrieval.png", panels, "k segments", "evidence recall")


def _title(row: Row) -> str:
    group = "" if row["group"] == ALL else f", {row['group']}"
    pool = f", {row['pool']}" if row["pool"] else ""
    questions = f"{row['questions']} question{'s' * (row['questions'] != 1)}"
    refused = f", {row['refused']} more are too long" if row["refused"] else ""
    return f"{row['set']}{group}, {questions}{refused}, segments of {row['segment']}{pool}"


def _table(rows: Sequence[Row]) -> str:
    lines = [COLUMNS, ("---",) * len(COLUMNS), *map(_cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    shares = [f"{row[f'evidence_recall_{k}']:.3f}" for k in KS]
    shares[KS.index(COMPARED)] += f" ({row['low']:.3f} to {row['high']:.3f})"
    against = [_against(row, name) for name in ("bm25", "bm25_smoothed")]
    tokens = "" if row["tokens"] is None else f"{row['tokens']:,.0f}"
    return row["ranker"], *shares, *against, f"{row['median_rank']:,.0f}", tokens


def _against(row: Row, baseline: str) -> str:
    """The difference, its interval and its p value."""
    if row[f"p_{baseline}"] is None:
        return ""
    low, high = row[f"vs_{baseline}_low"], row[f"vs_{baseline}_high"]
    return f"{row[f'vs_{baseline}']:+.3f} ({low:+.3f} to {high:+.3f}), p {row[f'p_{baseline}']:.4f}"
