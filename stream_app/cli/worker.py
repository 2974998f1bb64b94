"""`xl3m worker`: consumes, scores and answers until it is told to stop.

What it needs is checked before it joins the group, so that a wrong address is one line at the
start.
"""

import asyncio
import logging
import logging.config

from mode.utils.logging import level_number

from stream_app.cli.output import echo
from stream_app.errors import SettingsError
from stream_app.kafka.decompression import missing_codecs
from stream_app.kafka.faust_worker import Worker
from stream_app.kafka.group_check import check_group
from stream_app.kafka.topics import ensure_topics
from stream_app.monitoring.http import check_port
from stream_app.runtime import logs
from stream_app.runtime.cleanup import temporary_directory, unwinding_on_signals
from stream_app.settings import Settings, kafka_home, unknown_variables
from stream_app.store.connection import open_redis
from stream_app.store.groups import note_group
from stream_app.store.keys import Keys
from stream_app.store.schema import ensure_schema
from stream_app.store.server_check import ensure_usable

INSTALL = "install the missing packages (pip install cramjam zstandard)"
logger = logging.getLogger("xl3m")


def run_worker(settings: Settings, loglevel: str = "info") -> None:
    """Run until SIGTERM or SIGINT; the process ends with Faust's exit code."""
    level = level_number(loglevel)
    as_json = logs.json_config(level) if settings.log_format == "json" else None
    logs.quiet_libraries(level)
    if as_json:
        logging.config.dictConfig(as_json)
        logs.capture_all()
        for line in unknown_variables():
            _warn(settings, line)
    asyncio.run(check(settings))
    from stream_app.app import create_app
    from stream_app.engine import create_engine, description

    engine = create_engine(settings)
    app = create_app(settings, engine)
    if as_json:
        logs.capture_all()  # of the libraries loaded since
    worker = Worker(app, loglevel=loglevel, logging_config=as_json, quiet=True)
    worker.model = f"{settings.model or 'the bundled model'}: {description(engine)}"
    worker.execute_from_commandline()


def run_embedded(settings: Settings, loglevel: str = "info") -> None:
    """A worker with its own broker and Redis, which end with it."""
    from stream_app.embedded import services

    home = kafka_home()
    with (
        unwinding_on_signals(),
        temporary_directory("xl3m-") as folder,
        services.redis(folder) as redis,
        services.kafka(folder, kafka_home=home) as kafka,
    ):
        echo(f"{redis.kind} at {redis.url}\n{kafka.kind} at {kafka.url}")
        echo(f"export XL3M_BROKER={kafka.url} XL3M_REDIS={redis.url}   # for other shells")
        run_worker(settings.embedded(kafka.url, redis.url), loglevel)


async def check(settings: Settings) -> None:
    """Check the HTTP port, Redis and Kafka; create missing topics; record schema and group.

    The port is checked first, before the worker leaves any trace. Raises SettingsError, SchemaError
    and UnreachableError, which say what to start or to set.
    """
    await check_port(settings.http_host, settings.http_port)
    check_codecs()
    async with open_redis(settings.redis) as redis:
        await ensure_usable(redis)
        await ensure_schema(redis, Keys(settings.prefix))
        if warning := await note_group(redis, settings):
            _warn(settings, warning)
        await ensure_topics(settings)
    await check_group(settings)


def check_codecs() -> None:
    """Raise SettingsError if a Kafka codec cannot be read: all its records would be lost."""
    if missing := missing_codecs():
        raise SettingsError(
            f"records compressed with {', '.join(missing)} cannot be read: {INSTALL}"
        )


def _warn(settings: Settings, line: str) -> None:
    """Log the line if the log is set up by now, else print it on standard error."""
    if settings.log_format == "json":
        logger.warning("%s", line)
    else:
        echo(f"xl3m: warning: {line}", err=True)
