"""`python -m benchmarks [NAME ...] [options]`: runs the benchmarks named, or all.

Each prints a table and then one line of JSON; plots go to a folder. What of all that is a ratio
stands in one more table at the end. "retrieval" is among all where --data names texts to read.
Knows names and options only.
"""

import argparse
import json
from typing import Any

from benchmarks.accuracy import certainty, late, needle, peers, retrieval
from benchmarks.harness.haystack import VARIANTS
from benchmarks.load import suite
from benchmarks.speed import gpu, growth, query, questions, scoring, stream, twenty_million
from stream_app.runtime.malloc import configure_malloc

ALL: dict[str, Any] = {
    "scoring": scoring,
    "questions": questions,
    "stream": stream,
    "query": query,
    "growth": growth,
    "gpu": gpu,
    "certainty": certainty,
    "needle": needle,
    "peers": peers,
    "retrieval": retrieval,
    "late": late,
    "load": suite,
    "twenty_million": twenty_million,
}

EVERY: dict[str, dict[str, Any]] = {
    "--model": {"help": "a folder or a hub id; default: the small model; without effect on gpu"},
    "--short": {
        "action": "store_true",
        "help": "smaller sizes, and --tokens goes unheard; without effect on questions",
    },
    "--seed": {
        "type": int,
        "default": 0,
        "help": "of made-up text; without effect on scoring, query, growth, gpu, retrieval, load",
    },
    "--out": {
        "default": "bench-out",
        "help": "folder for plots and samples; without effect on scoring, stream, query, gpu, late",
    },
}


def main() -> None:
    """Run and print."""
    chosen = parser().parse_args()
    configure_malloc()  # as every command does
    asked_for = [name for name in ALL if name != "retrieval" or chosen.data]
    ratios = list[dict[str, Any]]()
    for name in chosen.names or asked_for:
        rows = ALL[name].measure(chosen)
        if not rows:
            continue
        table(name, rows)
        print(json.dumps({"benchmark": name, "rows": rows}))
        if hasattr(ALL[name], "ratios"):
            ratios += [{"benchmark": name, **r._asdict()} for r in ALL[name].ratios(rows)]
    if ratios:
        table("ratios", ratios)


def parser() -> argparse.ArgumentParser:
    """The options of all benchmarks; those that one alone takes are grouped under its name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = f"default: all of {', '.join(ALL)}"
    parser.add_argument(
        "names", nargs="*", choices=[*ALL, []], metavar="NAME", default=[], help=names
    )
    for option, told in EVERY.items():
        parser.add_argument(option, **told)
    made = parser.add_argument_group("needle, peers, late")
    made.add_argument("--variants", nargs="+", choices=VARIANTS, help="of needles; default: all")
    made.add_argument("--lengths", nargs="+", type=int, help="of the made-up texts, in tokens")
    made.add_argument("--texts", type=int, help="of each variant and length")
    for name, module in ALL.items():
        if hasattr(module, "add_arguments"):
            module.add_arguments(parser.add_argument_group(name))
    return parser


def table(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows under their columns' names."""
    print(f"\n{name}")
    cells = [[*rows[0]], *([*map(_short, row.values())] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
