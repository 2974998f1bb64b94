"""The command line: worker, feed, ask, watch, streams, rebuild, run, demo, doctor.

Each verb imports what it needs when it is called, so that `--help` is instant. Exit codes:

0    done
1    no answer; `feed` skipped some input; `doctor` found a problem
2    wrong usage or settings, or Redis holds another version's data
3    Kafka, Redis or a worker cannot be reached
130  interrupted; `feed` ended by a signal: 128 + its number (143 SIGTERM, 129 SIGHUP)
"""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import click

from stream_app.cli.options import TEXT, load_settings, options
from stream_app.runtime.malloc import configure_malloc
from xl3m_core.errors import XL3MError

EXIT_NO_ANSWER = 1
EXIT_FAILED_CHECK = 1
EXIT_SKIPPED_INPUT = 1
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 130
LEVELS = ("debug", "info", "warning", "error", "critical")


def main() -> None:
    """Run a command; an error of the user is one line, not a traceback."""
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
    """Ask questions of an endless stream with a short-context language model.

    \b
    xl3m demo                              try it: nothing to install
    xl3m worker                            read the topic, score, answer
    xl3m feed app.log                      send a file to the topic
    xl3m ask app.log "Which host fails?"   ask

    Settings are also read from environment variables XL3M_...; docs/settings.md lists them.
    """


@cli.command()
@options("broker", "redis", "model")
@click.option("--group", help="Kafka consumer group.  [XL3M_GROUP]")
@click.option(
    "--embedded",
    is_flag=True,
    help="Start and stop a broker and a Redis with it.",
)
@click.option("--loglevel", type=click.Choice(LEVELS), default="info", show_default=True)
def worker(embedded: bool, loglevel: str, **given: Any) -> None:
    """Consume the tokens topic, score its segments and answer queries.

    Start several to share the partitions.

    \b
    Example: xl3m worker --broker kafka://localhost:9092 --redis redis://localhost:6379/0
    """
    from stream_app.cli.worker import run_embedded, run_worker

    settings = load_settings(**given)
    try:
        (run_embedded if embedded else run_worker)(settings, loglevel)
    except (XL3MError, OSError) as error:
        if settings.log_format != "json":
            raise
        logging.getLogger("xl3m").critical("%s", error)
        sys.exit(_code(error))


@cli.command()
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option("--stream", type=TEXT, help="Stream of all files; default: one per file.")
@click.option("-f", "--follow", is_flag=True, help="Keep reading what is appended (tail -f).")
@click.option(
    "-n", "--lines", "last", type=click.IntRange(0), help="Start at the last N lines of each file."
)
@click.option("--from-end", is_flag=True, help="With -f: send only new lines (same as -n 0).")
@click.option(
    "--positions",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Checkpoint file: remembers how far each file was sent; a restart continues.",
)
@click.option("--topic", type=TEXT, help="Topic to send to, if XL3M_TOKENS_TOPIC names several.")
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
    """Send files to the tokens topic; each file is one stream.

    FILE is a file, a folder, a pattern such as 'logs/*.log', or - for standard input. Compressed
    files (gzip, bzip2, xz, zstd), UTF-16 and transcripts (WebVTT, SubRip, JSON) are sent as text.

    \b
    Example: xl3m feed /var/log/app.log -f --positions app.positions
    """
    from stream_app.cli.feed import FeedRequest
    from stream_app.cli.feed import feed as run
    from stream_app.cli.signals import run_until_signalled

    if from_end and not follow:
        raise click.UsageError("--from-end needs -f: it sends only lines that are written later")
    if from_end and last:
        raise click.UsageError("--from-end is the same as -n 0: give only one of them")
    wanted = FeedRequest(sources, stream, follow, 0 if from_end else last, positions, topic)
    ended = asyncio.run(run_until_signalled(run(load_settings(**given), wanted)))
    if ended.code or not ended.result:
        sys.exit(ended.code or EXIT_SKIPPED_INPUT)


@cli.command()
@click.argument("stream", type=TEXT)
@click.argument("question", type=TEXT, required=False)
@click.option(
    "--deadline", type=float, help="Maximum seconds to spend scoring  [XL3M_QUERY_DEADLINE_SECONDS]"
)
@click.option(
    "--progress/--no-progress",
    default=None,
    help="Show scoring progress on standard error; default: on a terminal.",
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
    """Ask a stream a question; without one, ask its standing question.

    \b
    Example: xl3m ask app.log "Which host fails?"
    """
    from stream_app.cli import ask as ask_command

    settings = load_settings(query_deadline_seconds=deadline, **given)
    shown = sys.stderr.isatty() if progress is None else progress
    if not asyncio.run(ask_command.ask(settings, stream, question, as_json, shown)):
        sys.exit(EXIT_NO_ANSWER)


@cli.command()
@click.argument("stream", type=TEXT)
@click.option("-q", "--question", type=TEXT, help="Add this standing question to the stream.")
@click.option("--replace", is_flag=True, help="With -q: end the stream's other standing questions.")
@options("broker", "redis", "json")
def watch(stream: str, question: str | None, replace: bool, as_json: bool, **given: Any) -> None:
    """Show a question's best segments whenever they change.

    Without -q: those of the standing question that was set last.

    \b
    Example: xl3m watch app.log -q "Which host fails?"
    """
    from stream_app.cli import watch as watch_command

    if replace and question is None:
        raise click.UsageError("--replace needs a question: add -q")
    asyncio.run(watch_command.watch(load_settings(**given), stream, question, as_json, replace))


@cli.command()
@click.option("--memory", is_flag=True, help="Also show each stream's memory in Redis.")
@options("redis", "json")
def streams(memory: bool, as_json: bool, **given: Any) -> None:
    """List streams with their segments, missing offsets and questions.

    \b
    Example: xl3m streams --memory
    """
    from stream_app.cli import streams as streams_command

    asyncio.run(streams_command.streams(load_settings(**given), as_json, memory))


@cli.command()
@click.option("--stream", type=TEXT, help="The stream to rebuild.")
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Rebuild all streams; also replaces an older version's data.",
)
@click.option("--yes", is_flag=True, help="Also rebuild where Kafka has deleted part of the input.")
@options("broker", "redis")
def rebuild(stream: str | None, every: bool, yes: bool, **given: Any) -> None:
    """Delete a stream's state in Redis and read it again from Kafka.

    Its questions are kept.

    With --all, every partition is read again, also those whose events all became dead letters (for
    example because of a mistyped field). Workers may be running: those that own the partitions
    end, and whatever restarts them has the partitions read from the start.

    \b
    Example: xl3m rebuild --stream app.log
    """
    if bool(stream) == every:
        raise click.UsageError("give either --stream NAME or --all")
    settings = load_settings(**given)
    from stream_app.cli import rebuild as rebuild_command

    asyncio.run(rebuild_command.run(settings, stream, yes))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, allow_dash=True))
@click.option("-q", "--question", "questions", type=TEXT, required=True, multiple=True)
@options("model", "json")
def run(file: Path, questions: tuple[str, ...], as_json: bool, **given: Any) -> None:
    """Answer questions about a file, without Kafka or Redis.

    \b
    Example: xl3m run app.log -q "Which host fails?"
    """
    settings = load_settings(**given)
    from stream_app.cli import run as run_command

    if not run_command.run(settings, file, questions, as_json):
        sys.exit(EXIT_NO_ANSWER)


@cli.command()
@click.option(
    "--lines",
    type=click.IntRange(1),
    help="Number of log lines to stream; by default 200, 3,000 with the model `small`.",
)
@options("model")
def demo(lines: int | None, **given: Any) -> None:
    """Try everything on this machine in two minutes.

    Starts a broker, Redis, a worker and a stream of this machine's own log, asks three questions
    about it, says which answers are right, and deletes everything at the end. The model is SmolLM2
    if it is installed, else the bundled one.

    \b
    Example: xl3m demo
             xl3m demo --model small
    """
    from stream_app.cli.demo import run_demo

    run_demo(load_settings(**given), lines)


@cli.command()
@options("broker", "redis", "model")
def doctor(**given: Any) -> None:
    """Check everything a worker needs, and say what to fix.

    \b
    Example: xl3m doctor --broker kafka://localhost:9092
    """
    from stream_app.cli import doctor

    if not doctor.run(**given):
        sys.exit(EXIT_FAILED_CHECK)
