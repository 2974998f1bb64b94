"""Reader: a file, from its beginning or from where it was left, to its end or for ever.

Goes on through rotation, truncation and replacement, and reads once what is packed or piped.
Knows files and what was read of them; no Kafka.
"""

import asyncio
import os
import stat
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from stream_app.feeding import rotation
from stream_app.feeding.compressed import ArchiveError
from stream_app.feeding.contents import STANDARD_INPUT, in_thread, kind, piped, unpacked
from stream_app.feeding.kinds import HEAD_BYTES, text_of
from stream_app.feeding.opened import NotTextError, Opened
from stream_app.feeding.pieces import Piece, Splitter, last_line_end
from stream_app.feeding.positions import Book, Entry

FOLLOW_SECONDS = 0.2
# A file that was replaced is left when nothing came for so long: whoever writes is told to use
# the new one.
LEAVE_SECONDS = 1.0
_BACK_BYTES = 65_536


class Source(NamedTuple):
    """A file and the stream that it goes into."""

    path: Path
    stream: str
    follow: bool = False


def _ignore(_: str) -> None:
    pass


@dataclass(frozen=True)
class How:
    """last: so many lines of what is there are read, None for all. say: told what a person should
    know; complain: what was not read."""

    book: Book = field(default_factory=Book)
    last: int | None = None
    longest: int = 0
    say: Callable[[str], None] = _ignore
    complain: Callable[[str], None] = _ignore


async def read(source: Source, how: How) -> AsyncIterator[Piece]:
    """The pieces of a source, in order."""
    path = source.path
    if is_piped(path):
        content = piped(path, source.follow and str(path) != STANDARD_INPUT)
        pieces = _split(source, how, content, None)
    elif _is_packed(path):
        if source.follow:
            how.say(f"{path} is packed: it is read once, and not followed")
        pieces = _packed(source, how)
    else:
        pieces = Following(source, how).pieces()
    async for piece in pieces:
        yield piece


async def read_file(path: Path, follow: bool = False) -> AsyncIterator[str]:
    """A file's text in chunks of whole records; `-` is standard input. What is not text is
    U+FFFD. follow: and what is written to it later, for ever."""
    async for piece in read(Source(path, path.name, follow), How()):
        yield piece.text()


def is_piped(path: Path) -> bool:
    """Whether it can only be read as it comes."""
    if str(path) == STANDARD_INPUT:
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _is_packed(path: Path) -> bool:
    try:
        return kind(path).packed
    except FileNotFoundError:
        return False
    except ArchiveError:
        return True


async def _packed(source: Source, how: How) -> AsyncIterator[Piece]:
    """An archive or a transcript; a restart leaves out what was sent of it."""
    with source.path.open("rb") as file:
        entry = _archive_entry(source, how.book, file.fileno())
    if entry is None:
        return
    end = 0
    async for piece in _split(source, how, in_thread(unpacked(source.path)), entry):
        end = piece.end
        if piece.end > entry.sent:
            yield piece.part(max(0, entry.sent - piece.start), len(piece.raw))
    how.book.finish(entry, end)


def _archive_entry(source: Source, book: Book, file: int) -> Entry | None:
    """The entry of the open file; None if all of it was sent."""
    for entry in book.entries.values():
        if entry.archive and entry.stream == source.stream and entry.fits(file):
            book.resume(entry, file)
            return None if entry.done else entry
    return book.begin(source.path, source.stream, file, 0, archive=True)


async def _split(
    source: Source, how: How, content: AsyncIterator[bytes], entry: Entry | None
) -> AsyncIterator[Piece]:
    """The pieces of a stream of bytes, or of its last lines; what goes wrong is said at the end."""
    pieces = _pieces_of(source, how, content, entry)
    if how.last is None:
        async for piece in pieces:
            yield piece
        return
    lines = deque[Piece](maxlen=how.last)
    async for piece in pieces:
        lines.extend(piece.lines())
    for line in lines:
        yield line


async def _pieces_of(
    source: Source, how: How, content: AsyncIterator[bytes], entry: Entry | None
) -> AsyncIterator[Piece]:
    splitter: Splitter | None = None
    try:
        async for data in content:
            if splitter is None:
                text = text_of(data)
                splitter = Splitter(text.mark_bytes, text.encoding, entry, how.longest)
                data = data[text.mark_bytes :]
            for piece in splitter.push(data):
                yield piece
    except ArchiveError as error:
        how.complain(f"{source.path}: {error}; what could be read is sent")
    for piece in splitter.end() if splitter else ():
        yield piece


class Following:
    """A plain file by its name, whatever file has the name."""

    def __init__(self, source: Source, how: How) -> None:
        self.source, self.how, self.book = source, how, how.book
        self.path = source.path
        self.current: Opened | None = None
        self._left_at: float | None = None
        self._last = how.last  # only of what is there at first
        self._over = self._waits = False

    async def pieces(self) -> AsyncIterator[Piece]:
        """All there is, and what is written later if it is followed."""
        try:
            async for piece in self._unfinished():
                yield piece
            while self.current or await self._opens():
                assert self.current is not None
                read = False
                async for piece in self.current.read():
                    read = True
                    yield piece
                async for piece in self._next(read):
                    yield piece
        except NotTextError as error:
            self.how.complain(f"{self.path}: {error}")
        finally:
            if self.current:
                self.current.close()

    async def _next(self, read: bool) -> AsyncIterator[Piece]:
        """What comes after all was read that is there."""
        current = self.current
        assert current is not None
        if current.cut:
            async for piece in self._after_cut(current):
                yield piece
        elif not self.source.follow:
            for piece in current.end():
                yield piece
            self._close()
        elif not current.is_replaced():
            self._left_at = None
            await asyncio.sleep(FOLLOW_SECONDS)
        elif self._left_at is None or read:
            self._left_at = time.monotonic() + LEAVE_SECONDS
            await asyncio.sleep(FOLLOW_SECONDS)
        elif time.monotonic() < self._left_at:
            await asyncio.sleep(FOLLOW_SECONDS)
        else:
            async for piece in self._after_replacement(current):
                yield piece

    def _close(self) -> None:
        if self.current:
            self.current.close()
        self.current, self._left_at = None, None
        self._over = not self.source.follow

    async def _opens(self) -> bool:
        """Open the file that has the name now; wait for it, if it is followed."""
        while not self._over:
            try:
                file = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                if not self.source.follow:
                    raise
                await self._wait()
                continue
            start, self._last = self._start(file), None
            self._take(file, self.book.begin(self.path, self.source.stream, file, start))
            return True
        return False

    async def _wait(self) -> None:
        if not self._waits:
            self.how.say(f"{self.path} is not there: waiting for it")
        self._waits, self._last = True, None
        await asyncio.sleep(FOLLOW_SECONDS)

    def _start(self, file: int) -> int:
        """Where the last lines begin that are asked for."""
        if self._last is None:
            return 0
        text = text_of(os.pread(file, HEAD_BYTES, 0))
        if not self._last and not self.source.follow:
            return os.fstat(file).st_size
        return max(text.mark_bytes, last_lines(file, self._last, text.encoding))

    def _take(self, file: int, entry: Entry, cut: bool = False) -> None:
        """It is the one to be read. cut: it was, a moment ago."""
        longest, grows = self.how.longest, self.source.follow
        self.current = Opened(self.path, file, entry, longest, grows, after_cut=cut)

    async def _after_cut(self, current: Opened) -> AsyncIterator[Piece]:
        """Finish what was cut off, as far as a copy has it, and begin at the front again."""
        file = os.dup(current.file)
        copies = rotation.open_copy(current.marks, current.entry, self.path, self.book)
        if copies:
            current.go_on_in(copies[0].file)
            known = self.book.begin(copies[0].path, self.source.stream, current.file, 0)
            self.book.finish(known, 0)
            async for piece in current.read():
                yield piece
        for piece in current.end():
            yield piece
        self.book.finish(current.entry, current.marks.offset)
        current.close()
        async for piece in self._each(copies[1:], file):
            yield piece
        self._take(file, self.book.begin(self.path, self.source.stream, file, 0), cut=True)

    async def _after_replacement(self, current: Opened) -> AsyncIterator[Piece]:
        """Finish the old file, and those that had the name since then."""
        for piece in current.end():
            yield piece
        self.book.finish(current.entry, current.marks.offset)
        entry = current.entry
        self._close()
        async for piece in self._between(entry):
            yield piece

    async def _between(self, entry: Entry) -> AsyncIterator[Piece]:
        """Files that had the name after that of the entry, and have it no more."""
        async for piece in self._each(rotation.open_later(entry, self.path)):
            yield piece

    async def _each(
        self, files: list[rotation.File], before: int | None = None
    ) -> AsyncIterator[Piece]:
        """All of these files, up to the one that is open as `before`, but for those known."""
        passed = False
        for path, file in files:
            passed = passed or (before is not None and os.path.sameopenfile(file, before))
            if passed or self.book.knows(os.fstat(file), file):
                os.close(file)
                continue
            made = self.book.begin(self.path, self.source.stream, file, 0)
            async for piece in self._to_end(path, file, made):
                yield piece

    async def _to_end(self, path: Path, file: int, entry: Entry) -> AsyncIterator[Piece]:
        opened = Opened(path, file, entry, self.how.longest, grows=False)
        try:
            async for piece in opened.read():
                yield piece
            for piece in opened.end():
                yield piece
            self.book.finish(entry, opened.marks.offset)
        except NotTextError as error:
            self.how.complain(f"{path}: {error}")
        finally:
            opened.close()

    async def _unfinished(self) -> AsyncIterator[Piece]:
        """What was begun before a restart, the oldest first; the last may still have the name."""
        entries = self.book.of(self.path, self.source.stream)
        for entry in entries:
            found = None if entry.done else rotation.open_found(entry, self.path)
            if found is None:
                if not entry.done:
                    self._lost(entry)
                continue
            self.book.resume(entry, found.file)
            if found.path == self.path:
                entry.end = None
                self._take(found.file, entry)
                return
            self.how.say(f"{found.path} is finished first: it was read up to byte {entry.sent}")
            async for piece in self._to_end(*found, entry):
                yield piece
        if entries:
            self._last = None
            async for piece in self._between(entries[-1]):
                yield piece

    def _lost(self, entry: Entry) -> None:
        self.book.finish(entry, entry.sent)
        self.how.complain(
            f"{self.path}: the file that was read up to byte {entry.sent} was cut or is gone from "
            "its folder; what stood behind that is not sent"
        )


def last_lines(file: int, count: int, encoding: str) -> int:
    """Where the last `count` lines of a file begin; a last one without an end counts. None of
    them: where the line begins that somebody is writing."""
    size, width = os.fstat(file).st_size, len("\n".encode(encoding))
    at = end = size - size % width
    wanted = count + 1 if _ends_a_line(file, end, encoding) else max(count, 1)
    while at > 0:
        start = max(0, at - _BACK_BYTES)
        block = os.pread(file, at - start, start)
        place = len(block)
        while found := last_line_end(block, encoding, place):
            wanted -= 1
            if not wanted:
                return start + found
            place = found - 1
        at = start
    return 0


def _ends_a_line(file: int, end: int, encoding: str) -> bool:
    newline = "\n".encode(encoding)
    return os.pread(file, len(newline), max(0, end - len(newline))) == newline
