"""Workers whose model costs nothing, or runs at a given speed.

`bare` is a Faust agent that only acknowledges events; `free` is a complete worker with constant
scores; `paced` is the same at a given number of tokens a second. Run as `python -m
benchmarks.harness.stub_workers bare SKIPPED COUNT`, `free` or `paced SPEED`, with the settings in
the environment. `bare` prints how long all but the first SKIPPED of COUNT events took.
"""

import math
import sys
from collections.abc import AsyncIterator, Collection, Sequence
from time import perf_counter, sleep
from typing import Any

import faust

from stream_app.app import create_app
from stream_app.engine import create_engine
from stream_app.kafka.faust_app import add_agent, create_faust, raw_topic
from stream_app.runtime.malloc import configure_malloc
from stream_app.settings import Settings
from xl3m_core import Engine, Measure
from xl3m_core.features import Features
from xl3m_core.scoring import Scores


class Free(Engine):
    """Tokenises and segments with the model's tokenizer, and gives every pair the same score."""

    def features(
        self, pairs: Sequence[tuple[str, str]], measures: Collection[Measure] = ()
    ) -> list[Features]:
        """Nothing is certain."""
        return [Features(1.0)] * len(pairs)

    def timed_features(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """`features`, and the seconds it took."""
        started = perf_counter()
        return Scores(self.features(pairs), perf_counter() - started)


class Paced(Free):
    """Sleeps as long as the segments' tokens take at its speed."""

    speed = math.inf

    def features(
        self, pairs: Sequence[tuple[str, str]], measures: Collection[Measure] = ()
    ) -> list[Features]:
        """Nothing is certain."""
        sleep(sum(self.model.count_tokens([text for text, _ in pairs])) / self.speed)
        return super().features(pairs, measures)


def bare(settings: Settings, skipped: int, count: int) -> faust.App:
    """An app whose agent only acknowledges events."""
    app = create_faust(settings)

    async def handle(events: AsyncIterator[Any]) -> None:
        await acknowledge(events, skipped, count)

    add_agent(app, raw_topic(app, settings.tokens_topic), handle)
    return app


async def acknowledge(events: AsyncIterator[Any], skipped: int, count: int) -> None:
    """Acknowledge all events; print the seconds from event `skipped` to event `count`."""
    seen, started = 0, perf_counter()
    async for event in events:
        event.ack()
        seen += 1
        if seen == skipped:
            started = perf_counter()
        if seen == count:
            print(f"took {perf_counter() - started}", flush=True)


def free(settings: Settings) -> faust.App:
    """The complete worker, with constant scores."""
    real = create_engine(settings)
    return create_app(settings, Free(real.model, real.method, real.batch_tokens))


def paced(settings: Settings, speed: float) -> faust.App:
    """The complete worker, at `speed` tokens per second."""
    real = create_engine(settings)
    engine = Paced(real.model, real.method, real.batch_tokens)
    engine.speed = speed
    return create_app(settings, engine)


def main() -> None:
    """Run one of them until it is stopped."""
    configure_malloc()
    settings, (kind, *numbers) = Settings.from_env(), sys.argv[1:]
    if kind == "bare":
        app = bare(settings, *map(int, numbers))
    else:
        app = paced(settings, float(numbers[0])) if kind == "paced" else free(settings)
    faust.Worker(app, loglevel="warning", quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
