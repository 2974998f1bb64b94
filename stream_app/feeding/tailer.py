"""Tailer: reads a plain file by its path, to the end or for ever (`tail -F`).

Continues through rotation, truncation and replacement, and from its checkpoint after a restart.
Where rotated texts are is found by `rotation`.
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
# A replaced file is left after this long without new data: its writer has been told to reopen.
LEAVE_SECONDS = 1.0


class Tailer:
    """Reads one text after another. current: the file that has the path, or had it until now."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        self.source, self.options, self.checkpoints = source, options, options.checkpoints
        self.path = source.path
        self.current: OpenFile | None = None
        self._left_at: float | None = None
        self._last_lines = options.last_lines  # applies only to the file that exists at the start
        self._finished = self._waiting = False

    async def chunks(self) -> AsyncIterator[Chunk]:
        """All content, and what is appended later if the source is followed."""
        try:
            async for chunk in self._resume():
                yield chunk
            while current := self.current or await self._open():
                read = False
                async for chunk in current.read():
                    read = True
                    yield chunk
                async for chunk in self._next(current, read):
                    yield chunk
        except NotTextError as error:
            self.options.report_error(f"{self.path}: {error}")
        finally:
            self._close()

    async def _next(self, current: OpenFile, read: bool) -> AsyncIterator[Chunk]:
        """Decide what follows once the current file is read to its end."""
        if current.truncated or (self.source.follow and await self._was_left(current, read)):
            async for chunk in self._leave(current):
                yield chunk
        elif not self.source.follow:
            for chunk in current.flush():
                yield chunk
            self._close()
            self._finished = True

    async def _was_left(self, current: OpenFile, read: bool) -> bool:
        """Whether the file was replaced and got no data for a while; waits a moment if not."""
        if not current.is_replaced():
            self._left_at = None
        elif self._left_at is None or read:
            self._left_at = time.monotonic() + LEAVE_SECONDS
        elif time.monotonic() >= self._left_at:
            return True
        await asyncio.sleep(FOLLOW_SECONDS)
        return False

    async def _leave(self, current: OpenFile) -> AsyncIterator[Chunk]:
        """Finish the text, from a copy if the file was truncated, and read the files that had the
        path since; then read a truncated file from its beginning."""
        found, later = await self._locate(current.checkpoint, current.matches)
        is_own = found is not None and os.path.sameopenfile(found.fd, current.fd)
        cut = current.truncated and not is_own  # the copy seen before may be deleted
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
            async for chunk in current.read():
                yield chunk
        elif cut:
            self.checkpoints.mark_deleted(current.checkpoint)
        for chunk in current.flush():
            yield chunk
        self.checkpoints.finish(current.checkpoint, current.fingerprint.offset)
        self._close()
        async for chunk in self._read_files(later, before=file):
            yield chunk
        if cut:
            self._set_current(file, self._add_checkpoint(file))
        else:
            os.close(file)

    async def _read_files(
        self, files: list[Candidate], before: int | None = None
    ) -> AsyncIterator[Chunk]:
        """The content of the files up to the one that is open as `before`, except known ones."""
        try:
            while files:
                path, file = files[0]
                if before is not None and os.path.sameopenfile(file, before):
                    return
                if not self.checkpoints.contains(self.source.stream, file):
                    checkpoint, duplicate = self._add_checkpoint(file), os.dup(file)
                    async for chunk in self._to_end(Candidate(path, duplicate), checkpoint):
                        yield chunk
                os.close(files.pop(0).fd)
        finally:
            rotation.close(files)

    async def _to_end(self, found: Candidate, entry: Checkpoint) -> AsyncIterator[Chunk]:
        opened = OpenFile(found.path, found.fd, entry, self.options.rules)
        try:
            async for chunk in opened.read():
                yield chunk
            for chunk in opened.flush():
                yield chunk
            self.checkpoints.finish(entry, opened.fingerprint.offset)
        except NotTextError as error:
            self.checkpoints.finish(entry)
            self.options.report_error(f"{found.path}: {error}")
        finally:
            opened.close()

    async def _resume(self) -> AsyncIterator[Chunk]:
        """The texts begun before a restart, in order, and the files after them.

        The last one may still have the path; it becomes `current`.
        """
        entries = self.checkpoints.find(self.path, self.source.stream)
        if not entries and (self.source.follow or self.checkpoints.is_persistent):
            rotation.ignore_existing(self.path, self.source.stream, self.checkpoints)
            self.checkpoints.start_following(self.path, self.source.stream)
        for entry in entries:
            last = entry is entries[-1]
            if entry.done and not last:
                continue
            found, later = await self._locate(entry, entry.matches)
            async for chunk in self._resume_text(entry, found, last):
                yield chunk
            if not last or self.current:
                rotation.close(later)
                continue
            async for chunk in self._read_files(later):
                yield chunk
        self._last_lines = None if entries[1:] else self._last_lines

    async def _resume_text(
        self, entry: Checkpoint, found: Candidate | None, last: bool
    ) -> AsyncIterator[Chunk]:
        """The rest of a text. found: the file that has it now; last: no later text was begun."""
        is_here = found is not None and found.path == self.path
        if found is None or entry.done or (is_here and not last):
            rotation.close([found] if found else [])
            if not entry.done:
                self._report_lost(entry)
            return
        self.checkpoints.resume(entry, found.fd)
        if is_here:
            entry.end = None
            self._set_current(found.fd, entry)
            return
        self.options.notify(f"{found.path} is finished first: it was sent up to byte {entry.sent}")
        async for chunk in self._to_end(found, entry):
            yield chunk

    def _report_lost(self, entry: Checkpoint) -> None:
        self.checkpoints.finish(entry, entry.sent)
        self.checkpoints.mark_deleted(entry)
        self.options.report_error(
            f"{self.path}: the file that was sent up to byte {entry.sent} was truncated or "
            "deleted; its remaining bytes are not sent"
        )

    async def _open(self) -> OpenFile | None:
        """Open the file that has the path now; wait for it if the source is followed."""
        while not self._finished:
            try:
                file = os.open(self.path, os.O_RDONLY)
            except FileNotFoundError:
                if not self.source.follow:
                    raise
                await self._wait()
                continue
            start, self._last_lines = self._start(file), None
            return self._set_current(file, self._add_checkpoint(file, start))
        return None

    async def _wait(self) -> None:
        if not self._waiting:
            self.options.notify(f"{self.path} does not exist yet: waiting for it")
        self._waiting, self._last_lines = True, None
        await asyncio.sleep(FOLLOW_SECONDS)

    def _start(self, file: int) -> int:
        """The offset to start at: that of the last lines, if these were requested."""
        if self._last_lines is None:
            return 0
        text = detect_text(os.pread(file, HEAD_BYTES, 0))
        if not self._last_lines and not self.source.follow:
            return os.fstat(file).st_size
        return max(text.bom_bytes, last_lines(file, self._last_lines, text.encoding))

    def _add_checkpoint(self, file: int, start: int = 0) -> Checkpoint:
        return self.checkpoints.add(self.path, self.source.stream, file, start)

    def _set_current(self, file: int, entry: Checkpoint) -> OpenFile:
        """Make the file the current one."""
        is_passed = self._is_superseded if self.source.follow else None
        self.current = OpenFile(self.path, file, entry, self.options.rules, is_passed)
        return self.current

    def _is_superseded(self, opened: OpenFile) -> bool:
        return rotation.is_superseded(
            opened.checkpoint, opened.matches, opened.fd, self.path, self.checkpoints
        )

    async def _locate(self, entry: Checkpoint, matches: rotation.Matches) -> rotation.Location:
        return await asyncio.to_thread(rotation.locate, entry, matches, self.path, self.checkpoints)

    def _close(self) -> None:
        if self.current:
            self.current.close()
        self.current, self._left_at = None, None
