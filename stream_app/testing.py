"""Helpers for tests, benchmarks and the demo: workers as processes, and results to compare with.

async with worker(settings, log) as process:
    await until(condition, "a worker that listens")
tail, segments = offline_segments(engine, text)
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream_app.embedded.process import die_with_parent
from stream_app.settings import Settings
from stream_app.settings.variables import process_environment
from xl3m_core.segment import Segment, Tail
from xl3m_core.topk import TopK

if TYPE_CHECKING:
    from xl3m_core.engine import Engine

Process = asyncio.subprocess.Process

WORKER = ("-P", "-m", "stream_app", "worker")
"""Arguments of Python that run a worker."""
STOP_SECONDS = 15.0


async def until(
    condition: Callable[[], Any], what: str = "", *, seconds: float = 60.0, poll: float = 0.005
) -> None:
    """Wait until the condition, which may be asynchronous, is true. Raises TimeoutError, which
    names what was waited for."""
    try:
        async with asyncio.timeout(seconds):
            while not await _value(condition()):
                await asyncio.sleep(poll)
    except TimeoutError:
        raise TimeoutError(f"not within {seconds:.0f} s: {what or 'the condition'}") from None


async def _value(result: Any) -> Any:
    return await result if isinstance(result, Awaitable) else result


async def start_worker(
    settings: Settings,
    log: Path,
    *options: str,
    command: Sequence[str] = WORKER,
    env: Mapping[str, str] | None = None,
) -> Process:
    """Start a worker with these settings; its output is appended to the log.

    command: other arguments of Python; env: more variables. On Linux it ends with this process.
    """
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, *command, *options,
            env=process_environment({**settings.to_env(), **(env or {})}),
            stdout=output, stderr=output, start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip


async def stop(process: Process, seconds: float = STOP_SECONDS) -> None:
    """Terminate a process, and kill it if it still runs after that many seconds."""
    with suppress(ProcessLookupError):
        process.terminate()
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), seconds)
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


@asynccontextmanager
async def worker(
    settings: Settings,
    log: Path,
    *options: str,
    command: Sequence[str] = WORKER,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Process]:
    """`start_worker` for the length of the block."""
    process = await start_worker(settings, log, *options, command=command, env=env)
    try:
        yield process
    finally:
        await stop(process)


def offline_segments(engine: "Engine", *texts: str) -> tuple[Tail, list[Segment]]:
    """The tail and the segments of a stream with these events."""
    return engine.segmenter().extend(Tail(), [(text, None) for text in texts])


def offline_scores(engine: "Engine", segments: Sequence[Segment], question: str) -> list[float]:
    """The scores of the segments, computed in one batch."""
    return engine.score([(segment.text, question) for segment in segments])


def top_k(
    engine: "Engine", segments: Sequence[Segment], scores: Sequence[float]
) -> list[tuple[int, float]]:
    """Index and final score of the k best of a stream's segments, the most relevant first. scores:
    each segment's own."""
    from xl3m_core.xl3m import RunningTopK  # with PyTorch

    best = RunningTopK(TopK(engine.method.k))
    for segment, score in zip(segments, scores, strict=True):
        best.add(segment, score, engine.is_smoothed(segment.text))
    return [(segment.index, score) for segment, score in best.ranked()]
