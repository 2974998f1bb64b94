"""A soak test: steady traffic at half of the model's speed. Do memory and lag stay flat?

Both are sampled from the worker's /metrics and plotted. Growth is the median of the last quarter
minus that of the second: in the first quarter caches fill and Python's heap settles.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tqdm import tqdm

from benchmarks.harness.live_worker import MEGABYTE, guarded
from benchmarks.harness.loaded_worker import PARTITIONS, Loaded, Seen, lines, loaded
from stream_app.settings import Settings
from training import plots

STREAMS = 200
SPEED = 40_000  # tokens a second
LINES = 8  # of an event
TOKENS = 290  # of an event, about
LOAD = 0.5  # of what the model scores
SAMPLES = 300


async def measure(settings: Settings, folder: Path, seconds: float, plot: Path) -> dict[str, Any]:
    """The figures, and the plot."""
    async with loaded(settings, folder, ["paced", f"{SPEED}"]) as here:
        return await guarded(here.worker, here.log, _run(here, seconds, plot))


async def _run(here: Loaded, seconds: float, plot: Path) -> dict[str, Any]:
    streams, seen = here.names(STREAMS), [await here.look()]
    await here.ask(streams)
    sending = asyncio.create_task(_send(here, streams, seconds))
    with tqdm(total=SAMPLES, desc="soak", disable=None) as bar:
        while not sending.done():
            await asyncio.sleep(seconds / SAMPLES)
            seen.append(await here.look())
            bar.update()
            bar.set_postfix(rss=f"{seen[-1].rss_mb:.0f}", unscored=f"{seen[-1].unscored:.0f}")
    await sending
    await here.until(here.is_done, "all scored")
    draw(plot, seen)
    memory: Any = await here.store.redis.info("memory")
    figures = growth(seen) | {"redis MB at the end": memory["used_memory"] / MEGABYTE}
    print(figures, flush=True)
    return figures | {"segments right": await here.complete(streams)}


async def _send(here: Loaded, streams: Sequence[str], seconds: float) -> None:
    began, every = time.perf_counter(), TOKENS / (LOAD * SPEED)
    for number in range(round(seconds / every)):
        await asyncio.sleep(max(0.0, began + number * every - time.perf_counter()))
        i = number % STREAMS
        await here.send(streams[i], lines(streams[i], number, LINES), i % PARTITIONS)
    await here.producer.flush()


def growth(seen: Sequence[Seen]) -> dict[str, Any]:
    """The figures that should be flat, from the samples."""
    quarter = max(1, len(seen) // 4)
    second, last = seen[quarter : 2 * quarter], seen[-quarter:]
    rss = [median(each.rss_mb for each in some) for some in (second, last)]
    lag = [median(each.unscored for each in some) for some in (second, last)]
    return {
        "minutes": (seen[-1].seconds - seen[0].seconds) / 60,
        "rss MB": rss[1],
        "rss growth": rss[1] / rss[0] - 1,
        "tokens unscored": lag[1],
        "unscored growth, s of scoring": (lag[1] - lag[0]) / SPEED,
        "most tokens unscored": max(each.unscored for each in seen),
    }


def draw(path: Path, seen: Sequence[Seen]) -> Path:
    """Plot memory and unscored tokens over the minutes."""
    minutes = [(each.seconds - seen[0].seconds) / 60 for each in seen]
    rss = [(at, each.rss_mb) for at, each in zip(minutes, seen, strict=True)]
    lag = [(at, each.unscored) for at, each in zip(minutes, seen, strict=True)]
    panels = {"memory of the worker, MB": {"": rss}, "tokens read and not scored": {"": lag}}
    return plots.lines(path, panels, "minutes", "")
