"""ConsumerThread: the thread that runs aiokafka's consumer for Faust, with error reporting.

aiokafka reports the group coordinator's errors when it is polled, but Faust does not poll before it
has partitions: so they are checked here. An error that no retry fixes ends the worker with one log
line; others are logged and retried.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Literal, cast

from aiokafka import errors
from faust.transport.drivers import aiokafka
from faust.types import TP

from stream_app.kafka.connection import FATAL
from stream_app.kafka.fetch_state import POLL_BYTES, FetchState
from stream_app.kafka.fetcher import install, read_uncommitted, resume_at
from stream_app.kafka.topic_monitor import TopicMonitor

logger = logging.getLogger("xl3m")

POLL_SECONDS = 1.0
REPEAT_SECONDS = 30.0
"""A persistent error is logged once in this time."""


class ConsumerThread(aiokafka.AIOKafkaConsumerThread):
    """One per worker. ended: partitions that end before their next offset, with their end."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.ended: dict[TP, int] = {}
        self.topics: TopicMonitor
        self._background = set[asyncio.Task[None]]()
        self._logged_at = self._failed_at = float("-inf")

    @property
    def fetch_state(self) -> FetchState:
        """The app's fetch settings and state."""
        return cast(FetchState, cast(Any, self.app).fetch_state)

    def _create_worker_consumer(self, transport: Any) -> Any:
        """Called by Faust, which has no setting for the isolation level."""
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = self.fetch_state.isolation_level
        return consumer

    async def on_start(self) -> None:
        """Called by Faust before it subscribes."""
        await super().on_start()
        consumer = self._ensure_consumer()
        install(consumer._fetcher, self.fetch_state)
        self.topics = TopicMonitor(consumer, self._rejoin, self.fetch_state.blocked)
        self.fetch_state.out_of_range = self._on_out_of_range
        self._create_task(self._watch())

    async def on_thread_stop(self) -> None:
        """Called by Faust when the thread ends."""
        for task in self._background:
            task.cancel()
        await super().on_thread_stop()

    async def _fetch_records(self, *args: Any, **options: Any) -> Any:
        """Called by Faust for the next records. An error is reported, and there are none."""
        self.fetch_state.decompression_budget = min(POLL_BYTES, self.fetch_state.max_batch_bytes)
        try:
            return await super()._fetch_records(*args, **options)
        except (errors.ConsumerStoppedError, errors.IllegalStateError):
            raise
        except errors.KafkaError as error:
            self.on_error(error)
            await asyncio.sleep(POLL_SECONDS)
            return {}

    async def _highwaters(self, partitions: Any) -> Any:
        """Called by Faust: the ends of partitions, including open transactions. For one in `ended`
        the end is the one noted there, although it may have grown since."""
        consumer = self._ensure_consumer()
        timeout = consumer._request_timeout_ms
        ends = await read_uncommitted(consumer._fetcher).end_offsets(partitions, timeout)
        return {tp: min(end, self.ended.get(tp, end)) for tp, end in ends.items()}

    async def offsets_at(
        self, start: Literal["latest"] | int, partitions: Sequence[TP]
    ) -> dict[TP, int]:
        """The end of each partition, or its first offset at or after a time in milliseconds; its
        end if there is none. The end is before any open transaction, so none is skipped."""
        consumer = self._ensure_consumer()
        ends: dict[TP, int] = await consumer.end_offsets(partitions)
        if start == "latest":
            return ends
        since = await consumer.offsets_for_times(dict.fromkeys(partitions, start))
        return {tp: since[tp].offset if since[tp] else ends[tp] for tp in partitions}

    async def topic_ids(self, names: Iterable[str]) -> dict[str, str]:
        """The ids of topics; a recreated topic has a new id."""
        return await self.topics.ids(names)

    async def crash(self, reason: BaseException) -> None:
        """Called by Faust, for which an error of a commit is a crash."""
        if isinstance(reason, FATAL):
            self.on_error(reason)
        await super().crash(reason)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Called by Faust regularly. It assumes that each partition has a position, but one may
        still be looked up."""
        state = self.fetch_state.partition_state(tp)
        if state is not None and state.has_valid_position:
            super().verify_event_path(now, tp)

    def on_error(self, error: errors.KafkaError) -> None:
        """End the worker if no retry can help, else log that it is retried."""
        app: Any = self.app
        if isinstance(error, FATAL):
            app.on_refused(error)
            return
        self.fetch_state.blocked["group"] = app.explain_refusal(error)
        self._failed_at = now = asyncio.get_running_loop().time()
        if now - self._logged_at >= REPEAT_SECONDS:
            self._logged_at = now
            logger.error("%s; it is retried", self.fetch_state.blocked["group"])

    async def _watch(self) -> None:
        """Check for errors of the coordinator, and for deleted and recreated topics."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            coordinator = self._ensure_consumer()._coordinator
            try:
                coordinator.check_errors()
            except errors.KafkaError as error:
                if coordinator._coordination_task.done():  # aiokafka does not retry
                    await self.crash(error)
                    return
                self.on_error(error)
            if asyncio.get_running_loop().time() - self._failed_at > REPEAT_SECONDS:
                self.fetch_state.blocked.pop("group", None)  # fixed
            await self.topics.check()

    def _rejoin(self) -> None:
        """Start a rebalance."""
        self._ensure_consumer()._coordinator.request_rejoin()

    def _on_out_of_range(self, tp: Any, offset: int) -> None:
        self._create_task(self._resolve_out_of_range(tp, offset))

    async def _resolve_out_of_range(self, tp: Any, offset: int) -> None:
        """Handle an offset that does not exist. If the partition ends before it, the topic was
        recreated, and a rebalance resets the partition; otherwise the records have expired."""
        consumer = self._ensure_consumer()
        state = self.fetch_state.partition_state(tp)
        fetcher, timeout = read_uncommitted(consumer._fetcher), consumer._request_timeout_ms
        try:
            begin = (await fetcher.beginning_offsets([tp], timeout))[tp]
            end = (await fetcher.end_offsets([tp], timeout))[tp]
        except errors.KafkaError:
            begin, end = offset, offset  # the next fetch is out of range again
        if state is None:
            return
        if end >= offset:
            resume_at(state, max(begin, offset))
            return
        logger.error(
            "%s/%d ends at offset %d, but %d was to be read next: the topic was recreated, or the "
            "broker lost records. It is read from its first record.",
            tp.topic, tp.partition, end, offset,
        )  # fmt: skip
        self.ended[TP(tp.topic, tp.partition)] = end
        self._rejoin()

    def _create_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
