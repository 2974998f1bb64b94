"""`python -m benchmarks [NAME ...] [--model M]`: runs the benchmarks named, or all of them.

Each prints a table and then one line of JSON. Knows their names only.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

from benchmarks import length, scoring

ALL: dict[str, Callable[[str | None], list[dict[str, Any]]]] = {
    "scoring": scoring.measure,
    "length": length.measure,
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ALL, []], metavar="NAME", default=[])
    parser.add_argument("--model", help="a folder or a hub id; by default the small model")
    chosen = parser.parse_args()
    for name in chosen.names or ALL:
        rows = ALL[name](chosen.model)
        show(name, rows)


def show(name: str, rows: list[dict[str, Any]]) -> None:
    """The rows as a table, and as one line of JSON."""
    print(f"\n{name}")
    print("  ".join(f"{column:>18}" for column in rows[0]))
    for row in rows:
        print("  ".join(f"{_short(value):>18}" for value in row.values()))
    print(json.dumps({"benchmark": name, "rows": rows}))


def _short(value: Any) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    main()
