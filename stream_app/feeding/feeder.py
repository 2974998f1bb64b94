"""Feeder: sends pieces of files as events of the tokens topic, each once and in order.

A Kafka that is away is waited for. On a broker that silently drops what it has no room for, it
paces itself to the consumer. Knows Kafka and events; opens no file.
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

# Events on their way to the broker, unconfirmed, and the bytes in them.
MAX_IN_FLIGHT = 1000
MAX_IN_FLIGHT_BYTES = 2 << 20
AWAY_SECONDS = 10.0
# Who does not follow gives up then.
GIVE_UP_SECONDS = 300.0
_BATCH_BYTES = 131_072
_LOOK_SECONDS = 0.1


class _InFlightEvent(NamedTuple):
    """An event on its way, and all that the file has up to its end; or, without an event, what
    was left out. note: the marks behind it."""

    size: int
    upto: Chunk
    note: FingerprintHash | None
    number: int
    confirmed: asyncio.Future[Any]

    def is_confirmed(self) -> bool:
        """Whether the broker has it."""
        done = self.confirmed.done() and not self.confirmed.cancelled()
        return done and self.confirmed.exception() is None


class _InFlight:
    """What of one source is on its way, in order, and the bytes in it."""

    def __init__(self) -> None:
        self.sent = deque[_InFlightEvent]()
        self.bytes = 0

    def is_full(self) -> bool:
        """Whether there is to be no more of it for now."""
        return len(self.sent) > MAX_IN_FLIGHT or self.bytes > MAX_IN_FLIGHT_BYTES

    def add(self, sent: _InFlightEvent) -> None:
        """It was sent last."""
        self.sent.append(sent)
        self.bytes += sent.size

    def take(self) -> Iterator[_InFlightEvent]:
        """Remove what the broker has, up to the first that it may not have."""
        while self.sent and self.sent[0].is_confirmed():
            self.bytes -= self.sent[0].size
            yield self.sent.popleft()


class Feeder:
    """Feeds streams. give_up: seconds without a Kafka; None waits for ever."""

    def __init__(
        self,
        settings: Settings,
        producer: AIOKafkaProducer,
        pace: "Throttle | None",
        book: Checkpoints | None = None,
        give_up: float | None = GIVE_UP_SECONDS,
    ) -> None:
        self.settings = settings
        self.producer = producer
        self.throttle = pace
        self.checkpoints = book or Checkpoints()
        self.give_up = give_up
        self.encoder = EventEncoder(settings)
        self.counts: dict[str, FeedCounts] = {}
        self.confirmed_bytes = 0
        self._away_since: float | None = None
        self._numbers = count()
        self._unbooked: dict[int, None] = {}

    async def feed(
        self,
        stream: str,
        chunks: AsyncIterator[str] | AsyncIterator[Chunk],
        on_bytes: Callable[[int], None],
    ) -> None:
        """Send the chunks, in order, and return when the broker has all of them."""
        way, ahead = _Way(self.settings, stream), _InFlight()
        counts = self.counts.setdefault(stream, FeedCounts())
        async for chunk in chunks:
            piece = Chunk(chunk.encode()) if isinstance(chunk, str) else chunk
            for event, upto in _covering(self.encoder.encode(stream, piece, counts), piece):
                sent = await self._send(way, event, upto)
                ahead.add(sent)
                sent.confirmed.add_done_callback(lambda _: self._take_down(ahead))
                if self.throttle and event:
                    await self._confirmed(ahead)
                    await self.throttle.wait(sent.confirmed.result(), len(event.value))
            on_bytes(len(piece.raw))
            while ahead.sent and (ahead.sent[0].confirmed.done() or ahead.is_full()):
                await self._first_confirmed(ahead)
        await self._confirmed(ahead)

    def values(self, stream: str, text: str) -> list[bytes]:
        """The text as the values of one event or of several."""
        return [e.value for e in self.encoder.encode(stream, Chunk(text.encode()), FeedCounts())]

    async def _send(self, way: "_Way", event: EncodedEvent | None, upto: Chunk) -> _InFlightEvent:
        """Hand it to the client, which may have no room while Kafka is away."""
        self._unbooked[number := next(self._numbers)] = None
        try:
            return await self._hand_over(way, event, upto, number)
        except BaseException:
            self._unbooked.pop(number)  # it is not on its way
            raise

    async def _hand_over(
        self, way: "_Way", event: EncodedEvent | None, upto: Chunk, number: int
    ) -> _InFlightEvent:
        note = upto.source.advance(upto) if upto.source else None
        if event is None:
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return _InFlightEvent(0, upto, note, number, done)
        more = [checkpoint_header(upto, note)] if note and self.checkpoints.is_persistent else []
        time_ms = self.encoder.time_ms(event.chunk)
        while True:
            try:
                confirmed = await self.producer.send(
                    self.settings.tokens_topic, event.value, key=way.key,
                    headers=[*way.headers, *more], timestamp_ms=time_ms,
                )  # fmt: skip
                return _InFlightEvent(len(event.value), upto, note, number, confirmed)
            except KafkaTimeoutError:
                self._is_away(AWAY_SECONDS)

    async def _confirmed(self, ahead: _InFlight) -> None:
        """Wait until the broker has all of it."""
        while ahead.sent:
            await self._first_confirmed(ahead)

    async def _first_confirmed(self, ahead: _InFlight) -> None:
        """Wait until the broker has the first of it; raise what keeps it from that."""
        first = ahead.sent[0].confirmed
        while not first.done():
            await asyncio.wait([first], timeout=AWAY_SECONDS)
            if not first.done():
                self._is_away(AWAY_SECONDS)
        first.result()
        self._take_down(ahead)

    def _take_down(self, ahead: _InFlight) -> None:
        """Take down what the broker has. It is called for each confirmation, so that the book does
        not wait for the next line."""
        for sent in ahead.take():
            self.confirmed_bytes += len(sent.upto.raw)
            if self._away_since is not None:
                logger.warning("Kafka at %s is back", self.settings.broker_address)
                self._away_since = None
            if sent.upto.source:
                self.checkpoints.confirm(sent.upto, sent.note)
            self._unbooked.pop(sent.number, None)

    async def wait_until_recorded(self) -> None:
        """Return when all that was sent before this call is confirmed and taken down."""
        last = next(self._numbers)
        while self._unbooked and next(iter(self._unbooked)) < last:
            await asyncio.sleep(_LOOK_SECONDS)

    def _is_away(self, seconds: float) -> None:
        """Say it, and raise UnreachableError when that is for too long."""
        now = time.monotonic()
        self._away_since = self._away_since or now - seconds
        away, broker = now - self._away_since, self.settings.broker_address
        if self.give_up is not None and away > self.give_up:
            raise UnreachableError(
                f"Kafka at {broker} has taken nothing for {away:.0f} s: {self.confirmed_bytes} "
                "bytes were sent, each once; with --positions the next feed goes on from there"
            )
        logger.warning("Kafka at %s has taken nothing for %.0f s: waiting", broker, away)


def _covering(
    events: Iterable[EncodedEvent], piece: Chunk
) -> Iterator[tuple[EncodedEvent | None, Chunk]]:
    """Each event with what the piece has from the one before up to its end; what comes after the
    last one, and is not sent, alone."""
    at = 0
    for event in events:
        end = event.chunk.end - piece.start
        yield event, piece.slice(at, end)
        at = end
    if at < len(piece.raw):
        yield None, piece.slice(at, len(piece.raw))


class _Way:
    """How events of a stream are addressed."""

    def __init__(self, settings: Settings, stream: str) -> None:
        self.key = event_key(settings, stream)
        self.headers: Sequence[tuple[str, bytes]] = event_headers(settings, stream)


@asynccontextmanager
async def open_feeder(
    settings: Settings,
    store: StreamStore | None = None,
    book: Checkpoints | None = None,
    give_up: float | None = GIVE_UP_SECONDS,
) -> AsyncIterator[Feeder]:
    """A feeder on a broker that answers; paced if that is librdkafka's mock cluster, which needs
    the Redis of the workers."""
    from stream_app.feeding.recovery import recover

    cluster = await ensure_topics(settings)
    if book and book.is_persistent:
        await recover(settings, book, cluster)
    async with AsyncExitStack() as stack:
        pace = None
        if cluster.startswith("mock"):
            if store is None:
                redis = await stack.enter_async_context(open_redis(settings.redis))
                store = StreamStore.from_settings(settings, redis)
            pace = Throttle(store)
        producer = await stack.enter_async_context(
            open_producer(settings, linger_ms=5, max_batch_size=_BATCH_BYTES,
                      max_request_size=max(1 << 20, settings.max_event_bytes + 4096))
        )  # fmt: skip
        yield Feeder(settings, producer, pace, book, give_up)
