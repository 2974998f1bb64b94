"""Two workers whose model costs nothing: what carrying events costs without one.

`bare` is a Faust agent that acknowledges events and does no more; `free` is the whole worker with
scores made up. Run as `python -m benchmarks.carriers bare COUNT` or `free`, with the settings in
the environment. `bare` prints how long all but the first of COUNT events took.
"""

import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import faust

from stream_app import agents
from stream_app.app import create_app, create_faust, raw_topic
from stream_app.engine import create_engine
from stream_app.settings import Settings
from xl3m_core import Engine


class Free(Engine):
    """Tokenises and segments as the model would, and scores everything alike."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Nothing is certain."""
        return [-1.0] * len(pairs)


def bare(settings: Settings, count: int) -> faust.App:
    """An app that acknowledges."""
    app = create_faust(settings)

    async def handle(events: AsyncIterator[Any]) -> None:
        seen, started = 0, 0.0
        async for event in events:
            started = started or time.perf_counter()
            event.ack()
            seen += 1
            if seen == count:
                print(f"took {time.perf_counter() - started}", flush=True)

    agents.agent(app, raw_topic(app, settings.tokens_topic), handle)
    return app


def free(settings: Settings) -> faust.App:
    """The whole worker."""
    real = create_engine(settings)
    return create_app(settings, Free(real.model, real.method, real.batch_tokens))


def main() -> None:
    """Run one until it is told to stop."""
    settings = Settings.from_env()
    app = bare(settings, int(sys.argv[2])) if sys.argv[1] == "bare" else free(settings)
    faust.Worker(app, loglevel="warning", quiet=True).execute_from_commandline()


if __name__ == "__main__":
    main()
