"""`xl3m feed`: what it is asked for, file by file, until there is no more or for ever.

Reads names and prints; the work is the reader's and the feeder's.
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
from stream_app.feeding.checkpoints import CheckpointFile, Checkpoints
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
# So much of the topic, in seconds, is read at most at the start to find what was sent.
MARK_SECONDS = 10.0
RESCAN_SECONDS = 1.0
# So long a feed that is told to end waits for Kafka to confirm what was sent.
FINISH_SECONDS = 3.0


@dataclass(frozen=True)
class FeedRequest:
    """What the user asked for."""

    names: tuple[str, ...]
    stream: str | None = None
    follow: bool = False
    last: int | None = None
    positions: Path | None = None
    topic: str | None = None


async def feed(settings: Settings, wanted: FeedRequest) -> bool:
    """Send the sources; False if something was left out that should not have been."""
    settings = settings.replace(tokens_topic=_topic(settings, wanted.topic))
    found = await asyncio.to_thread(discovery.discover, wanted.names, wanted.follow, wanted.stream)
    _check(settings, wanted, found)
    give_up = None if wanted.follow else GIVE_UP_SECONDS
    with Progress(_total(wanted, found.sources)) as progress:
        for path, why in found.skipped.items():
            _pass_over(progress, path, why)
        async with _book(wanted) as book, open_feeder(settings, None, book, give_up) as feeder:
            run = _Run(wanted, feeder, progress)
            try:
                async with _kept(settings, book, feeder):
                    await run.all(found)
            finally:
                progress.summarise(feeder.counts)
    return not progress.left_out


def _topic(settings: Settings, chosen: str | None) -> str:
    """The topic that is fed, of those that workers read. Raises SettingsError if it is not clear
    which."""
    name, pattern = variable("tokens_topic"), settings.tokens_pattern
    if chosen is None:
        if len(settings.tokens_topics) == 1:
            return settings.tokens_topics[0]
        raise SettingsError(f"{name} names several topics: say with --topic which one is fed")
    if chosen in settings.tokens_topics or (pattern and pattern.match(chosen)):
        return chosen
    raise SettingsError(f"--topic {chosen}: workers do not read it, see {name}")


def _check(settings: Settings, wanted: FeedRequest, found: discovery.Discovered) -> None:
    """Refuse what cannot be done before anything is sent."""
    if found.refused:
        raise click.BadParameter("; ".join(found.refused))
    missing = [name for name in found.unmatched if not Path(name).is_dir()]
    if missing and not wanted.follow:
        raise click.BadParameter(f"there is no file {', '.join(missing)}")
    if not found.sources and not wanted.follow:
        named = ", ".join(wanted.names)
        raise click.BadParameter(f"no file in {named} is text and may be read")
    for stream in dict.fromkeys(each.stream for each in found.sources):
        event_key(settings, stream)


def _total(wanted: FeedRequest, found: list[Source]) -> int | None:
    """How many bytes there are to be fed, if that can be known."""
    whole = not wanted.follow and wanted.last is None and wanted.positions is None
    if not whole or any(is_piped(each.path) for each in found):
        return None
    with contextlib.suppress(OSError, ValueError):
        if not any(inspect(each.path).needs_extraction for each in found):
            return sum(each.path.stat().st_size for each in found)
    return None


def _pass_over(progress: Progress, path: Path, why: str) -> None:
    """In a folder what is no text is no fault; what may not be read is."""
    is_fault = not any(why.startswith(word) for word in ("a ", "an ", "not ", "UTF", "compr"))
    (progress.report_error if is_fault else progress.notify)(f"{path} is passed over: {why}")


@asynccontextmanager
async def _book(wanted: FeedRequest) -> AsyncIterator[Checkpoints]:
    book = CheckpointFile(wanted.positions) if wanted.positions else Checkpoints()
    try:
        yield book
    finally:
        book.close()


@asynccontextmanager
async def _kept(settings: Settings, book: Checkpoints, feeder: Feeder) -> AsyncIterator[None]:
    """The book is saved from time to time, and at the end."""
    if not book.is_persistent:
        yield
        return
    keeping = asyncio.create_task(_keep(settings, book, feeder))
    try:
        yield
        keeping.cancel()
        await asyncio.wait([keeping])
        await _mark(settings, book, feeder)
        book.save(clean=True)
    except BaseException as error:
        keeping.cancel()
        told = isinstance(error, asyncio.CancelledError)
        is_clean = False
        try:
            is_clean = told and await _finish(settings, book, feeder)
        finally:
            book.save(clean=is_clean)
        raise


async def _finish(settings: Settings, book: Checkpoints, feeder: Feeder) -> bool:
    """Whether Kafka confirmed in time what was sent before the feed was told to end."""
    try:
        async with asyncio.timeout(FINISH_SECONDS):
            await feeder.wait_until_recorded()
            await _mark(settings, book, feeder)
    except Exception as error:  # a restart finds in Kafka what the book lacks
        logger.warning(
            "Kafka at %s did not confirm in time all that was sent (%s)",
            settings.broker_address, type(error).__name__,
        )  # fmt: skip
        return False
    return True


async def _keep(settings: Settings, book: Checkpoints, feeder: Feeder) -> None:
    marked = time.monotonic()
    while True:
        await asyncio.sleep(SAVE_SECONDS)
        if time.monotonic() - marked > MARK_SECONDS:
            with contextlib.suppress(Exception):  # Kafka is away: the older mark is as good
                await _mark(settings, book, feeder)
            marked = time.monotonic()
        if book.changed:
            book.save()


async def _mark(settings: Settings, book: Checkpoints, feeder: Feeder) -> None:
    """Nothing of ours that is in the topic now is missing in the book."""
    ends = await recovery.end_offsets(settings)
    await feeder.wait_until_recorded()
    book.next_offsets.update(ends)
    book.changed = True


class _Run:
    """Feeds each source, and those that appear later."""

    def __init__(self, wanted: FeedRequest, feeder: Feeder, progress: Progress) -> None:
        self.wanted = wanted
        self.feeder = feeder
        self.progress = progress
        form = feeder.encoder
        rules = RecordRules(form.starts, form.max_bytes if form.kind == "json" else 0, form.is_raw)
        self.how = ReadOptions(
            feeder.checkpoints,
            wanted.last,
            rules,
            notify=progress.notify,
            report_error=progress.report_error,
        )
        self.known = set[Path]()

    async def all(self, found: discovery.Discovered) -> None:
        """Those that are read once, one after another; then all that are followed, side by side."""
        self.known |= set(found.skipped) | {each.path for each in found.sources}
        followed = [each for each in found.sources if each.follow]
        book = self.feeder.checkpoints
        resumed = [each for each in found.sources if book.find(each.path, each.stream)]
        for each in found.sources:
            if not each.follow and not self._is_rotated(each, resumed):
                await self._feed(each, self.how)
        if self.wanted.follow:
            work = [self._feed(each, self.how) for each in followed]
            if any(name != STANDARD_INPUT for name in self.wanted.names):
                work.append(self._watch(followed))
            await _together(work)

    async def _feed(self, source: Source, how: ReadOptions) -> None:
        try:
            await self.feeder.feed(source.stream, read(source, how), self.progress.advance)
        except (FileNotFoundError, PermissionError) as error:
            self.progress.report_error(f"{source.path}: {error.strerror}")

    def _is_rotated(self, source: Source, others: Sequence[Source]) -> bool:
        """Whether it is the past of one of these, which look after that themselves."""
        return any(is_rotated(source.path, each.path) for each in others)

    async def _watch(self, followed: list[Source]) -> None:
        """Feed files that appear later in a folder, or that a pattern stands for then."""
        how, wanted = replace(self.how, last_lines=None), self.wanted
        if not any(Path(n).is_dir() or set(n) & set("*?[") for n in wanted.names):
            return
        tasks = set[asyncio.Task[None]]()
        while True:
            await asyncio.sleep(RESCAN_SECONDS)
            found = await asyncio.to_thread(
                discovery.discover, wanted.names, True, wanted.stream, self.known
            )
            self.known |= {each.path for each in found.sources} | set(found.skipped)
            for path, why in found.skipped.items():
                _pass_over(self.progress, path, why)
            for each in found.sources:
                if not self._is_rotated(each, followed):
                    self.progress.notify(f"{each.path} is new: it is fed, too")
                    followed.append(each)
                    tasks.add(asyncio.create_task(self._feed(each._replace(follow=True), how)))
            for task in [task for task in tasks if task.done()]:
                tasks.remove(task)
                task.result()


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Until all are done, or one fails; then none goes on."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
