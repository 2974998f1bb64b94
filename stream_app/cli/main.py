"""The command line: worker, feed, ask, watch, streams, rebuild, run, demo, doctor.

Each verb is a few lines that load what it needs when it is called, so that help is instant.
Exit codes: 0 done; 1 there is no answer, `feed` could not read all of its files, or the doctor
found something to mend; 2 wrong usage or settings, or another version's Redis; 3 broker, Redis or
worker out of reach; 130 interrupted; 143 `feed` was ended by SIGTERM, 129 by SIGHUP.
"""

import asyncio
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stream_app.runtime.malloc import configure_malloc
from xl3m_core.errors import XL3MError

if TYPE_CHECKING:
    from stream_app.settings import Settings

EXIT_NO_ANSWER = 1
EXIT_TO_MEND = 1
EXIT_LEFT_OUT = 1
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130
LEVELS = ("debug", "info", "warning", "error", "critical")


def main() -> None:
    """Run a command; a user's mistake is one line, not a traceback."""
    from stream_app.cli.output import echo, prepare
    from stream_app.runtime.escape import escape

    prepare()
    configure_malloc()
    try:
        cli(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.message = escape(error.message)
        error.show()
        sys.exit(error.exit_code)
    except (XL3MError, OSError) as error:
        echo(f"xl3m: {error}", err=True)
        sys.exit(_code(error))


def _code(error: Exception) -> int:
    return EXIT_UNREACHABLE if isinstance(error, ConnectionError) else 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="xl3m-stream")
def cli() -> None:
    """Ask questions of a stream that never ends.

    Every setting can also be given as an environment variable XL3M_...; the README lists them.
    """


class Text(click.ParamType):
    """Text of a person's, not the bytes a shell may pass on instead."""

    name = "text"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        """The text as it is."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("it is not UTF-8", param, ctx)
        return value


TEXT = Text()


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The options that several commands share."""
    known = {
        "broker": click.option("--broker", help="kafka://host:port  [XL3M_BROKER]"),
        "redis": click.option("--redis", help="redis://host:port/db  [XL3M_REDIS]"),
        "model": click.option("--model", help="A folder or a hub id  [XL3M_MODEL]"),
        "json": click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
    }

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = known[name](command)
        return command

    return add


OPTIONS = {"query_deadline_seconds": "--deadline"}
"""Of settings that have an option by another name than theirs."""


def _settings(**given: Any) -> "Settings":
    """The settings; what is wrong with them is named by the option it came from."""
    from stream_app.errors import SettingsError
    from stream_app.settings import Settings, unknown_variables
    from stream_app.settings.variables import variable

    warnings = unknown_variables()
    try:
        settings = Settings.from_env(**given)
    except SettingsError as error:
        _warn(warnings)
        said = str(error)
        for name in (name for name, value in given.items() if value is not None):
            option = OPTIONS.get(name, f"--{name}")
            said = re.sub(rf"\b{variable(name)}\b", f"{option} ({variable(name)})", said)
        raise SettingsError(said) from None
    if not _has_json_log(settings):
        _warn(warnings)
    return settings


def _has_json_log(settings: "Settings") -> bool:
    """Whether this is a worker whose log is JSON; it takes the warnings, too."""
    return settings.log_format == "json" and click.get_current_context().info_name == "worker"


def _warn(lines: list[str]) -> None:
    from stream_app.cli.output import echo

    for line in lines:
        echo(f"xl3m: warning: {line}", err=True)


@cli.command()
@options("broker", "redis", "model")
@click.option("--group", help="Kafka consumer group.  [XL3M_GROUP]")
@click.option("--embedded", is_flag=True, help="Start a broker and a Redis just for this worker.")
@click.option("--loglevel", type=click.Choice(LEVELS), default="info", show_default=True)
def worker(embedded: bool, loglevel: str, **given: Any) -> None:
    """Read the tokens topic, score, answer. Run as many as you like."""
    from stream_app.cli.worker import run_embedded, run_worker

    settings = _settings(**given)
    try:
        (run_embedded if embedded else run_worker)(settings, loglevel)
    except (XL3MError, OSError) as error:
        if settings.log_format != "json":
            raise
        logging.getLogger("xl3m").critical("%s", error)
        sys.exit(_code(error))


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option("--stream", type=TEXT, help="The stream of all files; by default each has its name.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written later.")
@click.option(
    "-n", "--lines", "last", type=click.IntRange(0), help="Begin with the last N lines of a file."
)
@click.option("--from-end", is_flag=True, help="With -f: only what is written from now on (-n 0).")
@click.option(
    "--positions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Keep in this file how far each file was sent, and go on from there.",
)
@click.option("--topic", type=TEXT, help="Which topic, if XL3M_TOKENS_TOPIC names several.")
@options("broker", "redis")
def feed(
    sources: tuple[str, ...],
    stream: str | None,
    follow: bool,
    last: int | None,
    from_end: bool,
    positions: Path | None,
    topic: str | None,
    **given: Any,
) -> None:
    """Send files, all files of a folder, what a pattern stands for, or standard input (-).

    Compressed files (gzip, bzip2, xz, zstd), UTF-16 and transcripts (WebVTT, SubRip, JSON) are
    read as the text they hold.
    """
    from stream_app.cli.feed import FeedRequest
    from stream_app.cli.feed import feed as run
    from stream_app.cli.signals import run_until_signalled

    if from_end and not follow:
        raise click.UsageError("--from-end needs -f: what is written later is read only with it")
    if from_end and last:
        raise click.UsageError("--from-end is -n 0: give one of them")
    wanted = FeedRequest(sources, stream, follow, 0 if from_end else last, positions, topic)
    ended = asyncio.run(run_until_signalled(run(_settings(**given), wanted)))
    if ended.code or not ended.result:
        sys.exit(ended.code or EXIT_LEFT_OUT)


@cli.command()
@click.argument("stream", type=TEXT)
@click.argument("question", type=TEXT, required=False)
@click.option(
    "--deadline", type=float, help="Seconds to score for at most  [XL3M_QUERY_DEADLINE_SECONDS]"
)
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Say how much is read meanwhile, on standard error; by default on a terminal.",
)
@options("redis", "json")
def ask(
    stream: str,
    question: str | None,
    deadline: float | None,
    progress: bool | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Ask a stream; without a question, its current one."""
    from stream_app.cli import ask as ask_command

    settings = _settings(query_deadline_seconds=deadline, **given)
    shown = sys.stderr.isatty() if progress is None else progress
    if not asyncio.run(ask_command.ask(settings, stream, question, as_json, shown)):
        sys.exit(EXIT_NO_ANSWER)


@cli.command()
@click.argument("stream", type=TEXT)
@click.option("-q", "--question", type=TEXT, help="Add this to the stream's current questions.")
@click.option("--replace", is_flag=True, help="With -q: end the stream's other questions.")
@options("broker", "redis", "json")
def watch(stream: str, question: str | None, replace: bool, as_json: bool, **given: Any) -> None:
    """Show the running top-k of a stream's current question as it changes.

    Of several current questions it is the one that was set last.
    """
    from stream_app.cli import ask as ask_command

    if replace and question is None:
        raise click.UsageError("--replace ends the questions beside that of -q: give one")
    asyncio.run(ask_command.watch(_settings(**given), stream, question, as_json, replace))


@cli.command()
@click.option("--memory", is_flag=True, help="And what each takes in Redis.")
@options("redis", "json")
def streams(memory: bool, as_json: bool, **given: Any) -> None:
    """List the streams and what is known of them."""
    from stream_app.cli import ask as ask_command

    asyncio.run(ask_command.streams(_settings(**given), as_json, memory))


@cli.command()
@click.option("--stream", type=TEXT, help="The stream to begin anew.")
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="All streams and partitions; also an older version's Redis.",
)
@click.option("--yes", is_flag=True, help="Also where Kafka no longer has all of it.")
@options("broker", "redis")
def rebuild(stream: str | None, every: bool, yes: bool, **given: Any) -> None:
    """Throw away what Redis holds of a stream, questions apart, and have workers read it again.

    With --all also partitions whose events all became dead letters, say by a mistyped field.
    Workers may run: those that own the stream's partitions end, and their successors read them
    from the start.
    """
    if bool(stream) == every:
        raise click.UsageError("name one --stream, or say --all")
    settings = _settings(**given)
    from stream_app.cli import rebuild as rebuild_command

    asyncio.run(rebuild_command.run(settings, stream, yes))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.option("-q", "--question", "questions", type=TEXT, required=True, multiple=True)
@options("model", "json")
def run(file: Path, questions: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Answer from a file of any length, without any server."""
    settings = _settings(**given)
    from stream_app.cli import run as run_command

    if not run_command.run(settings, file, questions, as_json):
        sys.exit(EXIT_NO_ANSWER)


@cli.command()
@click.option(
    "--lines",
    type=click.IntRange(1),
    default=3000,
    show_default=True,
    help="Lines of log to stream.",
)
@options("model")
def demo(lines: int, **given: Any) -> None:
    """Everything at once, on this machine, with nothing installed; under two minutes."""
    from stream_app.cli.demo import run_demo

    run_demo(_settings(**given), lines)


@cli.command()
@options("broker", "redis", "model")
def doctor(**given: Any) -> None:
    """Look at all that a worker needs, and say what to mend."""
    from stream_app.cli import doctor

    if not doctor.run(**given):
        sys.exit(EXIT_TO_MEND)
