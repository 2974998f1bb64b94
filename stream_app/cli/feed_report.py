"""Feed report: progress and summary that `xl3m feed` prints."""

import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from tqdm import tqdm

from stream_app.cli.output import echo
from stream_app.feeding.encoder import FeedCounts
from stream_app.runtime.escape import one_line
from stream_app.settings.variables import variable


class Progress:
    """A progress bar with bytes per second on a terminal, and messages above it.

    left_out: whether input was skipped that should have been sent.
    """

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
        """Count more sent bytes."""
        self.bytes += count
        self._bar.update(count)

    def notify(self, text: str) -> None:
        """Print a message for the user."""
        with self._bar.external_write_mode():
            echo(one_line(f"xl3m: {text}"), err=True)

    def report_error(self, text: str) -> None:
        """Print what was not sent; `left_out` becomes true."""
        self.left_out = True
        self.notify(text)

    def summarise(self, counts: dict[str, FeedCounts]) -> None:
        """Print one line per stream, and a total."""
        self._bar.close()
        for stream, stream_counts in counts.items():
            echo(one_line(f"{stream}: {'; '.join(_parts(stream_counts))}"), err=True)
        seconds = max(time.monotonic() - self._started, 1e-3)
        rate = _size(self.bytes / seconds)
        echo(f"fed {_size(self.bytes)} in {seconds:.1f} s ({rate}/s)", err=True)


def _parts(stream_counts: FeedCounts) -> Iterable[str]:
    size, events = _count(stream_counts.bytes, "byte"), _count(stream_counts.events, "event")
    yield f"{_count(stream_counts.records, 'line')}, {size} in {events}"
    first = f"the first at byte {stream_counts.undecodable_at:,}"
    hint = f"{variable('encoding')}=replace sends %s with U+FFFD"
    if count := stream_counts.undecodable:
        letters = "a dead letter" if count == 1 else "dead letters"
        yield f"{_not_text(count)}, {first}: {letters}; {hint % _them(count)}"
    if count := stream_counts.left_out:
        was = "was" if count == 1 else "were"
        yield f"{_not_text(count)}, {first}, and {was} skipped: {hint % _them(count)}"
    if count := stream_counts.replaced:
        have = "has" if count == 1 else "have"
        yield f"{_not_text(count)}, {first}, and {have} U+FFFD in {_them(count)}"
    if stream_counts.not_json:
        yield f"{_count(stream_counts.not_json, 'record')} {_are(stream_counts.not_json)} not JSON"


def _not_text(lines: int) -> str:
    return f"{_count(lines, 'line')} {_are(lines)} not text"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _them(count: int) -> str:
    return "it" if count == 1 else "them"


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
