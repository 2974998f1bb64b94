"""Kafka thread: the thread on which Faust's consumer talks to Kafka, told what goes wrong there.

aiokafka tells what the group's coordinator refuses to whoever polls, and Faust does not poll before
it has partitions: so it is asked here. What no retry mends ends the worker with one line; the rest
is tried again, and is said. Knows aiokafka's consumer and its errors; no events.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal, cast

from aiokafka import errors
from faust.transport.drivers import aiokafka
from faust.types import TP

from stream_app.kafka.connection import FATAL
from stream_app.kafka.fetcher import POLL_BYTES, FetchState, install, read_uncommitted, resume_at
from stream_app.kafka.topic_monitor import TopicMonitor

logger = logging.getLogger("xl3m")

POLL_SECONDS = 1.0
REPEAT_SECONDS = 30.0
"""A refusal that goes on is said so often."""


class ConsumerThread(aiokafka.AIOKafkaConsumerThread):
    """One per worker. ended: partitions that end before what was to be read of them, and where."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ended: dict[TP, int] = {}
        self.topics: TopicMonitor
        self._works = set[asyncio.Task[None]]()
        self._said = self._refused = float("-inf")

    @property
    def fetch_state(self) -> FetchState:
        """How the app's worker reads."""
        return cast(FetchState, cast(Any, self.app).fetch_state)

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Called by Faust, which would read what was never committed."""
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = self.fetch_state.isolation_level
        return consumer

    async def on_start(self) -> None:
        """Called by Faust; nothing is subscribed to yet."""
        await super().on_start()
        consumer = self._ensure_consumer()
        install(consumer._fetcher, self.fetch_state)
        self.topics = TopicMonitor(consumer, self._rejoin, self.fetch_state.blocked)
        self.fetch_state.out_of_range = self._on_out_of_range
        self._begin(self._watch())

    async def on_thread_stop(self) -> None:
        """Called by Faust as the thread ends."""
        for task in self._works:
            task.cancel()
        await super().on_thread_stop()

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        """Called by Faust for what there is. A refusal is no record."""
        self.fetch_state.decompression_budget = min(POLL_BYTES, self.fetch_state.max_batch_bytes)
        try:
            return await super()._fetch_records(*args, **options)
        except (errors.ConsumerStoppedError, errors.IllegalStateError):
            raise
        except errors.KafkaError as error:
            self.refused(error)
            await asyncio.sleep(POLL_SECONDS)
            return {}

    async def _highwaters(self, partitions: Any) -> Any:
        """Called by Faust: the end of the log, also where a transaction is open. A partition that
        was seen to end earlier ends there, though it may have grown since."""
        consumer = self._ensure_consumer()
        timeout = consumer._request_timeout_ms
        ends = await read_uncommitted(consumer._fetcher).end_offsets(partitions, timeout)
        return {tp: min(end, self.ended.get(tp, end)) for tp, end in ends.items()}

    async def offsets_at(
        self, start: Literal["latest"] | int, partitions: Sequence[TP]
    ) -> dict[TP, int]:
        """The end of each partition, or its first offset since a time in milliseconds; where there
        is none, its end. Of transactions that are open nothing is passed over."""
        consumer = self._ensure_consumer()
        ends: dict[TP, int] = await consumer.end_offsets(partitions)
        if start == "latest":
            return ends
        since = await consumer.offsets_for_times(dict.fromkeys(partitions, start))
        return {tp: since[tp].offset if since[tp] else ends[tp] for tp in partitions}

    async def topic_ids(self, names: Iterable[str]) -> dict[str, str]:
        """The ids of the topics, by which one that was created again differs."""
        return await self.topics.ids(names)

    async def crash(self, reason: BaseException) -> None:
        """Called by Faust, which takes what is refused while it commits for a fault."""
        if isinstance(reason, FATAL):
            self.refused(reason)
        await super().crash(reason)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Called by Faust now and then, which takes it that each partition has a position; one
        that is just being looked for is no fault."""
        state = self.fetch_state.partition_state(tp)
        if state is not None and state.has_valid_position:
            super().verify_event_path(now, tp)

    def refused(self, error: errors.KafkaError) -> None:
        """Something was refused: end, if that stays so, or say that it is tried again."""
        app: Any = self.app
        if isinstance(error, FATAL):
            app.on_refused(error)
            return
        self.fetch_state.blocked["group"] = app.explain_refusal(error)
        self._refused = now = asyncio.get_running_loop().time()
        if now - self._said >= REPEAT_SECONDS:
            self._said = now
            logger.error("%s; it is tried again", self.fetch_state.blocked["group"])

    async def _watch(self) -> None:
        """See what the coordinator has to say, whoever polls."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            coordinator = self._ensure_consumer()._coordinator
            try:
                coordinator.check_errors()
            except errors.KafkaError as error:
                if coordinator._coordination_task.done():  # it will not try again
                    await self.crash(error)
                    return
                self.refused(error)
            if asyncio.get_running_loop().time() - self._refused > REPEAT_SECONDS:
                self.fetch_state.blocked.pop("group", None)  # it passed
            await self.topics.look()

    def _rejoin(self) -> None:
        """Have partitions taken over anew."""
        self._ensure_consumer()._coordinator.request_rejoin()

    def _on_out_of_range(self, tp: Any, offset: int) -> None:
        self._begin(self._settle(tp, offset))

    async def _settle(self, tp: Any, offset: int) -> None:
        """An offset is not there. If the partition ends before it, its topic was made again, and
        partitions are taken over anew, which sees to that; else what was there has expired."""
        consumer = self._ensure_consumer()
        state = self.fetch_state.partition_state(tp)
        fetcher, timeout = read_uncommitted(consumer._fetcher), consumer._request_timeout_ms
        try:
            begin = (await fetcher.beginning_offsets([tp], timeout))[tp]
            end = (await fetcher.end_offsets([tp], timeout))[tp]
        except errors.KafkaError:
            begin, end = offset, offset  # it will be out of range again
        if state is None:
            return
        if end >= offset:
            resume_at(state, max(begin, offset))
            return
        logger.error(
            "%s/%d ends at offset %d, but %d was to be read next: the topic was made again, or the "
            "broker lost records. It is read from its first record.",
            tp.topic, tp.partition, end, offset,
        )  # fmt: skip
        self.ended[TP(tp.topic, tp.partition)] = end
        self._rejoin()

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._works.add(task)
        task.add_done_callback(self._works.discard)
