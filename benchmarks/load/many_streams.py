"""Very many streams on one worker: are their logs right, and what does an event cost?

The same number of events is spread over a few streams and over many, each with a standing question,
round robin, so that no two events of a stream are adjacent. The model costs nothing.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness.live_worker import guarded
from benchmarks.harness.loaded_worker import PARTITIONS, Loaded, lines, loaded
from stream_app.settings import Settings

FEW = 10
LINES = 8  # of an event: about three segments
HALF = 0.5  # of the events: by then every stream has its first


async def measure(settings: Settings, folder: Path, streams: int, each: int) -> dict[str, Any]:
    """The figures of `streams` streams with `each` events, and of FEW with as many in all."""
    figures = dict[str, Any]()
    for count in (FEW, streams):
        async with loaded(settings, folder, ["free"]) as here:
            run = _run(here, count, streams * each // count)
            found = await guarded(here.worker, here.log, run)
        figures |= {f"{figure}, {count:,} streams": value for figure, value in found.items()}
    few, many = (figures[f"ms an event, {count:,} streams"] for count in (FEW, streams))
    return figures | {"many over few": many / few}


async def _run(here: Loaded, count: int, each: int) -> dict[str, Any]:
    streams = here.names(count)
    await here.ask(streams)
    for number in range(each):
        for i, stream in enumerate(streams):
            await here.send(stream, lines(stream, number, LINES), i % PARTITIONS)
    await here.producer.flush()
    await here.until(partial(_has_read, here, HALF), "the first half read")
    began, before = time.perf_counter(), await here.read()
    await here.until(partial(_has_read, here, 1), "all read")
    spent, read = time.perf_counter() - began, await here.read() - before
    await here.until(here.is_done, "all scored")
    rss = (await here.look()).rss_mb
    segments = await here.complete(streams)
    return {"segments right": segments, "ms an event": 1000 * spent / max(1, read), "rss MB": rss}


async def _has_read(here: Loaded, share: float) -> bool:
    return await here.read() >= share * here.sent
