"""Report: what `feed` tells a person while it feeds, and at the end.

Knows counts and the terminal; feeds nothing.
"""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from stream_app.feeding.forms import Counts
from stream_app.terminal import in_line, say
from stream_app.variables import variable


class Progress:
    """A bar with bytes a second, where somebody looks; and lines that go above it. left_out:
    something was, that should not have been."""

    def __init__(self, total: int | None) -> None:
        self.left_out = False
        self.bytes = 0
        self._started = time.monotonic()
        self._bar = tqdm(total=total, unit="B", unit_scale=True, desc="fed", disable=None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, count: int) -> None:
        """So many bytes more."""
        self.bytes += count
        self._bar.update(count)

    def say(self, text: str) -> None:
        """What a person should know."""
        with self._bar.external_write_mode():
            say(in_line(f"xl3m: {text}"), err=True)

    def complain(self, text: str) -> None:
        """What was not fed."""
        self.left_out = True
        self.say(text)

    def summarise(self, counts: dict[str, Counts]) -> None:
        """A line a stream, and one of all."""
        self._bar.close()
        for stream, each in counts.items():
            say(in_line(f"{stream}: {'; '.join(_parts(each))}"), err=True)
        seconds = max(time.monotonic() - self._started, 1e-3)
        rate = _size(self.bytes / seconds)
        say(f"fed {_size(self.bytes)} in {seconds:.1f} s ({rate}/s)", err=True)


def _parts(each: Counts) -> Iterable[str]:
    yield f"{each.records:,} lines, {each.bytes:,} bytes in {each.events:,} events"
    first = f"the first at byte {each.undecodable_at:,}"
    hint = f"{variable('encoding')}=replace sends them with U+FFFD"
    if each.undecodable:
        yield f"{each.undecodable:,} lines are not text, {first}: dead letters; {hint}"
    if each.left_out:
        yield f"{each.left_out:,} lines are not text, {first}, and were left out: {hint}"
    if each.replaced:
        yield f"{each.replaced:,} lines are not text, {first}, and have U+FFFD in them"
    if each.not_json:
        yield f"{each.not_json:,} records are not JSON"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
