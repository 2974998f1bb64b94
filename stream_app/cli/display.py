"""Display: what commands print for people of answers, segments, a running top-k and progress.

Knows how these look as plain data; not where they come from.
"""

import difflib
from bisect import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from stream_app.cli.output import echo
from stream_app.runtime.escape import escape, escape_name, one_line
from stream_app.settings import MAX_DEADLINE

WIDTH = 100
PARTITIONS = 4
"""So many offsets stand in a line; the rest are counted."""
NAMES = 5
COMPARED = 1000
"""Names, those next to it in order: to compare all takes too long where there are very many."""


def show_answer(
    answer: Mapping[str, Any], deadline: float | None = None, seconds: float | None = None
) -> None:
    """What the answer, already printed, rests on. deadline: the query's; seconds: how long the
    asker waited in all."""
    if "error" in answer:
        echo(f"no answer: {answer['error']}", err=True)
        return
    echo(
        f"\n\n  certainty {answer['certainty']:.3f} nats   coverage {answer['coverage']:.1%}"
        f"   as of {positions(answer['as_of'])}"
    )
    if answer.get("grounded") is False:
        echo("  not found in the evidence: the answer's words do not stand in it")
    for evidence in answer["evidence"]:
        show_segment(evidence)
    steps = [f"{step} {spent:.3f} s" for step, spent in answer["timings"].items()]
    steps += [] if seconds is None else [f"in all {seconds:.3f} s"]
    echo(f"  {'   '.join(steps)}")
    if deadline is not None and (missing := what_is_missing(answer, deadline)):
        echo(f"  {missing}")


def positions(as_of: Mapping[str, int]) -> str:
    """The first offset not yet seen of each partition, as a person reads it."""
    if not as_of:
        return "the end"
    each = [f"{partition} at {offset}" for partition, offset in sorted(as_of.items())]
    more = [f"{len(each) - PARTITIONS} more"] if len(each) > PARTITIONS else []
    return ", ".join(each[:PARTITIONS] + more)


def what_is_missing(answer: Mapping[str, Any], deadline: float) -> str:
    """What the asker may do about a coverage below 1; nothing if it is 1."""
    if answer["coverage"] >= 1:
        return ""
    said = f"answered from {_share(answer['coverage'])} of the stream"
    if answer["timings"].get("cover", 0.0) < deadline:  # it was not for lack of time
        return f"{said}: the rest was trimmed from its log before it could be scored"
    longer = min(max(60.0, 2 * deadline), MAX_DEADLINE)
    more = f", or with --deadline {longer:.0f}" if longer > deadline else ""
    return f"{said}: ask again{more}"


def show_segment(segment: Mapping[str, Any]) -> None:
    """One line: index, certainty, and as much of the text as fits."""
    text = " | ".join(escape(segment["text"]).split("\n")).strip(" |")
    short = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    echo(f"  #{segment['index']:<7} {segment['score']:8.3f}  {short}")


def show_top(seen: Mapping[str, Any]) -> None:
    """The running top-k."""
    lo, hi = seen["range"]
    what = f"{escape_name(seen['stream'])}: {one_line(seen['question'])}"
    echo(f"{what}   scored [{lo}, {hi}) of {seen['segments']}")
    for segment in seen["top"]:
        show_segment(segment)


def show_stream(known: Mapping[str, Any]) -> None:
    """A stream in one line, its questions behind it; `bytes` only if they were asked for."""
    asked = "; ".join(f"{q['question']} ({q['coverage']:.0%})" for q in known["questions"])
    taken = f", {known['bytes'] / 1024:.0f} KiB" if "bytes" in known else ""
    echo(
        f"{escape_name(known['stream'])}   {known['segments']} segments, {known['retained']} "
        f"retained, {known['tail']} characters behind them, {known['gaps']} missing{taken}   "
        f"{one_line(asked)}"
    )


def progress(scored: int, segments: int, seconds: float) -> str:
    """How much of a stream is read for a question."""
    share = _share(scored / max(1, segments))
    return f"read {share} for this question: {scored} of {segments} segments, {seconds:.0f} s"


def known_names(names: Sequence[str], wanted: str) -> str:
    """A few of the names, which are sorted, those most like the wanted one first."""
    if not names:
        return "no stream is known yet"
    at = bisect(names, wanted)
    near = names[max(0, at - COMPARED // 2) : at + COMPARED // 2]
    like = difflib.get_close_matches(wanted, near, NAMES, cutoff=0.5)
    some = (like + [name for name in names if name not in like])[:NAMES]
    more = f" and {len(names) - len(some)} more" if len(names) > len(some) else ""
    return f"known are {', '.join(map(escape_name, some))}{more}"


def _share(part: float) -> str:
    """In percent; only all of it is 100 %."""
    return f"{min(part, 0.99):.0%}" if part < 1 else "100%"
