"""Following: a plain file by its name, whatever file has the name, to its end or for ever.

Goes on through rotation, truncation and replacement, and from where it was left. Knows what was
read of which text; where the texts lie is `rotation`'s.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator

from stream_app.feeding import rotation
from stream_app.feeding.checkpoints import Checkpoint
from stream_app.feeding.chunking import Chunk
from stream_app.feeding.file_types import HEAD_BYTES, detect_text
from stream_app.feeding.open_file import NotTextError, OpenFile
from stream_app.feeding.rotation import Candidate
from stream_app.feeding.source import ReadOptions, Source
from stream_app.feeding.start_offset import last_lines

FOLLOW_SECONDS = 0.2
# A file that was replaced is left when nothing came for so long: whoever writes is told to use
# the new one.
LEAVE_SECONDS = 1.0


class Tailer:
    """Reads one text after another; current is the one that has the name, or had it a moment
    ago."""

    def __init__(self, source: Source, how: ReadOptions) -> None:
        self.source, self.options, self.checkpoints = source, how, how.checkpoints
        self.path = source.path
        self.current: OpenFile | None = None
        self._left_at: float | None = None
        self._last = how.last_lines  # only of what is there at first
        self._over = self._waits = False

    async def chunks(self) -> AsyncIterator[Chunk]:
        """All there is, and what is written later if it is followed."""
        try:
            async for piece in self._unfinished():
                yield piece
            while current := self.current or await self._opened():
                read = False
                async for piece in current.read():
                    read = True
                    yield piece
                async for piece in self._next(current, read):
                    yield piece
        except NotTextError as error:
            self.options.report_error(f"{self.path}: {error}")
        finally:
            self._close()

    async def _next(self, current: OpenFile, read: bool) -> AsyncIterator[Chunk]:
        """What comes after all was read that is there."""
        if current.truncated or (self.source.follow and await self._is_left(current, read)):
            async for piece in self._leave(current):
                yield piece
        elif not self.source.follow:
            for piece in current.flush():
                yield piece
            self._close()
            self._over = True

    async def _is_left(self, current: OpenFile, read: bool) -> bool:
        """Whether another file has the name, and nothing comes any more; after a while."""
        if not current.is_replaced():
            self._left_at = None
        elif self._left_at is None or read:
            self._left_at = time.monotonic() + LEAVE_SECONDS
        elif time.monotonic() >= self._left_at:
            return True
        await asyncio.sleep(FOLLOW_SECONDS)
        return False

    async def _leave(self, current: OpenFile) -> AsyncIterator[Chunk]:
        """Finish the text, where a copy has what was cut off of it there, and read those that had
        the name since; then the file, if it was cut, is begun anew."""
        found, later = await self._trail(current.checkpoint, current.matches)
        is_own = found is not None and os.path.sameopenfile(found.fd, current.fd)
        cut = current.truncated and not is_own  # what seemed a copy may be gone
        if current.truncated and is_own:
            current.truncated = False
            rotation.close([found, *later])
            return
        file = os.dup(current.fd)
        if is_own:
            rotation.close([found])
        elif found:
            self.checkpoints.relocate(current.checkpoint, found.fd)
            current.switch_to(found.fd)
            async for piece in current.read():
                yield piece
        elif cut:
            self.checkpoints.mark_deleted(current.checkpoint)
        for piece in current.flush():
            yield piece
        self.checkpoints.finish(current.checkpoint, current.fingerprint.offset)
        self._close()
        async for piece in self._each(later, before=file):
            yield piece
        if cut:
            self._take(file, self._begin(file))
        else:
            os.close(file)

    async def _each(
        self, files: list[Candidate], before: int | None = None
    ) -> AsyncIterator[Chunk]:
        """All of these files, up to the one that is open as `before`, but for those known."""
        try:
            while files:
                path, file = files[0]
                if before is not None and os.path.sameopenfile(file, before):
                    return
                if not self.checkpoints.contains(self.source.stream, file):
                    made, again = self._begin(file), os.dup(file)
                    async for piece in self._to_end(Candidate(path, again), made):
                        yield piece
                os.close(files.pop(0).fd)
        finally:
            rotation.close(files)

    async def _to_end(self, found: Candidate, entry: Checkpoint) -> AsyncIterator[Chunk]:
        opened = OpenFile(found.path, found.fd, entry, self.options.rules)
        try:
            async for piece in opened.read():
                yield piece
            for piece in opened.flush():
                yield piece
            self.checkpoints.finish(entry, opened.fingerprint.offset)
        except NotTextError as error:
            self.checkpoints.finish(entry)
            self.options.report_error(f"{found.path}: {error}")
        finally:
            opened.close()

    async def _unfinished(self) -> AsyncIterator[Chunk]:
        """What was begun before a restart, in order, and what came after that; the last may still
        have the name."""
        entries = self.checkpoints.find(self.path, self.source.stream)
        if not entries and (self.source.follow or self.checkpoints.is_persistent):
            rotation.ignore_existing(self.path, self.source.stream, self.checkpoints)
            self.checkpoints.start_following(self.path, self.source.stream)
        for entry in entries:
            last = entry is entries[-1]
            if entry.done and not last:
                continue
            found, later = await self._trail(entry, entry.matches)
            async for piece in self._resumed(entry, found, last):
                yield piece
            if not last or self.current:
                rotation.close(later)
                continue
            async for piece in self._each(later):
                yield piece
        self._last = None if entries[1:] else self._last  # the first says that it was started

    async def _resumed(
        self, entry: Checkpoint, found: Candidate | None, last: bool
    ) -> AsyncIterator[Chunk]:
        """The rest of an entry. found: where its text is now; last: no other was begun after it."""
        is_here = found is not None and found.path == self.path
        if found is None or entry.done or (is_here and not last):
            rotation.close([found] if found else [])
            if not entry.done:
                self._lost(entry)
            return
        self.checkpoints.resume(entry, found.fd)
        if is_here:
            entry.end = None
            self._take(found.fd, entry)
            return
        self.options.notify(f"{found.path} is finished first: it was read up to byte {entry.sent}")
        async for piece in self._to_end(found, entry):
            yield piece

    def _lost(self, entry: Checkpoint) -> None:
        self.checkpoints.finish(entry, entry.sent)
        self.checkpoints.mark_deleted(entry)
        self.options.report_error(
            f"{self.path}: the file that was read up to byte {entry.sent} was cut or is gone from "
            "its folder; what stood behind that is not sent"
        )

    async def _opened(self) -> OpenFile | None:
        """The file that has the name now; it is waited for, if it is followed."""
        while not self._over:
            try:
                file = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                if not self.source.follow:
                    raise
                await self._wait()
                continue
            start, self._last = self._start(file), None
            return self._take(file, self._begin(file, start))
        return None

    async def _wait(self) -> None:
        if not self._waits:
            self.options.notify(f"{self.path} is not there: waiting for it")
        self._waits, self._last = True, None
        await asyncio.sleep(FOLLOW_SECONDS)

    def _start(self, file: int) -> int:
        """Where the last lines begin that are asked for."""
        if self._last is None:
            return 0
        text = detect_text(os.pread(file, HEAD_BYTES, 0))
        if not self._last and not self.source.follow:
            return os.fstat(file).st_size
        return max(text.bom_bytes, last_lines(file, self._last, text.encoding))

    def _begin(self, file: int, start: int = 0) -> Checkpoint:
        return self.checkpoints.add(self.path, self.source.stream, file, start)

    def _take(self, file: int, entry: Checkpoint) -> OpenFile:
        """It is the one to be read."""
        is_passed = self._is_passed if self.source.follow else None
        self.current = OpenFile(self.path, file, entry, self.options.rules, is_passed)
        return self.current

    def _is_passed(self, opened: OpenFile) -> bool:
        return rotation.is_superseded(
            opened.checkpoint, opened.matches, opened.fd, self.path, self.checkpoints
        )

    async def _trail(self, entry: Checkpoint, fits: rotation.Matches) -> rotation.Location:
        return await asyncio.to_thread(rotation.locate, entry, fits, self.path, self.checkpoints)

    def _close(self) -> None:
        if self.current:
            self.current.close()
        self.current, self._left_at = None, None
