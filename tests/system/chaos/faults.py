"""The faults: each breaks one part of the system and leaves it working again."""

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
    """Kill a worker that has partitions."""
    worker = await world.victim()
    if worker.returncode is None:
        worker.kill()


async def zombie(world: World) -> None:
    """Stop a worker that has partitions until they are reassigned, and let it continue."""
    worker = await world.victim()
    if worker.returncode is None:
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(ZOMBIE_SECONDS)
        if worker.returncode is None:
            worker.send_signal(signal.SIGCONT)


async def scale(world: World) -> None:
    """Change the number of workers, so that partitions move."""
    world.wanted = world.rng.choice([n for n in (1, 2, 4) if n != world.wanted])


async def redis_dies(world: World) -> None:
    """Kill Redis as in a crash of its machine, and restart it a little later. It syncs once a
    second, so some of the writes of its last second are lost."""
    _, synced = services.written(world.redis.folder)
    await asyncio.sleep(SYNC_SECONDS)
    world.redis.kill()
    log, size = services.written(world.redis.folder)
    os.truncate(log, world.rng.randint(min(synced, size), size))
    await asyncio.sleep(world.rng.uniform(0, AWAY_SECONDS))
    await asyncio.to_thread(world.redis.start)


async def broker_dies(world: World) -> None:
    """Kill the broker, and restart it a little later."""
    world.kafka.kill()
    await asyncio.sleep(world.rng.uniform(0, AWAY_SECONDS))
    await asyncio.to_thread(world.kafka.start)


async def cut(world: World) -> None:
    """Reset every connection to Redis."""
    world.proxy.cut()


async def fill(world: World) -> None:
    """Let Redis be out of memory for a while."""
    config = world.site.redis.config_set  # its connections may be from before a restart
    await world.until(lambda: config("maxmemory", 1), "a Redis that is full")
    await asyncio.sleep(FULL_SECONDS)
    await world.until(lambda: config("maxmemory", 0), "a Redis that is not full")


async def duplicate(world: World) -> None:
    """Send the last records again: at new offsets they are new text."""
    for record in (await world.topic("tokens"))[-20:]:
        await world.send("tokens", record.key.decode(), record.value)


async def another_question(world: World) -> None:
    """Change a stream's question, perhaps to one that it had before."""
    await world.ask(world.rng.choice(world.streams), world.rng.choice(QUESTIONS))


async def query(world: World) -> None:
    """Send a query."""
    await world.query()


Fault = Callable[[World], Awaitable[None]]
ALL: tuple[Fault, ...] = (
    kill, zombie, scale, redis_dies, broker_dies, cut, fill, duplicate, another_question, query
)  # fmt: skip
