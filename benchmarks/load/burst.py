"""A burst twenty times as fast as the model: does memory stay bounded, and is everything scored?

The whole burst is in Kafka before more than a few hundredths of it are scored. Meanwhile /metrics
gives the lag, and the worker's memory. At the end every stream must equal that of an offline run.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.live_worker import guarded
from benchmarks.harness.loaded_worker import PARTITIONS, POLL_SECONDS, Loaded, Seen, lines, loaded
from stream_app.ingest.tokens import BYTES_PER_TOKEN
from stream_app.settings import Settings

TIMES = 20
STREAMS = 8
LINES = 8  # of an event
TOKENS = 290  # of an event, about


async def measure(
    settings: Settings, folder: Path, seconds: float, speed: float, backlog: int
) -> dict[str, Any]:
    """The figures of a burst of `seconds`, TIMES as fast as the model's `speed` in tokens/s."""
    changes: dict[str, int | str] = {"max_lag_tokens": backlog, "on_lag": "wait"}
    async with loaded(settings, folder, ["paced", f"{speed}"], **changes) as here:
        return await guarded(here.worker, here.log, run(here, seconds, speed))


async def run(here: Loaded, seconds: float, speed: float) -> dict[str, Any]:
    """Send the burst to a worker whose model has that speed."""
    streams, events = here.names(STREAMS), round(seconds * TIMES * speed / TOKENS)
    await here.ask(streams)
    await _send(here, streams, STREAMS, 0)  # warm-up, not measured
    await here.until(here.is_done, "the first events scored")
    seen = [await here.look()]
    sending = asyncio.create_task(_send(here, streams, events, seconds))
    while not (sending.done() and await here.is_done()):
        await asyncio.sleep(POLL_SECONDS)
        seen.append(await here.look())
    return _figures(here, seen, await sending) | {"segments right": await here.complete(streams)}


async def _send(here: Loaded, streams: list[str], events: int, seconds: float) -> float:
    """Send the events evenly over the seconds; the time when the last one was in Kafka."""
    began = time.perf_counter()
    for number in range(events):
        await asyncio.sleep(max(0.0, began + seconds * number / events - time.perf_counter()))
        stream, partition = number % STREAMS, number % PARTITIONS
        await here.send(streams[stream], lines(streams[stream], number, LINES), partition)
    await here.producer.flush()
    return time.perf_counter()


def bound(backlog: int) -> int:
    """The most tokens that may be read but not scored: per partition, the backlog and one batch
    more. A token has at least one byte."""
    return PARTITIONS * backlog * (1 + BYTES_PER_TOKEN)


def _figures(here: Loaded, seen: list[Seen], sent: float) -> dict[str, Any]:
    text = sum(len(text) for texts in here.texts.values() for text in texts)
    return {
        "MB sent": text / 1e6,
        "most tokens unscored": max(each.unscored for each in seen),
        "their bound": bound(here.settings.max_lag_tokens),
        "rss MB before": seen[0].rss_mb,
        "most rss MB": max(each.rss_mb for each in seen),
        "seconds from the last event to no lag": max(0.0, seen[-1].seconds - sent),
    }
