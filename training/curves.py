"""Plots a training log: loss, accuracy and the step of the curriculum over the training steps.

Several logs are concatenated, as a resumed training wrote them.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from training import plots

COLUMNS = {"level": 1, "loss": 2, "accuracy": 3}


def read(logs: list[Path]) -> list[list[float]]:
    """Rows of step, level, loss, accuracy and minutes; a resumed run starts where it was saved."""
    rows = list[list[float]]()
    for log in logs:
        with log.open(newline="") as file:
            new = [[float(cell) for cell in row] for row in csv.reader(file)]
        rows = [row for row in rows if not new or row[0] < new[0][0]] + new
    return rows


def main() -> None:
    """Writes the PNG, and the rows as one CSV beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("logs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("training.png"))
    args = parser.parse_args()
    rows = read(args.logs)
    panels = {
        name: {name: [(row[0], row[column]) for row in rows]} for name, column in COLUMNS.items()
    }
    plots.lines(args.out, panels, "step", "")
    with args.out.with_suffix(".csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", *COLUMNS, "minutes"), *rows])


if __name__ == "__main__":
    main()
