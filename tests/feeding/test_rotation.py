"""A followed file under every order of writing, renaming, copying and truncating, without a Kafka.

The log is changed, and the reader killed, at any point of the reader's work. Afterwards a simulated
Kafka has each line once, in order. Everything follows from a seed, so that a failing schedule can
be repeated.
"""

import asyncio
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_app.feeding import open_file, rotation, tailer
from stream_app.feeding.checkpoint_file import CheckpointFile
from stream_app.feeding.checkpoints import Checkpoint, Checkpoints
from stream_app.feeding.chunking import Chunk
from stream_app.feeding.open_file import OpenFile
from stream_app.feeding.reader import read
from stream_app.feeding.recovery import apply_header, checkpoint_header
from stream_app.feeding.source import ReadOptions, Source
from stream_app.feeding.tailer import Tailer

SCHEDULES = 60
PATIENCE = 8


class Killed(BaseException):
    """The process was killed."""


class Log:
    """A log that is written and rotated. head: the first lines of each new file; appends: after a
    truncation the writer continues at the end of the file, not at its old offset."""

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path, self.dice = path, dice
        self.lines = list[str]()
        self.head = dice.choice(["", "# log\n", "# " + "=" * 300 + "\n"])
        self.appends = dice.random() < 0.7
        self.past = list[str]()
        if dice.random() < 0.5:
            self.past = ["past, and never read"]
            path.with_name("log.1").write_text("past, and never read\n")
            os.utime(path.with_name("log.1"), (1, 1) if dice.random() < 0.5 else None)
        self._work: Iterator[None] = iter(())
        self.file = self.path.open("wb", buffering=0)
        self._begin()

    def step(self) -> None:
        """The next change; a change with several steps is completed before others."""
        if next(self._work, self) is not self:
            return
        match self.dice.randrange(8):
            case 0:
                self._rename()
            case 1:
                self._work = self._copy_and_cut()
            case 2:
                self._delete()
            case _:
                self.write(self.dice.choice([1, 1, 2, 30, 400]))

    def finish(self) -> None:
        """Complete a change that has begun."""
        for _ in self._work:
            pass

    def write(self, count: int) -> None:
        first = len(self.lines)
        self._put([f"{first + i} {self.dice.randbytes(8).hex()}" for i in range(count)])

    def _put(self, lines: list[str]) -> None:
        self.lines += lines
        if self.appends:
            self.file.seek(0, os.SEEK_END)
        self.file.write("".join(f"{line}\n" for line in lines).encode())

    def _begin(self) -> None:
        self.file.close()
        self.file = self.path.open("wb", buffering=0)
        if self.head:
            self._put([self.head.rstrip()])

    def _old(self) -> list[Path]:
        """Rotated files, oldest first."""
        return rotation.rotated_files(self.path)

    def _make_room(self) -> None:
        if self.head and self.lines[-1] == self.head.rstrip():
            self.write(1)  # files with nothing but a head cannot be told apart
        for old in self._old():
            old.rename(self.path.with_name(f"log.{int(old.suffix[1:]) + 1}"))

    def _rename(self) -> None:
        self._make_room()
        self.path.rename(self.path.with_name("log.1"))
        self._begin()

    def _copy_and_cut(self) -> Iterator[None]:
        self._make_room()
        data = self.path.read_bytes()
        with self.path.with_name("log.1").open("wb", buffering=0) as copy:
            copy.write(data[: len(data) // 2])
            yield
            copy.write(data[len(data) // 2 :])
        yield
        os.truncate(self.path, 0)
        if self.head and self.appends:
            self._put([self.head.rstrip()])

    def _delete(self) -> None:
        """Delete the oldest file, once all of it is in Kafka, so that its inode can be reused."""
        old = self._old()
        if old and set(old[0].read_text().strip("\0").splitlines()) <= {*self.sent(), *self.past}:
            old[0].unlink()

    sent: Callable[[], list[str]]


class Kafka:
    """A simulated Kafka: the header and the text of each event."""

    def __init__(self) -> None:
        self.events = list[tuple[bytes, str]]()

    def lines(self) -> list[str]:
        return "".join(text for _, text in self.events).splitlines()


class World:
    """A log, a Kafka, and a feeder that is killed at one of the patched calls."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.kafka = Kafka()
        self.log = Log(folder / "log", self.dice)
        self.log.sent = self.kafka.lines
        self.positions = folder / "positions"
        self.complaints = list[str]()
        self.steps = self.moments = self.idle = 0
        self.book = Checkpoints()

    def moment(self) -> None:
        """A patched call of the running feeder: change the log, or kill the feeder."""
        if self.moments == 0:
            raise Killed
        self.moments -= 1
        started = any(entry.path for entry in self.book.entries.values())
        if self.steps and started and self.dice.random() < 0.15:
            self.steps -= 1
            self.idle = 0
            self.log.step()

    def wait(self) -> None:
        """The feeder has nothing to do."""
        self.idle += 1
        self.moment()
        if self.steps and self.dice.random() < 0.5:
            self.steps -= 1
            self.idle = 0
            self.log.step()
        if self.idle > PATIENCE:
            raise Killed

    async def run(self, moments: int, steps: int) -> None:
        """Run a feeder until it is killed, or has nothing to do."""
        self.moments, self.steps, self.idle = moments, steps, 0
        self.book = book = CheckpointFile(self.positions)
        unconfirmed = list[tuple[Chunk, Any]]()
        try:
            for value, _ in self.kafka.events:
                apply_header(book, value)
            book.save()
            how = ReadOptions(book, report_error=self.complaints.append)
            async for piece in read(Source(self.log.path, "s", follow=True), how):
                self.idle = 0
                for part in piece.halve() if self.dice.random() < 0.3 else (piece,):
                    entry: Checkpoint = part.source
                    note = entry.advance(part)
                    unconfirmed.append((part, note))
                self._confirm(book, unconfirmed)
                self.moment()
        except Killed:
            self._arrive(unconfirmed)
        finally:
            book.close()

    def _confirm(self, book: Checkpoints, unconfirmed: list[tuple[Chunk, Any]]) -> None:
        while unconfirmed and self.dice.random() < 0.7:
            piece, note = unconfirmed.pop(0)
            self.kafka.events.append((checkpoint_header(piece, note)[1], piece.text()))
            book.confirm(piece, note)
            if self.dice.random() < 0.3:
                book.save()

    def _arrive(self, unconfirmed: list[tuple[Chunk, Any]]) -> None:
        """Deliver some of the unconfirmed events of a killed feeder; all, if it was not killed."""
        while unconfirmed and (self.moments > 0 or self.dice.random() < 0.6):
            piece, note = unconfirmed.pop(0)
            self.kafka.events.append((checkpoint_header(piece, note)[1], piece.text()))


def meet(patch: pytest.MonkeyPatch, world: World) -> None:
    """Patch every call during which the log may change."""

    def around(owner: Any, name: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **more: Any) -> Any:
            world.moment()
            result = inner(*args, **more)
            world.moment()
            return result

        patch.setattr(owner, name, outer)

    for owner, name in (
        (OpenFile, "_block"), (rotation, "_inodes"), (rotation, "_select"), (CheckpointFile, "add"),
        (Checkpoints, "resume"), (Checkpoints, "relocate"), (rotation, "ignore_existing"),
    ):  # fmt: skip
        around(owner, name)
    was_left = Tailer._was_left

    async def waits(self: Tailer, current: OpenFile, read: bool) -> bool:
        world.wait()
        return await was_left(self, current, read)

    patch.setattr(Tailer, "_was_left", waits)
    for module, name in (
        (tailer, "FOLLOW_SECONDS"), (tailer, "LEAVE_SECONDS"), (open_file, "LOOK_SECONDS"),
        (rotation, "_TRY_SECONDS"),
    ):  # fmt: skip
        patch.setattr(module, name, 0)
    patch.setattr(os, "fsync", lambda _: None)  # no power failures here
    patch.setattr(open_file, "CHUNK_BYTES", world.dice.choice([64, 1024, 16_384]))


@pytest.mark.guarantee("Feeding")
@pytest.mark.parametrize("number", range(SCHEDULES))
def test_each_line_is_sent_once_and_in_order_whatever_happens_to_the_log(
    number: int, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    world = World(tmp_path, number + SCHEDULES * pytestconfig.getoption("--chaos-seed"))
    with pytest.MonkeyPatch.context() as patch:
        meet(patch, world)
        world.log.write(world.dice.choice([0, 1, 40]))
        for _ in range(6):
            asyncio.run(world.run(world.dice.choice([2, 20, 60, 200, 800]), steps=9))
            if world.book.entries:  # earlier changes are before the first start
                for _ in range(world.dice.randrange(4)):
                    world.log.step()
        world.log.finish()
        world.log.write(1)
        asyncio.run(world.run(10**6, steps=0))
        world.log.file.close()
    assert world.kafka.lines() == world.log.lines, world.complaints
