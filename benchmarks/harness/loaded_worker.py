"""A worker under load: everything that is sent to it, and the state it must arrive at.

The worker is a process on a real Kafka and a real Redis. Its model costs nothing, or runs at a
given speed (`stub_workers`). Every stream has a standing question. Sends events, reads the worker's
metrics, and compares its streams with an offline run.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from aiohttp import ClientSession
from aiokafka import AIOKafkaProducer
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from benchmarks.harness.live_worker import MEGABYTE, LiveError, guarded, is_ready, process
from stream_app.embedded.process import free_port
from stream_app.engine import create_engine
from stream_app.kafka.topics import ensure_topics
from stream_app.scoring.streams import QuestionLoader
from stream_app.settings import Settings
from stream_app.store.state import QuestionRecord, ScoredRange
from stream_app.store.store import StreamStore
from stream_app.testing import Process, offline_segments, until
from xl3m_core import Engine, Segment, Tail

QUESTION = "Which host fails?"
PARTITIONS = 4  # of every topic
AT_ONCE = 20  # streams set or checked concurrently
POLL_SECONDS = 0.1
STALL_SECONDS = 600.0


class Seen(NamedTuple):
    """A sample of the worker's /metrics."""

    seconds: float
    rss_mb: float
    unscored: float


@dataclass(slots=True)
class Loaded:
    """One worker and its streams. sent: how many events; texts: of each stream, in order."""

    settings: Settings
    engine: Engine
    store: StreamStore
    producer: AIOKafkaProducer
    http: ClientSession
    worker: Process
    log: Path
    sent: int = 0
    texts: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def qid(self) -> str:
        """The standing question's id."""
        return QuestionLoader(self.engine, self.store).question_id(QUESTION)

    def names(self, count: int) -> list[str]:
        """Fresh stream names."""
        return [f"{self.settings.group}/{i}" for i in range(count)]

    async def ask(self, streams: Collection[str]) -> None:
        """Set the standing question on each stream."""
        record, waiting = QuestionRecord(QUESTION, set_at=time.time()), iter(streams)
        while some := list(islice(waiting, AT_ONCE)):
            await asyncio.gather(
                *(self.store.questions.ask(stream, self.qid, record) for stream in some)
            )

    async def send(self, stream: str, text: str, partition: int) -> float:
        """Send an event, and return its timestamp, the time now. The producer may delay it by a
        few milliseconds."""
        now = time.time()
        self.texts[stream].append(text)
        self.sent += 1
        await self.producer.send(
            self.settings.tokens_topic, text.encode(), key=stream.encode(),
            partition=partition, timestamp_ms=round(now * 1000),
        )  # fmt: skip
        return now

    async def read(self, *partitions: int) -> int:
        """How many events are in Redis, of these partitions or of all."""
        topic, numbers = self.settings.tokens_topic, partitions or range(PARTITIONS)
        positions = await self.store.partitions.positions(
            [f"{topic}/{number}" for number in numbers]
        )
        return sum(position or 0 for position, _ in positions)

    async def reached(self, streams: Sequence[str]) -> list[int]:
        """The end of each stream's scored range, in one round trip."""
        async with self.store.redis.pipeline(transaction=False) as pipe:
            for stream in streams:
                pipe.hget(self.store.keys.scored_range(stream, self.qid), "hi")
            return [int(hi or 0) for hi in await pipe.execute()]

    async def look(self) -> Seen:
        """Sample the worker; it answers once its model is loaded."""
        async with self.http.get(f"http://127.0.0.1:{self.settings.http_port}/metrics") as reply:
            families = text_string_to_metric_families(await reply.text())
        values = {s.name: s.value for family in families for s in family.samples}
        rss = values["process_resident_memory_bytes"] / MEGABYTE
        return Seen(time.perf_counter(), rss, values["xl3m_lag_tokens"])

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Wait until the condition holds. Raises LiveError, which names `what`, on a timeout."""
        try:
            await until(condition, what, seconds=STALL_SECONDS, poll=POLL_SECONDS)
        except TimeoutError as error:
            raise LiveError(f"{error}") from None

    async def is_ready(self) -> bool:
        """Whether the worker runs and has partitions."""
        return await is_ready(self.http, self.settings.http_port)

    async def is_done(self) -> bool:
        """Whether all events that were sent are read and scored."""
        return await self.read() == self.sent and not (await self.look()).unscored

    async def complete(self, streams: Collection[str]) -> int:
        """Wait until each stream's log, tail and range equal an offline run's; the number of
        segments."""
        waiting, count = iter(streams), 0
        while some := list(islice(waiting, AT_ONCE)):
            count += sum(await asyncio.gather(*map(self._complete, some)))
        return count

    async def _complete(self, stream: str) -> int:
        tail, segments = await asyncio.to_thread(self.offline, self.texts[stream])
        await self.until(lambda: self._is_scored(stream, len(segments)), f"{stream!r} scored")
        found = await self.store.segments(stream, 0, len(segments) + 1)
        kept = (await self.store.load(stream)).tail
        if [_said(s) for s in found] != [_said(s) for s in segments] or kept.end != tail.end:
            raise LiveError(f"{stream!r} is not what was sent")
        return len(segments)

    async def _is_scored(self, stream: str, segments: int) -> bool:
        return await self.store.scored_range(stream, self.qid) == ScoredRange(0, segments)

    def offline(self, texts: list[str]) -> tuple[Tail, list[Segment]]:
        """The tail and the segments of an offline run over these events."""
        return offline_segments(self.engine, *texts)


def _said(segment: Segment) -> tuple[str, int, int, int, int]:
    """The segment without its times."""
    return segment.text, segment.start, segment.end, segment.start_token, segment.end_token


@asynccontextmanager
async def loaded(
    settings: Settings, folder: Path, model: list[str], **changes: int | str
) -> AsyncIterator[Loaded]:
    """A ready worker on topics of its own. model: the arguments of `stub_workers`."""
    name = uuid4().hex[:8]
    topics = {f"{t}_topic": f"{t}-{name}" for t in ("tokens", "questions", "queries")}
    here = settings.replace(group=f"load-{name}", http_port=free_port(), **topics, **changes)
    await ensure_topics(here)
    engine, log = create_engine(here), folder / f"{here.group}.log"
    async with (
        Redis.from_url(here.redis) as redis,
        AIOKafkaProducer(bootstrap_servers=here.broker_address, linger_ms=5) as producer,
        ClientSession() as http,
        process(
            here, log, ["-m", "benchmarks.harness.stub_workers", *model], {"OMP_NUM_THREADS": "1"}
        ) as p,
    ):
        store = StreamStore.from_settings(here, redis)
        made = Loaded(here, engine, store, producer, http, p, log)
        await guarded(p, log, made.until(made.is_ready, "the worker answers"))
        yield made


def lines(stream: str, number: int, count: int) -> str:
    """The text of an event: `count` records that differ from those of all other events."""
    what = f"{stream} event {number}"
    return "".join(
        f"{what} line {i} INFO mailer request done in {i + 7} ms\n" for i in range(count)
    )
