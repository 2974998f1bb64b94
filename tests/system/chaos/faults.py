"""Faults: what may happen to a system that runs. Each ends with the world whole again.

Knows the world's handles; nothing of what the workers do about it.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

from tests.system.chaos import services
from tests.system.chaos.world import World

QUESTIONS = ("is the valve ok?", "which pump is low?", "what is 42?", "how is the pressure?")
ZOMBIE_SECONDS = 9.0  # beyond the session timeout of six
AWAY_SECONDS = 2.0
SYNC_SECONDS = 1.0
FULL_SECONDS = 3.0


async def kill(world: World) -> None:
    """A worker that has partitions dies."""
    worker = await world.victim()
    if worker.returncode is None:
        worker.kill()


async def zombie(world: World) -> None:
    """A worker that has partitions stands still until others have them, and wakes up."""
    worker = await world.victim()
    if worker.returncode is None:
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(ZOMBIE_SECONDS)
        if worker.returncode is None:
            worker.send_signal(signal.SIGCONT)


async def scale(world: World) -> None:
    """Partitions move: there are more workers, or fewer."""
    world.wanted = world.rng.choice([n for n in (1, 2, 4) if n != world.wanted])


async def redis_dies(world: World) -> None:
    """Redis dies as with its machine and comes back a while later: of what it confirmed in its last
    second, which it syncs once a second, some is lost."""
    _, synced = services.written(world.redis.folder)
    await asyncio.sleep(SYNC_SECONDS)
    world.redis.kill()
    log, size = services.written(world.redis.folder)
    os.truncate(log, world.rng.randint(min(synced, size), size))
    await asyncio.sleep(world.rng.uniform(0, AWAY_SECONDS))
    await asyncio.to_thread(world.redis.start)


async def broker_dies(world: World) -> None:
    """The broker is killed, and comes back a while later."""
    world.kafka.kill()
    await asyncio.sleep(world.rng.uniform(0, AWAY_SECONDS))
    await asyncio.to_thread(world.kafka.start)


async def cut(world: World) -> None:
    """Every connection to Redis is reset."""
    world.proxy.cut()


async def fill(world: World) -> None:
    """Redis has no memory left for a while."""
    config = world.site.redis.config_set  # its connections may be those of an earlier life
    await world.until(lambda: config("maxmemory", 1), "a Redis that is full")
    await asyncio.sleep(FULL_SECONDS)
    await world.until(lambda: config("maxmemory", 0), "a Redis that is not full")


async def duplicate(world: World) -> None:
    """A stretch of the topic is there once more, at new offsets: it is text like any other."""
    for record in (await world.topic("tokens"))[-20:]:
        await world.send("tokens", record.key.decode(), record.value)


async def another_question(world: World) -> None:
    """A stream's question is changed in mid-stream, perhaps to one it had before."""
    await world.ask(world.rng.choice(world.streams), world.rng.choice(QUESTIONS))


async def query(world: World) -> None:
    """Somebody wants an answer now."""
    await world.query()


Fault = Callable[[World], Awaitable[None]]
ALL: tuple[Fault, ...] = (
    kill, zombie, scale, redis_dies, broker_dies, cut, fill, duplicate, another_question, query
)  # fmt: skip
