"""Display: how answers, segments, a running top-k and progress are printed."""

import difflib
from bisect import bisect
from collections.abc import Mapping, Sequence
from typing import Any

from stream_app.cli.output import echo
from stream_app.runtime.escape import escape, escape_name, one_line
from stream_app.settings import MAX_DEADLINE

WIDTH = 100
PARTITIONS = 4
"""The number of offsets shown on a line; the rest is only counted."""
NAMES = 5
COMPARED = 1000
"""Names compared for similarity: the neighbours in sorted order, since comparing all is slow."""


def show_answer(
    answer: Mapping[str, Any], deadline: float | None = None, seconds: float | None = None
) -> None:
    """Print what the (already printed) answer rests on.

    deadline: the query's, in seconds; seconds: the total time the user waited.
    """
    if "error" in answer:
        echo(f"no answer: {answer['error']}", err=True)
        return
    echo(
        f"\n\n  certainty {answer['certainty']:.3f} nats   coverage {answer['coverage']:.1%}"
        f"   as of {positions(answer['as_of'])}"
    )
    if answer.get("grounded") is False:
        echo("  not found in the evidence: the answer's words do not occur there")
    for evidence in answer["evidence"]:
        show_segment(evidence)
    steps = [f"{step} {spent:.3f} s" for step, spent in answer["timings"].items()]
    steps += [] if seconds is None else [f"total {seconds:.3f} s"]
    echo(f"  {'   '.join(steps)}")
    if deadline is not None and (missing := coverage_hint(answer, deadline)):
        echo(f"  {missing}")


def positions(as_of: Mapping[str, int]) -> str:
    """The next offset to be read of each partition."""
    if not as_of:
        return "the end"
    each = [f"{partition} at {offset}" for partition, offset in sorted(as_of.items())]
    more = [f"{len(each) - PARTITIONS} more"] if len(each) > PARTITIONS else []
    return ", ".join(each[:PARTITIONS] + more)


def coverage_hint(answer: Mapping[str, Any], deadline: float) -> str:
    """What to do about a coverage below 1; empty if it is 1."""
    if answer["coverage"] >= 1:
        return ""
    message = f"answered from {_share(answer['coverage'])} of the stream"
    if answer["timings"].get("cover", 0.0) < deadline:  # not for lack of time
        return f"{message}: retention deleted the rest before it was scored"
    longer = min(max(60.0, 2 * deadline), MAX_DEADLINE)
    more = f", or with --deadline {longer:.0f}" if longer > deadline else ""
    return f"{message}: ask again{more}"


def show_segment(segment: Mapping[str, Any]) -> None:
    """Print one line: index, score, and as much of the text as fits."""
    text = " | ".join(escape(segment["text"]).split("\n")).strip(" |")
    short = text if len(text) <= WIDTH else text[: WIDTH - 1] + "…"
    echo(f"  #{segment['index']:<7} {segment['score']:8.3f}  {short}")


def show_top(top: Mapping[str, Any]) -> None:
    """Print the running top-k."""
    lo, hi = top["range"]
    what = f"{escape_name(top['stream'])}: {one_line(top['question'])}"
    echo(f"{what}   scored [{lo}, {hi}) of {top['segments']}")
    for segment in top["top"]:
        show_segment(segment)


def show_stream(stream: Mapping[str, Any]) -> None:
    """Print a stream in one line, with its questions; with `bytes` if they are known."""
    questions = "; ".join(f"{q['question']} ({q['coverage']:.0%})" for q in stream["questions"])
    memory = f", {stream['bytes'] / 1024:.0f} KiB" if "bytes" in stream else ""
    echo(
        f"{escape_name(stream['stream'])}   {stream['segments']} segments, {stream['retained']} "
        f"retained, {stream['tail']} characters not yet in a segment, {stream['gaps']} missing"
        f"{memory}   {one_line(questions)}"
    )


def progress(scored: int, segments: int, seconds: float) -> str:
    """How much of a stream is scored for a question."""
    share = _share(scored / max(1, segments))
    return f"scored {share} for this question: {scored} of {segments} segments, {seconds:.0f} s"


def early_answer(revision: Mapping[str, Any]) -> str:
    """A revision in one line."""
    share = _share(revision.get("coverage") or 0.0)
    return f"so far, from {share} of the stream: {one_line(str(revision.get('answer', '')))}"


def known_names(names: Sequence[str], wanted: str) -> str:
    """A few of the sorted names, those most similar to the wanted one first."""
    if not names:
        return "there are no streams yet"
    at = bisect(names, wanted)
    near = names[max(0, at - COMPARED // 2) : at + COMPARED // 2]
    similar = difflib.get_close_matches(wanted, near, NAMES, cutoff=0.5)
    shown = (similar + [name for name in names if name not in similar])[:NAMES]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"known streams: {', '.join(map(escape_name, shown))}{more}"


def _share(part: float) -> str:
    """In percent; 100 % only if nothing is missing."""
    return f"{min(part, 0.99):.0%}" if part < 1 else "100%"
