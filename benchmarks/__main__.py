"""`python -m benchmarks [NAME ...] [options]`: runs the benchmarks named, or all.

Each prints a table and then one line of JSON; plots go to a folder. "retrieval" is among all
where --data names texts to read. Knows names and options only.
"""

import argparse
import json
from typing import Any

from benchmarks import (
    certainty,
    late,
    length,
    needle,
    peers,
    query,
    questions,
    retrieval,
    scoring,
    stream,
    twenty_million,
)
from benchmarks.haystack import VARIANTS

ALL: dict[str, Any] = {
    "scoring": scoring,
    "questions": questions,
    "stream": stream,
    "query": query,
    "length": length,
    "certainty": certainty,
    "needle": needle,
    "peers": peers,
    "retrieval": retrieval,
    "late": late,
    "twenty_million": twenty_million,
}


def main() -> None:
    """Run and print."""
    chosen = parser().parse_args()
    asked_for = [name for name in ALL if name != "retrieval" or chosen.data]
    for name in chosen.names or asked_for:
        show(name, ALL[name].measure(chosen))


def parser() -> argparse.ArgumentParser:
    """The options of all benchmarks; those that one alone takes are grouped under its name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ALL, []], metavar="NAME", default=[])
    parser.add_argument("--model", help="a folder or a hub id; by default the small model")
    parser.add_argument("--short", action="store_true", help="each in under three minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="bench-out", help="folder for plots and samples")
    made = parser.add_argument_group("needle, peers")
    made.add_argument("--variants", nargs="+", choices=VARIANTS, help="default: all")
    made.add_argument("--lengths", nargs="+", type=int, help="tokens of a made-up text")
    made.add_argument("--texts", type=int, help="how many of each kind")
    for name, module in ALL.items():
        if hasattr(module, "add_arguments"):
            module.add_arguments(parser.add_argument_group(name))
    return parser


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """The rows as a table, and as one line of JSON."""
    print(f"\n{name}")
    if not rows:
        return
    print("  ".join(f"{column:>18}" for column in rows[0]))
    for row in rows:
        print("  ".join(f"{_short(value):>18}" for value in row.values()))
    print(json.dumps({"benchmark": name, "rows": rows}))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
