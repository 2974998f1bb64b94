"""A live stream to measure: one `xl3m worker` process reads text with standing questions.

Sends through the project's feeder, which keeps at most a megabyte unread, so that the cost of a
text is constant. How much is scored is read from the stream's state in Redis, not derived from what
was sent.
"""

import asyncio
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import ClientError, ClientSession, ClientTimeout
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from stream_app.client import client
from stream_app.errors import UnreachableError
from stream_app.events import encode
from stream_app.feeding.feeder import open_feeder
from stream_app.feeding.open_file import CHUNK_BYTES
from stream_app.feeding.throttle import Throttle
from stream_app.settings import Settings
from stream_app.store.store import StreamStore
from stream_app.testing import WORKER, Process, worker
from xl3m_core.errors import XL3MError

STREAM = "haystack"
MEGABYTE = 1 << 20
READY_SECONDS = 300.0  # to load a large model
STALL_SECONDS = 300.0
STOP_SECONDS = 15.0
READY_TIMEOUT = ClientTimeout(total=5.0)
ANSWER_SECONDS = 60.0
LOG_LINES = 15
T = TypeVar("T")


class LiveError(XL3MError):
    """The stream did not reach its end; the message says why."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample of the stream: seconds since the feed began, tokens scored for every question,
    resident memory of the worker and memory used by Redis, in MiB."""

    seconds: float
    tokens: int
    rss_mb: float
    redis_mb: float


@dataclass(frozen=True, slots=True)
class Live:
    """A stream and the worker that reads it."""

    settings: Settings
    store: StreamStore
    redis: Redis
    worker: Process
    log: Path

    async def guarded(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of the work. Raises LiveError with the end of the log if the worker dies."""
        return await guarded(self.worker, self.log, work)

    async def ready(self) -> None:
        """Wait until the worker listens for queries."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                while True:
                    with suppress(UnreachableError):
                        return await client.ensure_worker(self.store)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise LiveError(f"the worker does not listen:\n{_words(self.log)}") from None

    async def stand(self, questions: Sequence[str]) -> None:
        """Set standing questions, and wait until all are stored."""
        topic, key = self.settings.questions_topic, STREAM.encode()
        async with AIOKafkaProducer(bootstrap_servers=self.settings.broker_address) as producer:
            for question in questions:
                value = encode({"question": question, "add": True})
                await producer.send_and_wait(topic, value, key=key)
        async with asyncio.timeout(READY_SECONDS):
            while len(await self.store.questions.load(STREAM)) < len(questions):
                await asyncio.sleep(0.1)

    async def read(
        self, text: Iterable[str], every: float, on_sample: Callable[[Sample], None]
    ) -> list[Sample]:
        """Feed the text, and sample it every `every` seconds; the last time when all is scored."""
        samples = [await self.sample(started := time.perf_counter())]
        progress = samples[0]
        feed = asyncio.create_task(self._feed(text))
        try:
            while not (feed.done() and await self._scored_all(feed.result())):
                await asyncio.sleep(every)
                samples.append(await self.sample(started))
                on_sample(samples[-1])
                progress = _progress(progress, samples[-1])
            return [*samples, await self.sample(started)]
        finally:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)

    async def _feed(self, text: Iterable[str]) -> int:
        """Send the text, and return its length in characters."""
        characters = 0

        async def events() -> AsyncIterator[str]:
            nonlocal characters
            pieces = in_events(text)
            while piece := await asyncio.to_thread(next, pieces, ""):
                characters += len(piece)
                yield piece

        async with open_feeder(self.settings, self.store) as feeder:
            feeder.throttle = feeder.throttle or Throttle(self.store)
            await feeder.feed(STREAM, events(), lambda _: None)
        return characters

    async def _scored_all(self, characters: int) -> bool:
        """Whether the stream has that many characters and all its segments are scored."""
        state = await self.store.load(STREAM)
        if state.cursor.gaps:
            missing = state.cursor.gaps
            raise LiveError(f"{missing} offsets are missing: the broker dropped unread events")
        return state.tail.end >= characters and await self._scored() == state.cursor.head

    async def _scored(self) -> int:
        """How many segments, from the first, are scored for every question."""
        ends = []
        for qid in await self.store.questions.load(STREAM):
            scored = await self.store.scored_range(STREAM, qid)
            if scored is None or scored.lo or scored.skipped:
                raise LiveError(f"question {qid} is not scored from the first segment on: {scored}")
            ends.append(scored.hi)
        return min(ends)

    async def sample(self, started: float) -> Sample:
        """A sample of now. Tokens: the end of the last segment that is scored for every question,
        counted from the stream's start in the model's tokens, so overlap counts once."""
        scored = await self._scored()
        last = await self.store.segments(STREAM, max(0, scored - 1), scored)
        tokens = last[0].end_token if last else 0
        memory: Any = await self.redis.info("memory")
        rss, used = resident_mb(self.worker.pid), memory["used_memory"] / MEGABYTE
        return Sample(time.perf_counter() - started, tokens, rss, used)

    async def ask(self, question: str) -> dict[str, Any]:
        """The answer, through the public client."""
        async for message in client.ask(self.store, STREAM, question, ANSWER_SECONDS):
            if message["type"] == "answer":
                return message
        raise LiveError(f"no answer to {question!r}")


async def is_ready(http: ClientSession, port: int) -> bool:
    """Whether the worker at that port runs and has partitions."""
    try:
        async with http.get(f"http://127.0.0.1:{port}/readyz", timeout=READY_TIMEOUT) as reply:
            return reply.status == 200
    except (ClientError, TimeoutError):
        return False


async def guarded(child: Process, log: Path, work: Coroutine[Any, Any, T]) -> T:
    """The result of the work. Raises LiveError with the end of the log if the process dies."""
    task, died = asyncio.create_task(work), asyncio.create_task(child.wait())
    try:
        await asyncio.wait({task, died}, return_when=asyncio.FIRST_COMPLETED)
        if died.done():
            raise LiveError(f"the worker ended with code {died.result()}:\n{_words(log)}")
        return task.result()
    finally:
        task.cancel()
        died.cancel()
        await asyncio.gather(task, died, return_exceptions=True)


def _words(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])


@asynccontextmanager
async def live(settings: Settings, folder: Path) -> AsyncIterator[Live]:
    """A worker on the settings' broker and Redis, listening when the block begins."""
    async with Redis.from_url(settings.redis) as redis, _worker(settings, folder) as child:
        store = StreamStore.from_settings(settings, redis)
        here = Live(settings, store, redis, child, folder / "worker.log")
        await here.guarded(here.ready())
        yield here


def _worker(settings: Settings, folder: Path) -> AbstractAsyncContextManager[Process]:
    return process(settings, folder / "worker.log", WORKER)


def process(
    settings: Settings, log: Path, command: Sequence[str], env: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[Process]:
    """A Python process with these settings, stopped at the end; its output goes to the log."""
    return worker(settings, log, command=command, env=env)


def in_events(text: Iterable[str]) -> Iterator[str]:
    """Chunks of whole lines as events of whole lines, about as large as the feeder's own."""
    for chunk in text:
        start = 0
        while start < len(chunk):
            end = chunk.rfind("\n", start, start + CHUNK_BYTES) + 1 or start + CHUNK_BYTES
            yield chunk[start:end]
            start = end


def stored(text: Iterable[str], path: Path) -> Iterator[str]:
    """The text in chunks of whole lines, first written to a file, so that generating it takes no
    CPU time from the worker."""
    with path.open("w", newline="") as file:
        file.writelines(text)
    return _lines(path)


def _lines(path: Path) -> Iterator[str]:
    with path.open(newline="") as file:
        while lines := file.readlines(CHUNK_BYTES):
            yield "".join(lines)


def resident_mb(pid: int) -> float:
    """A process's resident memory in MiB, from Linux's /proc; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    line = next((line for line in status.splitlines() if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    return int(line.split()[1]) / 1024


def _progress(before: Sample, now: Sample) -> Sample:
    """The earlier sample if there was no progress since, else the later one. Raises LiveError if
    there was none for STALL_SECONDS."""
    if now.tokens > before.tokens:
        return now
    if now.seconds - before.seconds > STALL_SECONDS:
        raise LiveError(f"nothing was scored for {STALL_SECONDS:.0f} s, at {now.tokens:,} tokens")
    return before
