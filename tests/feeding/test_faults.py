"""A feeder that is killed at any time, on the real Kafka, while its file is rotated and truncated.

With a position file the topic has each line of the file once, in order.
"""

import asyncio
import os
import random
import shutil
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from stream_app.embedded.services import Service
from stream_app.kafka import auth
from stream_app.kafka.topics import ensure_topics
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from tests.support.workers import fresh_topics

Fresh = Callable[[str], str]
WAIT_SECONDS = 60.0
SEEDS = range(2)


def _heed_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so do the processes that they start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Feed:
    """`xl3m feed -f` on one file, as a process that can be killed, and its topic."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.log = folder / "app.log"
        self.words = ["-f", str(self.log), "--positions", str(folder / "positions.json")]
        self.said = folder / "feed.err"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        env = os.environ | {
            variable("broker"): self.settings.broker,
            variable("redis"): "redis://127.0.0.1:1",
        }
        env |= {
            variable(f"{name}_topic"): getattr(self.settings, f"{name}_topic")
            for name in ("tokens", "questions", "queries", "answers", "dead_letters")
        }
        with self.said.open("ab") as said:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "stream_app", "feed", *self.words,
                env=env, stdout=said, stderr=said, preexec_fn=_heed_interrupts,
            )  # fmt: skip

    async def end(self, how: int = signal.SIGKILL) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(how)
        code = await asyncio.wait_for(self.process.wait(), WAIT_SECONDS)
        assert code in (-signal.SIGKILL, how, 130), self.said.read_text()[-3000:]
        self.process = None
        return code

    async def lines(self) -> list[str]:
        """All lines of the topic, in order."""
        topic, found = self.settings.tokens_topic, list[str]()
        async with AIOKafkaConsumer(**auth.kafka(self.settings)) as consumer:
            await consumer._client.force_metadata_update()
            partitions = [TopicPartition(topic, number) for number in range(4)]
            consumer.assign(partitions)
            await consumer.seek_to_beginning()
            ends = await consumer.end_offsets(partitions)
            for tp in partitions:
                while await consumer.position(tp) < ends[tp]:
                    for record in (await consumer.getmany(tp, timeout_ms=500)).get(tp, []):
                        found += record.value.decode().splitlines()
        return found

    async def until(self, count: int) -> list[str]:
        """Wait until the topic has `count` lines, and return them."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(found := await self.lines()) < count:
                assert self.process is None or self.process.returncode is None, (
                    self.said.read_text()[-3000:]
                )
                await asyncio.sleep(0.2)
        return found


@asynccontextmanager
async def feeding(broker: Service, folder: Path, fresh: Fresh) -> AsyncIterator[Feed]:
    settings = Settings(broker=broker.url, **fresh_topics(fresh))
    await ensure_topics(settings)
    feed = Feed(settings, folder)
    try:
        yield feed
    finally:
        if feed.process:
            await feed.end()


class Writer:
    """Writes numbered lines to a log and rotates it, as logrotate does."""

    def __init__(self, log: Path, dice: random.Random) -> None:
        self.log = log
        self.dice = dice
        self.lines: list[str] = []

    def write(self, count: int) -> None:
        new = [f"{len(self.lines) + i} {uuid.uuid4().hex}" for i in range(count)]
        self.lines += new
        with self.log.open("a") as file:
            file.write("".join(f"{line}\n" for line in new))

    def _make_room(self) -> None:
        for number in range(60, 0, -1):  # none is deleted
            old = self.log.with_name(f"app.log.{number}")
            if old.exists():
                old.rename(self.log.with_name(f"app.log.{number + 1}"))

    def rename(self) -> None:
        self._make_room()
        self.log.rename(self.log.with_name("app.log.1"))
        self.log.touch()

    def copy_and_truncate(self) -> None:
        self._make_room()
        shutil.copyfile(self.log, self.log.with_name("app.log.1"))
        os.truncate(self.log, 0)

    def step(self) -> None:
        """One change of the log."""
        match self.dice.randrange(6):
            case 0:
                self.rename()
            case 1:
                self.copy_and_truncate()
            case _:
                self.write(self.dice.choice([1, 7, 300, 3000]))


@pytest.mark.guarantee("Feeding")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
async def test_killed_at_any_moment_each_line_is_sent_once_and_in_order(
    seed: int,
    durable_broker: Service,
    tmp_path: Path,
    fresh: Fresh,
    pytestconfig: pytest.Config,
) -> None:
    dice = random.Random(seed + len(SEEDS) * pytestconfig.getoption("--chaos-seed"))
    async with feeding(durable_broker, tmp_path, fresh) as feed:
        writer = Writer(feed.log, dice)
        writer.write(2000)
        for times in range(5):
            await feed.start()
            if not times or dice.random() < 0.5:  # killed while it sends, else while it starts
                await feed.until(1)
            for _ in range(dice.randrange(1, 4)):
                writer.step()
                await asyncio.sleep(dice.uniform(0, 0.6))  # of the schedule
            await feed.end()
            for _ in range(dice.randrange(3)):
                writer.step()
        writer.write(1)
        await feed.start()
        await feed.until(len(writer.lines))
        assert await feed.end(signal.SIGINT) == 130
        assert await feed.lines() == writer.lines
