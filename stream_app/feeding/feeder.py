"""Feeder: sends chunks of files as events of the tokens topic, each once and in order.

Waits while Kafka is unavailable. On a broker that silently drops records it has no room for, it is
throttled by what the workers have consumed.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaTimeoutError

from stream_app.errors import UnreachableError
from stream_app.feeding.addressing import event_headers, event_key
from stream_app.feeding.checkpoints import Checkpoints
from stream_app.feeding.chunking import Chunk
from stream_app.feeding.encoder import EncodedEvent, EventEncoder, FeedCounts
from stream_app.feeding.fingerprint import FingerprintHash
from stream_app.feeding.recovery import checkpoint_header
from stream_app.feeding.throttle import Throttle
from stream_app.kafka.producer import open_producer
from stream_app.kafka.topics import ensure_topics
from stream_app.settings import Settings
from stream_app.store.connection import open_redis
from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")

# Unconfirmed events of one source, and their bytes.
MAX_IN_FLIGHT = 1000
MAX_IN_FLIGHT_BYTES = 2 << 20
AWAY_SECONDS = 10.0
# A feed without --follow gives up after this long.
GIVE_UP_SECONDS = 300.0
_BATCH_BYTES = 131_072
_LOOK_SECONDS = 0.1


class _InFlightEvent(NamedTuple):
    """An unconfirmed event, or skipped bytes. upto: the file's bytes up to its end; sent_hash: the
    fingerprint there."""

    size: int
    upto: Chunk
    sent_hash: FingerprintHash | None
    number: int
    confirmed: asyncio.Future[Any]

    def is_confirmed(self) -> bool:
        """Whether the broker has it."""
        done = self.confirmed.done() and not self.confirmed.cancelled()
        return done and self.confirmed.exception() is None


class _InFlight:
    """The unconfirmed events of one source, in order, and their bytes."""

    def __init__(self) -> None:
        self.sent = deque[_InFlightEvent]()
        self.bytes = 0

    def is_full(self) -> bool:
        """Whether sending has to wait for confirmations."""
        return len(self.sent) > MAX_IN_FLIGHT or self.bytes > MAX_IN_FLIGHT_BYTES

    def add(self, sent: _InFlightEvent) -> None:
        """Add the event sent last."""
        self.sent.append(sent)
        self.bytes += sent.size

    def pop_confirmed(self) -> Iterator[_InFlightEvent]:
        """Remove the confirmed events before the first unconfirmed one."""
        while self.sent and self.sent[0].is_confirmed():
            self.bytes -= self.sent[0].size
            yield self.sent.popleft()


class Feeder:
    """Feeds streams. give_up: raise after this many seconds without Kafka; None: wait for ever."""

    def __init__(
        self,
        settings: Settings,
        producer: AIOKafkaProducer,
        throttle: Throttle | None,
        checkpoints: Checkpoints | None = None,
        give_up: float | None = GIVE_UP_SECONDS,
    ) -> None:
        self.settings = settings
        self.producer = producer
        self.throttle = throttle
        self.checkpoints = checkpoints or Checkpoints()
        self.give_up = give_up
        self.encoder = EventEncoder(settings)
        self.counts: dict[str, FeedCounts] = {}
        self.confirmed_bytes = 0
        self._away_since: float | None = None
        self._numbers = count()
        self._unrecorded: dict[int, None] = {}

    async def feed(
        self,
        stream: str,
        chunks: AsyncIterator[str] | AsyncIterator[Chunk],
        on_bytes: Callable[[int], None],
    ) -> None:
        """Send the chunks in order; return when the broker has all of them.

        on_bytes: called with the size of each chunk. Raises UnreachableError after `give_up`.
        """
        address, in_flight = _Address(self.settings, stream), _InFlight()
        counts = self.counts.setdefault(stream, FeedCounts())
        async for data in chunks:
            chunk = Chunk(data.encode()) if isinstance(data, str) else data
            for event, upto in _covering(self.encoder.encode(stream, chunk, counts), chunk):
                sent = await self._send(address, event, upto)
                in_flight.add(sent)
                sent.confirmed.add_done_callback(lambda _: self._record(in_flight))
                if self.throttle and event:
                    await self._confirmed(in_flight)
                    await self.throttle.wait(sent.confirmed.result(), len(event.value))
            on_bytes(len(chunk.raw))
            while in_flight.sent and (in_flight.sent[0].confirmed.done() or in_flight.is_full()):
                await self._first_confirmed(in_flight)
        await self._confirmed(in_flight)

    def values(self, stream: str, text: str) -> list[bytes]:
        """The values of the events that the text becomes."""
        return [e.value for e in self.encoder.encode(stream, Chunk(text.encode()), FeedCounts())]

    async def _send(
        self, address: "_Address", event: EncodedEvent | None, upto: Chunk
    ) -> _InFlightEvent:
        """Hand the event to the Kafka client, whose buffer may be full while Kafka is away."""
        self._unrecorded[number := next(self._numbers)] = None
        try:
            return await self._hand_over(address, event, upto, number)
        except BaseException:
            self._unrecorded.pop(number)  # it was not sent
            raise

    async def _hand_over(
        self, address: "_Address", event: EncodedEvent | None, upto: Chunk, number: int
    ) -> _InFlightEvent:
        sent_hash = upto.source.advance(upto) if upto.source else None
        if event is None:
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return _InFlightEvent(0, upto, sent_hash, number, done)
        more = (
            [checkpoint_header(upto, sent_hash)]
            if sent_hash and self.checkpoints.is_persistent
            else []
        )
        time_ms = self.encoder.time_ms(event.chunk)
        while True:
            try:
                confirmed = await self.producer.send(
                    self.settings.tokens_topic, event.value, key=address.key,
                    headers=[*address.headers, *more], timestamp_ms=time_ms,
                )  # fmt: skip
                return _InFlightEvent(len(event.value), upto, sent_hash, number, confirmed)
            except KafkaTimeoutError:
                self._is_away(AWAY_SECONDS)

    async def _confirmed(self, in_flight: _InFlight) -> None:
        """Wait until the broker has all of the source's events."""
        while in_flight.sent:
            await self._first_confirmed(in_flight)

    async def _first_confirmed(self, in_flight: _InFlight) -> None:
        """Wait until the broker has the first event; raise the error if it was not sent."""
        first = in_flight.sent[0].confirmed
        while not first.done():
            await asyncio.wait([first], timeout=AWAY_SECONDS)
            if not first.done():
                self._is_away(AWAY_SECONDS)
        first.result()
        self._record(in_flight)

    def _record(self, in_flight: _InFlight) -> None:
        """Record what the broker confirmed. Called at each confirmation, so that checkpoints do not
        wait for the next line."""
        for sent in in_flight.pop_confirmed():
            self.confirmed_bytes += len(sent.upto.raw)
            if self._away_since is not None:
                logger.warning("Kafka at %s is back", self.settings.broker_address)
                self._away_since = None
            if sent.upto.source:
                self.checkpoints.confirm(sent.upto, sent.sent_hash)
            self._unrecorded.pop(sent.number, None)

    async def wait_until_recorded(self) -> None:
        """Return when all that was sent before this call is confirmed and recorded."""
        last = next(self._numbers)
        while self._unrecorded and next(iter(self._unrecorded)) < last:
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_away(self, seconds: float) -> None:
        """Log that Kafka is away, or raise UnreachableError after `give_up` seconds."""
        now = time.monotonic()
        self._away_since = self._away_since or now - seconds
        away, broker = now - self._away_since, self.settings.broker_address
        if self.give_up is not None and away > self.give_up:
            raise UnreachableError(
                f"Kafka at {broker} has taken nothing for {away:.0f} s: {self.confirmed_bytes} "
                "bytes were sent, each once; with --positions the next feed continues there"
            )
        logger.warning("Kafka at %s has taken nothing for %.0f s: waiting", broker, away)


def _covering(
    events: Iterable[EncodedEvent], chunk: Chunk
) -> Iterator[tuple[EncodedEvent | None, Chunk]]:
    """Each event with the chunk's bytes up to its end; bytes behind the last event come alone."""
    at = 0
    for event in events:
        end = event.chunk.end - chunk.start
        yield event, chunk.slice(at, end)
        at = end
    if at < len(chunk.raw):
        yield None, chunk.slice(at, len(chunk.raw))


class _Address:
    """The key and the headers of a stream's events."""

    def __init__(self, settings: Settings, stream: str) -> None:
        self.key = event_key(settings, stream)
        self.headers: Sequence[tuple[str, bytes]] = event_headers(settings, stream)


@asynccontextmanager
async def open_feeder(
    settings: Settings,
    store: StreamStore | None = None,
    checkpoints: Checkpoints | None = None,
    give_up: float | None = GIVE_UP_SECONDS,
) -> AsyncIterator[Feeder]:
    """A feeder with a connected producer, its checkpoints recovered.

    On librdkafka's mock cluster it is throttled, which needs the workers' Redis (`store`). Raises
    UnreachableError if Kafka does not answer.
    """
    from stream_app.feeding.recovery import recover

    cluster = await ensure_topics(settings)
    if checkpoints and checkpoints.is_persistent:
        await recover(settings, checkpoints, cluster)
    async with AsyncExitStack() as stack:
        throttle = None
        if cluster.startswith("mock"):
            if store is None:
                redis = await stack.enter_async_context(open_redis(settings.redis))
                store = StreamStore.from_settings(settings, redis)
            throttle = Throttle(store)
        producer = await stack.enter_async_context(
            open_producer(settings, linger_ms=5, max_batch_size=_BATCH_BYTES,
                      max_request_size=max(1 << 20, settings.max_event_bytes + 4096))
        )  # fmt: skip
        yield Feeder(settings, producer, throttle, checkpoints, give_up)
