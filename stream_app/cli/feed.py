"""`xl3m feed`: sends files to the tokens topic, once or for ever.

Finds the files, reads and sends them (`feeding`), saves checkpoints, and prints what happened.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from stream_app.cli.feed_report import Progress
from stream_app.errors import SettingsError
from stream_app.feeding import discovery, recovery
from stream_app.feeding.addressing import event_key
from stream_app.feeding.checkpoint_file import CheckpointFile
from stream_app.feeding.checkpoints import Checkpoints
from stream_app.feeding.chunking import RecordRules
from stream_app.feeding.content import STANDARD_INPUT, inspect
from stream_app.feeding.feeder import GIVE_UP_SECONDS, Feeder, open_feeder
from stream_app.feeding.reader import read
from stream_app.feeding.rotation import is_rotated
from stream_app.feeding.source import ReadOptions, Source, is_piped
from stream_app.settings import Settings
from stream_app.settings.variables import variable

logger = logging.getLogger("xl3m")

SAVE_SECONDS = 0.5
# Kafka's end offsets are stored this often: a restart searches only the topic behind them.
STORE_OFFSETS_SECONDS = 10.0
RESCAN_SECONDS = 1.0
# How long a feed that is stopped waits for Kafka to confirm what was sent.
FINISH_SECONDS = 3.0


@dataclass(frozen=True)
class FeedRequest:
    """The options of the command."""

    names: tuple[str, ...]
    stream: str | None = None
    follow: bool = False
    last: int | None = None
    positions: Path | None = None
    topic: str | None = None


async def feed(settings: Settings, request: FeedRequest) -> bool:
    """Send the files; False if input was skipped that should have been sent."""
    settings = settings.replace(tokens_topic=_topic(settings, request.topic))
    found = await asyncio.to_thread(
        discovery.discover, request.names, request.follow, request.stream
    )
    _check(settings, request, found)
    give_up = None if request.follow else GIVE_UP_SECONDS
    with Progress(_total(request, found.sources)) as progress:
        for path, why in found.skipped.items():
            _report_skipped(progress, path, why)
        async with (
            _open_checkpoints(request) as checkpoints,
            open_feeder(settings, None, checkpoints, give_up) as feeder,
        ):
            run = _Run(request, feeder, progress)
            try:
                async with _saved(settings, checkpoints, feeder):
                    await run.all(found)
            finally:
                progress.summarise(feeder.counts)
    return not progress.left_out


def _topic(settings: Settings, chosen: str | None) -> str:
    """The topic to send to. Raises SettingsError if it is ambiguous, or workers do not read it."""
    name, pattern = variable("tokens_topic"), settings.tokens_pattern
    if chosen is None:
        if len(settings.tokens_topics) == 1:
            return settings.tokens_topics[0]
        raise SettingsError(f"{name} names several topics: choose one with --topic")
    if chosen in settings.tokens_topics or (pattern and pattern.match(chosen)):
        return chosen
    raise SettingsError(f"--topic {chosen}: workers do not read it; add it to {name}")


def _check(settings: Settings, request: FeedRequest, found: discovery.Discovered) -> None:
    """Raise for what cannot be done, before anything is sent."""
    if found.refused:
        raise click.BadParameter("; ".join(found.refused))
    missing = [name for name in found.unmatched if not Path(name).is_dir()]
    if missing and not request.follow:
        raise click.BadParameter(f"there is no file {', '.join(missing)}")
    if not found.sources and not request.follow:
        named = ", ".join(request.names)
        raise click.BadParameter(f"no file in {named} is readable text")
    for stream in dict.fromkeys(each.stream for each in found.sources):
        event_key(settings, stream)


def _total(request: FeedRequest, found: list[Source]) -> int | None:
    """The number of bytes to send, if it is known in advance."""
    whole = not request.follow and request.last is None and request.positions is None
    if not whole or any(is_piped(each.path) for each in found):
        return None
    with contextlib.suppress(OSError, ValueError):
        if not any(inspect(each.path).needs_extraction for each in found):
            return sum(each.path.stat().st_size for each in found)
    return None


def _report_skipped(progress: Progress, path: Path, why: str) -> None:
    """Report a skipped file: only an unreadable one counts as an error."""
    is_fault = not any(why.startswith(word) for word in ("a ", "an ", "not ", "UTF", "compr"))
    (progress.report_error if is_fault else progress.notify)(f"{path} is skipped: {why}")


@asynccontextmanager
async def _open_checkpoints(request: FeedRequest) -> AsyncIterator[Checkpoints]:
    checkpoints = CheckpointFile(request.positions) if request.positions else Checkpoints()
    try:
        yield checkpoints
    finally:
        checkpoints.close()


@asynccontextmanager
async def _saved(
    settings: Settings, checkpoints: Checkpoints, feeder: Feeder
) -> AsyncIterator[None]:
    """Save the checkpoints regularly inside the block, and at its end."""
    if not checkpoints.is_persistent:
        yield
        return
    saving = asyncio.create_task(_save_regularly(settings, checkpoints, feeder))
    try:
        yield
        saving.cancel()
        await asyncio.wait([saving])
        await _store_offsets(settings, checkpoints, feeder)
        checkpoints.save(clean=True)
    except BaseException as error:
        saving.cancel()
        was_stopped = isinstance(error, asyncio.CancelledError)
        is_clean = False
        try:
            is_clean = was_stopped and await _finish(settings, checkpoints, feeder)
        finally:
            checkpoints.save(clean=is_clean)
        raise


async def _finish(settings: Settings, checkpoints: Checkpoints, feeder: Feeder) -> bool:
    """Whether Kafka confirmed in time what was sent before the feed was stopped."""
    try:
        async with asyncio.timeout(FINISH_SECONDS):
            await feeder.wait_until_recorded()
            await _store_offsets(settings, checkpoints, feeder)
    except Exception as error:  # a restart finds the rest in Kafka
        logger.warning(
            "Kafka at %s did not confirm everything in time (%s)",
            settings.broker_address, type(error).__name__,
        )  # fmt: skip
        return False
    return True


async def _save_regularly(settings: Settings, checkpoints: Checkpoints, feeder: Feeder) -> None:
    marked = time.monotonic()
    while True:
        await asyncio.sleep(SAVE_SECONDS)
        if time.monotonic() - marked > STORE_OFFSETS_SECONDS:
            with contextlib.suppress(Exception):  # Kafka is away: the older offsets serve as well
                await _store_offsets(settings, checkpoints, feeder)
            marked = time.monotonic()
        if checkpoints.changed:
            checkpoints.save()


async def _store_offsets(settings: Settings, checkpoints: Checkpoints, feeder: Feeder) -> None:
    """Store Kafka's end offsets: all our events before them are in the checkpoints."""
    ends = await recovery.end_offsets(settings)
    await feeder.wait_until_recorded()
    checkpoints.next_offsets.update(ends)
    checkpoints.changed = True


class _Run:
    """Feeds the sources, and those that appear later."""

    def __init__(self, request: FeedRequest, feeder: Feeder, progress: Progress) -> None:
        self.request = request
        self.feeder = feeder
        self.progress = progress
        form = feeder.encoder
        rules = RecordRules(form.starts, form.max_bytes if form.kind == "json" else 0, form.is_raw)
        self.options = ReadOptions(
            feeder.checkpoints,
            request.last,
            rules,
            notify=progress.notify,
            report_error=progress.report_error,
        )
        self.known = set[Path]()

    async def all(self, found: discovery.Discovered) -> None:
        """Feed the sources that are read once in order, then all followed ones concurrently."""
        self.known |= set(found.skipped) | {each.path for each in found.sources}
        followed = [each for each in found.sources if each.follow]
        checkpoints = self.feeder.checkpoints
        resumed = [each for each in found.sources if checkpoints.find(each.path, each.stream)]
        for each in found.sources:
            if not each.follow and not self._is_rotated(each, resumed):
                await self._feed(each, self.options)
        if self.request.follow:
            work = [self._feed(each, self.options) for each in followed]
            if any(name != STANDARD_INPUT for name in self.request.names):
                work.append(self._watch(followed))
            await _run_all(work)

    async def _feed(self, source: Source, options: ReadOptions) -> None:
        try:
            await self.feeder.feed(source.stream, read(source, options), self.progress.advance)
        except (FileNotFoundError, PermissionError) as error:
            self.progress.report_error(f"{source.path}: {error.strerror}")

    def _is_rotated(self, source: Source, others: Sequence[Source]) -> bool:
        """Whether it is a rotated file of one of these, whose tailer reads it."""
        return any(is_rotated(source.path, each.path) for each in others)

    async def _watch(self, followed: list[Source]) -> None:
        """Feed files that appear later in a folder or match a pattern later."""
        options, request = replace(self.options, last_lines=None), self.request
        if not any(Path(n).is_dir() or set(n) & set("*?[") for n in request.names):
            return
        tasks = set[asyncio.Task[None]]()
        while True:
            await asyncio.sleep(RESCAN_SECONDS)
            found = await asyncio.to_thread(
                discovery.discover, request.names, True, request.stream, self.known
            )
            self.known |= {each.path for each in found.sources} | set(found.skipped)
            for path, why in found.skipped.items():
                _report_skipped(self.progress, path, why)
            for each in found.sources:
                if not self._is_rotated(each, followed):
                    self.progress.notify(f"{each.path} is new: it is sent, too")
                    followed.append(each)
                    tasks.add(asyncio.create_task(self._feed(each._replace(follow=True), options)))
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                task.result()


async def _run_all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all until they are done; if one fails, cancel the others."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
