"""Scout: what of a long log is worth scoring first, by its words alone.

Scoring a day of logs takes minutes, and a query that comes late waits seconds. BM25 looks
through it at once, in a process of its own: the worker's threads have other things to do.
What it picks is a guess at an order and no more: everything is scored in the end.
"""

import asyncio
import heapq
import logging
import os
import sys
from collections.abc import AsyncIterator, Sequence

from stream_app.scoring.bm25 import Bm25
from stream_app.store.codec import pack, unpack
from stream_app.store.connection import open_redis
from stream_app.store.keys import DEFAULT_KEYS, Keys
from stream_app.store.store import StreamStore
from xl3m_core import Segment

logger = logging.getLogger("xl3m")

# Memory is that of one block, however long the log. Words are as rare as they are in theirs.
BLOCK = 10_000
NICE = 10


class Prefilter:
    """Looks through logs in the Redis of that URL, one at a time."""

    def __init__(self, redis: str, keys: Keys = DEFAULT_KEYS) -> None:
        self.redis = redis
        self.keys = keys
        self._one = asyncio.Semaphore(1)

    async def candidates(
        self, stream: str, question: str, lo: int, hi: int, most: int
    ) -> list[int]:
        """Of the segments lo up to hi the most promising, the best first; none if it fails."""
        try:
            async with self._one:
                reply = await _child(
                    pack((self.redis, self.keys.prefix, stream, question, lo, hi, most))
                )
            return list(unpack(reply))
        except OSError as error:
            logger.warning("stream %r is scored as it lies: %s", stream, error)
            return []


async def _child(request: bytes) -> bytes:
    """What a process of its own makes of the request. Raises ChildProcessError."""
    pipe = asyncio.subprocess.PIPE
    # -P: no module is looked for in the folder that the worker happens to be started in.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "stream_app.scoring.prefilter",
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
    )
    try:
        reply, said = await process.communicate(request)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        why = said.decode(errors="replace").strip().rpartition("\n")[2]
        raise ChildProcessError(f"looking through it ended with code {process.returncode}: {why}")
    return reply


async def best(blocks: AsyncIterator[Sequence[Segment]], question: str, most: int) -> list[int]:
    """The segments whose words are most like the question's; none without any of its words."""
    found = list[tuple[float, int]]()
    async for block in blocks:
        scores = Bm25([segment.text for segment in block]).scores(question)
        found += [(float(x), -s.index) for s, x in zip(block, scores, strict=True) if x > 0]
        found = heapq.nlargest(most, found)
    return [-index for _, index in found]


async def _blocks(
    store: StreamStore, stream: str, lo: int, hi: int
) -> AsyncIterator[list[Segment]]:
    for start in range(lo, hi, BLOCK):
        if block := await store.segments(stream, start, min(start + BLOCK, hi)):
            yield block


async def _main() -> None:
    os.nice(NICE)
    redis, prefix, stream, question, lo, hi, most = unpack(sys.stdin.buffer.read())
    async with open_redis(redis) as client:
        store = StreamStore(client, keys=Keys(prefix))
        picks = await best(_blocks(store, stream, lo, hi), question, most)
    sys.stdout.buffer.write(pack(picks))


if __name__ == "__main__":
    asyncio.run(_main())
