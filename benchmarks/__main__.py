"""`python -m benchmarks [NAME ...] [options]`: runs the given benchmarks, or all of them.

Each prints a table and then one line of JSON; plots are written to a folder. A last table repeats
the ratios of all benchmarks. "retrieval" and "answers" run by default only if --data names texts to
read.
"""

import argparse
import json
from typing import Any

from benchmarks.accuracy import answers, certainty, late, needle, peers, retrieval
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
    "answers": answers,
    "late": late,
    "load": suite,
    "twenty_million": twenty_million,
}

EVERY: dict[str, dict[str, Any]] = {
    "--model": {"help": "a folder or a hub id; default: the bundled model; ignored by gpu"},
    "--short": {
        "action": "store_true",
        "help": "smaller sizes, --tokens is ignored; ignored by questions",
    },
    "--seed": {
        "type": int,
        "default": 0,
        "help": "of generated text; ignored by scoring, query, growth, gpu, retrieval, answers, "
        "load",
    },
    "--out": {
        "default": "bench-out",
        "help": "folder for plots, samples; ignored by scoring, stream, query, gpu, late, answers",
    },
}


def main() -> None:
    """Run the benchmarks and print their tables."""
    chosen = parser().parse_args()
    configure_malloc()  # as every command does
    default = [name for name in ALL if name not in ("retrieval", "answers") or chosen.data]
    ratios = list[dict[str, Any]]()
    for name in chosen.names or default:
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
    """The options of all benchmarks; those of a single one are grouped under its name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = f"default: all of {', '.join(ALL)}"
    parser.add_argument(
        "names", nargs="*", choices=[*ALL, []], metavar="NAME", default=[], help=names
    )
    for option, arguments in EVERY.items():
        parser.add_argument(option, **arguments)
    generated = parser.add_argument_group("needle, peers, late")
    generated.add_argument(
        "--variants", nargs="+", choices=VARIANTS, help="of needles; default: all"
    )
    generated.add_argument(
        "--lengths", nargs="+", type=int, help="of the generated texts, in tokens"
    )
    generated.add_argument("--texts", type=int, help="of each variant and length")
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
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    main()
