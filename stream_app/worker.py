"""Worker: a process that consumes, scores and answers until it is told to stop.

Checks what it needs before it joins the group, so that a wrong address is one line at the
start. Knows how to start an app; what the app does is `app.py`'s.
"""

import asyncio
import logging.config
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import faust
from mode.utils.logging import level_number

from stream_app import logs
from stream_app.client import connected
from stream_app.errors import SettingsError
from stream_app.group import check_group
from stream_app.http import check_port
from stream_app.inflating import missing_codecs
from stream_app.schema import ensure_schema
from stream_app.settings import Settings, kafka_home
from stream_app.terminal import say
from stream_app.topics import ensure_topics

if TYPE_CHECKING:
    from stream_app.app import App

HOW = "install this program with all it depends on (pip install cramjam zstandard)"

# A shell says so of a process that a signal ended.
SIGNALLED = 128


def run_worker(settings: Settings, loglevel: str = "info") -> None:
    """Run until SIGTERM or SIGINT; leaves the process with Faust's exit code."""
    as_json = logs.as_json(level_number(loglevel)) if settings.log_format == "json" else None
    if as_json:
        logging.config.dictConfig(as_json)
        logs.take_over()
    asyncio.run(check(settings))
    from stream_app.app import create_app

    app = create_app(settings)
    if as_json:
        logs.take_over()  # of the libraries loaded since
    Worker(app, loglevel=loglevel, logging_config=as_json, quiet=True).execute_from_commandline()


class Worker(faust.Worker):
    """Faust's, with an end: told to stop it has so long to, told once more it ends at once."""

    app: "App"

    def install_signal_handlers(self) -> None:
        """Beside those of the event loop, which do not run while it is stuck."""
        super().install_signal_handlers()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)

    def _told(self, number: int, frame: Any) -> None:
        if self.app.stopping.told:
            self.app.stopping.end_now(SIGNALLED + number)
        self.app.stopping.begin()


def run_embedded(settings: Settings, loglevel: str = "info") -> None:
    """A worker with a broker and a Redis of its own, which end with it."""
    from stream_app import embedded

    home = kafka_home()
    with (
        tempfile.TemporaryDirectory(prefix="xl3m-") as folder,
        embedded.redis(Path(folder)) as redis,
        embedded.kafka(Path(folder), kafka_home=home) as kafka,
    ):
        say(f"{redis.kind} at {redis.url}\n{kafka.kind} at {kafka.url}")
        say(f"export XL3M_BROKER={kafka.url} XL3M_REDIS={redis.url}   # in other shells")
        run_worker(settings.embedded(kafka.url, redis.url), loglevel)


async def check(settings: Settings) -> None:
    """See that the port can be had and broker and Redis answer, make missing topics, note the
    schema. The port comes first: it is looked at while nothing knows of this worker.

    Raises SettingsError, SchemaError, and UnreachableError, which say what to start or to set.
    """
    await check_port(settings.http_host, settings.http_port)
    check_codecs()
    async with connected(settings.redis) as redis:
        await ensure_schema(redis)
        await ensure_topics(settings)
    await check_group(settings)


def check_codecs() -> None:
    """Raise SettingsError if a codec of Kafka cannot be read, whose records would all be lost."""
    if missing := missing_codecs():
        raise SettingsError(f"records compressed with {', '.join(missing)} cannot be read: {HOW}")
