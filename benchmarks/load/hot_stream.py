"""One stream with nearly all the traffic beside many slow ones: how long do the slow ones wait?

The model scores a fifth of the traffic. A wait is the time from an event's timestamp in Kafka until
the last segment it completed is in its question's range, polled ten times a second. `alone`: the
same slow traffic before the hot stream begins. Slow streams in the hot stream's partition queue
behind it and are counted separately.
"""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.live_worker import guarded
from benchmarks.harness.loaded_worker import PARTITIONS, POLL_SECONDS, Loaded, lines, loaded
from stream_app.settings import Settings
from xl3m_core import Tail

SHARE = 0.95  # of the traffic, the hot stream's
SLOW_A_SECOND = 20  # events of all slow streams
LINES = 8  # of an event
TOKENS = 290  # of an event, about
SCORED_SHARE = 0.2  # of the traffic, what the model scores
WAITS = "alone", "beside the hot stream", "behind it in its partition"


@dataclass(slots=True)
class Expected:
    """Events whose segments are not scored yet. By stream: the head after the event, its timestamp,
    and the name its wait is recorded under."""

    tails: dict[str, Tail] = field(default_factory=lambda: defaultdict(Tail))
    events: dict[str, deque[tuple[int, float, str]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    waits: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def came(self, here: Loaded, stream: str, text: str, at: float, name: str) -> None:
        """Record an event, unless it completes no segment."""
        self.tails[stream], new = here.engine.segmenter().push(self.tails[stream], text)
        if new:
            self.events[stream].append((new[-1].index + 1, at, name))

    def scored(self, stream: str, hi: int, now: float) -> None:
        """Record the waits of the events that a range up to `hi` covers."""
        waiting = self.events[stream]
        while waiting and waiting[0][0] <= hi:
            _, at, name = waiting.popleft()
            self.waits[name].append(now - at)

    def left(self, name: str) -> list[float]:
        """The timestamps of events that are not scored yet."""
        return [at for waiting in self.events.values() for _, at, n in waiting if n == name]


async def measure(settings: Settings, folder: Path, slow: int, seconds: float) -> dict[str, Any]:
    """The figures of `seconds` without the hot stream, and as many with it."""
    traffic = SLOW_A_SECOND * TOKENS / (1 - SHARE)
    changes: dict[str, int | str] = {"max_lag_tokens": 16_384, "on_lag": "wait"}
    async with loaded(settings, folder, ["paced", f"{SCORED_SHARE * traffic}"], **changes) as here:
        return await guarded(here.worker, here.log, _run(here, slow, seconds))


async def _run(here: Loaded, slow: int, seconds: float) -> dict[str, Any]:
    hot, *others = here.names(slow + 1)
    await here.ask([hot, *others])
    expected = Expected()
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(_look(here, expected))
        await _slow(here, others, expected, seconds, beside=False)
        await here.until(here.is_done, "the slow streams alone scored")
        flooding = tasks.create_task(_flood(here, hot))
        await _slow(here, others, expected, seconds, beside=True)
        flooding.cancel()
        await here.until(lambda: _is_through(expected), "the slow streams scored")
        lag, head = here.sent - await here.read(), (await here.store.load(hot)).cursor.head
        looking.cancel()
    return _figures(expected) | {"hot: events unread then": lag, "hot: segments read": head}


async def _is_through(expected: Expected) -> bool:
    return not expected.left(WAITS[1])


async def _look(here: Loaded, expected: Expected) -> None:
    """Record what is scored, until cancelled."""
    while True:
        await asyncio.sleep(POLL_SECONDS)
        waiting = [stream for stream, events in expected.events.items() if events]
        for stream, reached in zip(waiting, await here.reached(waiting), strict=True):
            expected.scored(stream, reached, time.time())


async def _slow(
    here: Loaded, streams: Sequence[str], expected: Expected, seconds: float, beside: bool
) -> None:
    """Send the slow streams' events, round robin and evenly."""
    began = time.perf_counter()
    for number in range(round(seconds * SLOW_A_SECOND)):
        await asyncio.sleep(max(0.0, began + number / SLOW_A_SECOND - time.perf_counter()))
        i = number % len(streams)
        stream, partition = streams[i], i % PARTITIONS
        text = lines(stream, number, LINES)
        at = await here.send(stream, text, partition)
        expected.came(here, stream, text, at, WAITS[(1 + (partition == 0)) if beside else 0])


async def _flood(here: Loaded, stream: str) -> None:
    """Send the hot stream's events, until cancelled."""
    began, number = time.perf_counter(), 0
    every = (1 - SHARE) / SHARE / SLOW_A_SECOND
    while True:
        await here.send(stream, lines(stream, number, LINES), 0)
        number += 1
        await asyncio.sleep(max(0.0, began + number * every - time.perf_counter()))


def _figures(expected: Expected) -> dict[str, Any]:
    """p50, p99 and maximum of the waits; an event that is not scored yet counts with its wait so
    far."""
    figures, now = dict[str, Any](), time.time()
    for name in WAITS:
        waits = sorted(expected.waits[name] + [now - at for at in expected.left(name)])
        for what, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            with suppress(IndexError):
                figures[f"{what} s, {name}"] = waits[min(len(waits) - 1, int(share * len(waits)))]
    return figures
