"""What a worker does under load: many streams, one hot stream, a burst, a soak, triage.

Uses a real Kafka (KAFKA_HOME; the mock cluster drops what is not read in time), a real Redis and a
worker process whose model runs at a given speed, so that the figures are the stream's and not the
model's; for triage the model is real. The sizes of the parts are set here.
"""

import argparse
import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.timing import Ratio
from benchmarks.load import burst, hot_stream, many_streams, soak, triage
from stream_app.embedded import services
from stream_app.settings import Settings, kafka_home

STREAMS, SHORT_STREAMS = (10_000, 3), (1000, 3)  # how many, and events of each
HOT, SHORT_HOT = (999, 120.0), (999, 15.0)  # slow streams, and seconds
BURST, SHORT_BURST = (10.0, 20_000, 8192), (1.0, 20_000, 4096)  # seconds, tokens/s, backlog
MINUTES, SHORT_MINUTES = 30.0, 0.3
TRIAGE, SHORT_TRIAGE = 5.0, 1.0  # minutes
PARTS = "streams", "hot", "burst", "soak", "triage"


def add_arguments(group: Any) -> None:
    """Options of this benchmark."""
    group.add_argument("--minutes", type=float, help="of the soak and of triage")
    group.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per figure."""
    if not kafka_home():
        print("load needs a real Kafka: set KAFKA_HOME to an unpacked distribution")
        return []
    with (
        tempfile.TemporaryDirectory(prefix="xl3m-bench-") as folder,
        services.redis(Path(folder)) as redis,
        services.kafka(Path(folder), kafka_home=kafka_home()) as kafka,
    ):
        here = Settings.from_env(model=args.model, broker=kafka.url, redis=redis.url)
        return asyncio.run(_rows(here, Path(folder), args))


async def _rows(settings: Settings, folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    short, rows = args.short, list[dict[str, Any]]()
    minutes = args.minutes or (SHORT_MINUTES if short else MINUTES)
    triage_minutes = args.minutes or (SHORT_TRIAGE if short else TRIAGE)
    plot = Path(args.out) / "load_soak.png"
    parts: Mapping[str, Any] = {
        "streams": (many_streams.measure, SHORT_STREAMS if short else STREAMS),
        "hot": (hot_stream.measure, SHORT_HOT if short else HOT),
        "burst": (burst.measure, SHORT_BURST if short else BURST),
        "soak": (soak.measure, (60 * minutes, plot)),
        "triage": (triage.measure, (60 * triage_minutes,)),
    }
    for name in tqdm(args.parts, desc="load", disable=None):
        measure_it, numbers = parts[name]
        found = await measure_it(settings, folder, *numbers)
        rows += [{"load": name, "figure": what, "value": value} for what, value in found.items()]
    return rows


def ratios(rows: list[dict[str, Any]]) -> list[Ratio]:
    """The figures that do not depend on the machine's speed."""
    found = {(row["load"], row["figure"]): row["value"] for row in rows}
    goals = {("streams", "many over few"): "1: flat", ("soak", "rss growth"): "0: flat"}
    made = [Ratio(" ".join(key), found[key], goal) for key, goal in goals.items() if key in found]
    if most := found.get(("burst", "most tokens unscored")):
        bound = found["burst", "their bound"]
        made.append(Ratio("burst, unscored over its bound", most / bound, "at most 1"))
    if (soon := found.get(("triage", "found within 10 s"))) is not None:
        made.append(Ratio("triage, planted evidence found within 10 s", soon, "at least .95"))
    return made
