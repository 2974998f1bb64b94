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

from stream_app.client import client
from stream_app.errors import UnreachableError
from stream_app.feeding.encoder import Counts, Event, Form
from stream_app.feeding.addressing import headers, key
from stream_app.feeding.fingerprint import Note
from stream_app.feeding.throttle import Pace
from stream_app.feeding.chunking import Piece
from stream_app.feeding.checkpoints import Book
from stream_app.feeding.recovery import header
from stream_app.kafka.producer import open_producer
from stream_app.kafka.topics import ensure_topics
from stream_app.settings import Settings
from stream_app.store.store import StreamStore

logger = logging.getLogger("xl3m")

# Events on their way to the broker, unconfirmed, and the bytes in them.
SENT_AHEAD = 1000
SENT_AHEAD_BYTES = 2 << 20
AWAY_SECONDS = 10.0
# Who does not follow gives up then.
GIVE_UP_SECONDS = 300.0
_BATCH_BYTES = 131_072
_LOOK_SECONDS = 0.1


class _Sent(NamedTuple):
    """An event on its way, and all that the file has up to its end; or, without an event, what
    was left out. note: the marks behind it."""

    size: int
    upto: Piece
    note: Note | None
    number: int
    confirmed: asyncio.Future[Any]

    def is_confirmed(self) -> bool:
        """Whether the broker has it."""
        done = self.confirmed.done() and not self.confirmed.cancelled()
        return done and self.confirmed.exception() is None


class _Ahead:
    """What of one source is on its way, in order, and the bytes in it."""

    def __init__(self) -> None:
        self.sent = deque[_Sent]()
        self.bytes = 0

    def is_full(self) -> bool:
        """Whether there is to be no more of it for now."""
        return len(self.sent) > SENT_AHEAD or self.bytes > SENT_AHEAD_BYTES

    def add(self, sent: _Sent) -> None:
        """It was sent last."""
        self.sent.append(sent)
        self.bytes += sent.size

    def take(self) -> Iterator[_Sent]:
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
        pace: "Pace | None",
        book: Book | None = None,
        give_up: float | None = GIVE_UP_SECONDS,
    ) -> None:
        self.settings = settings
        self.producer = producer
        self.pace = pace
        self.book = book or Book()
        self.give_up = give_up
        self.form = Form(settings)
        self.counts: dict[str, Counts] = {}
        self.confirmed_bytes = 0
        self._away_since: float | None = None
        self._numbers = count()
        self._unbooked: dict[int, None] = {}

    async def feed(
        self,
        stream: str,
        chunks: AsyncIterator[str] | AsyncIterator[Piece],
        on_bytes: Callable[[int], None],
    ) -> None:
        """Send the chunks, in order, and return when the broker has all of them."""
        way, ahead = _Way(self.settings, stream), _Ahead()
        counts = self.counts.setdefault(stream, Counts())
        async for chunk in chunks:
            piece = Piece(chunk.encode()) if isinstance(chunk, str) else chunk
            for event, upto in _covering(self.form.events(stream, piece, counts), piece):
                sent = await self._send(way, event, upto)
                ahead.add(sent)
                sent.confirmed.add_done_callback(lambda _: self._take_down(ahead))
                if self.pace and event:
                    await self._confirmed(ahead)
                    await self.pace.wait(sent.confirmed.result(), len(event.value))
            on_bytes(len(piece.raw))
            while ahead.sent and (ahead.sent[0].confirmed.done() or ahead.is_full()):
                await self._first_confirmed(ahead)
        await self._confirmed(ahead)

    def values(self, stream: str, text: str) -> list[bytes]:
        """The text as the values of one event or of several."""
        return [e.value for e in self.form.events(stream, Piece(text.encode()), Counts())]

    async def _send(self, way: "_Way", event: Event | None, upto: Piece) -> _Sent:
        """Hand it to the client, which may have no room while Kafka is away."""
        self._unbooked[number := next(self._numbers)] = None
        try:
            return await self._hand_over(way, event, upto, number)
        except BaseException:
            self._unbooked.pop(number)  # it is not on its way
            raise

    async def _hand_over(self, way: "_Way", event: Event | None, upto: Piece, number: int) -> _Sent:
        note = upto.source.hands_over(upto) if upto.source else None
        if event is None:
            done = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return _Sent(0, upto, note, number, done)
        more = [header(upto, note)] if note and self.book.persists else []
        time_ms = self.form.time_ms(event.piece)
        while True:
            try:
                confirmed = await self.producer.send(
                    self.settings.tokens_topic, event.value, key=way.key,
                    headers=[*way.headers, *more], timestamp_ms=time_ms,
                )  # fmt: skip
                return _Sent(len(event.value), upto, note, number, confirmed)
            except KafkaTimeoutError:
                self._is_away(AWAY_SECONDS)

    async def _confirmed(self, ahead: _Ahead) -> None:
        """Wait until the broker has all of it."""
        while ahead.sent:
            await self._first_confirmed(ahead)

    async def _first_confirmed(self, ahead: _Ahead) -> None:
        """Wait until the broker has the first of it; raise what keeps it from that."""
        first = ahead.sent[0].confirmed
        while not first.done():
            await asyncio.wait([first], timeout=AWAY_SECONDS)
            if not first.done():
                self._is_away(AWAY_SECONDS)
        first.result()
        self._take_down(ahead)

    def _take_down(self, ahead: _Ahead) -> None:
        """Take down what the broker has. It is called for each confirmation, so that the book does
        not wait for the next line."""
        for sent in ahead.take():
            self.confirmed_bytes += len(sent.upto.raw)
            if self._away_since is not None:
                logger.warning("Kafka at %s is back", self.settings.broker_address)
                self._away_since = None
            if sent.upto.source:
                self.book.confirmed(sent.upto, sent.note)
            self._unbooked.pop(sent.number, None)

    async def booked(self) -> None:
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


def _covering(events: Iterable[Event], piece: Piece) -> Iterator[tuple[Event | None, Piece]]:
    """Each event with what the piece has from the one before up to its end; what comes after the
    last one, and is not sent, alone."""
    at = 0
    for event in events:
        end = event.piece.end - piece.start
        yield event, piece.part(at, end)
        at = end
    if at < len(piece.raw):
        yield None, piece.part(at, len(piece.raw))


class _Way:
    """How events of a stream are addressed."""

    def __init__(self, settings: Settings, stream: str) -> None:
        self.key = key(settings, stream)
        self.headers: Sequence[tuple[str, bytes]] = headers(settings, stream)


@asynccontextmanager
async def feeding(
    settings: Settings,
    store: StreamStore | None = None,
    book: Book | None = None,
    give_up: float | None = GIVE_UP_SECONDS,
) -> AsyncIterator[Feeder]:
    """A feeder on a broker that answers; paced if that is librdkafka's mock cluster, which needs
    the Redis of the workers."""
    from stream_app.feeding.recovery import recover

    cluster = await ensure_topics(settings)
    if book and book.persists:
        await recover(settings, book, cluster)
    async with AsyncExitStack() as stack:
        pace = None
        if cluster.startswith("mock"):
            if store is None:
                redis = await stack.enter_async_context(client.open_redis(settings.redis))
                store = client.store_of(settings, redis)
            pace = Pace(store)
        producer = await stack.enter_async_context(
            open_producer(settings, linger_ms=5, max_batch_size=_BATCH_BYTES,
                      max_request_size=max(1 << 20, settings.max_event_bytes + 4096))
        )  # fmt: skip
        yield Feeder(settings, producer, pace, book, give_up)
