"""Random faults while streams are fed: the result equals that of an undisturbed run.

`--chaos-seed` chooses the schedule, `--faults` the number of faults, `--kills` that of additional
kills of workers. `make chaos` is the long form.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from stream_app.settings import kafka_home
from tests.system.chaos.checks import check_everything
from tests.system.chaos.faults import ALL, QUESTIONS, Fault, kill
from tests.system.chaos.world import World, world

PAUSE = 2.0  # seconds between two faults at most
PACE = 0.02  # and between two events


def schedule(seed: int, faults: int, kills: int) -> list[Fault]:
    """The kinds of faults round robin, and the kills, in random order."""
    drawn = [ALL[i % len(ALL)] for i in range(faults)] + [kill] * kills
    random.Random(seed).shuffle(drawn)
    return drawn


async def disturb(world: World, plan: list[Fault]) -> None:
    """Cause one fault after another while records are sent."""
    for stream in world.streams:
        await world.ask(stream, world.rng.choice(QUESTIONS))
    feeding = asyncio.create_task(world.feed(PACE))
    try:
        for fault in plan:
            await asyncio.sleep(world.rng.uniform(0, PAUSE))
            await fault(world)
            world.done[fault.__name__] += 1
    finally:
        world.fed = True
        await feeding


@pytest.mark.guarantee("Faults")
@pytest.mark.guarantee("Redis outages")
@pytest.mark.guarantee("Lost writes")
@pytest.mark.guarantee("Kafka outages")
@pytest.mark.guarantee("Kafka queries")
@pytest.mark.timeout(7200)
async def test_faults_cost_time_but_no_data(
    pytestconfig: pytest.Config, tmp_path: Path, fresh: Callable[[str], str]
) -> None:
    if not (home := kafka_home()):
        pytest.skip("needs a Kafka to kill: set KAFKA_HOME")
    options = ("--chaos-seed", "--faults", "--kills")
    seed, faults, kills = (pytestconfig.getoption(name) for name in options)
    plan = schedule(seed, faults, kills)
    print(f"seed {seed}:", *(fault.__name__ for fault in plan))
    async with world(tmp_path, home, seed, fresh) as made:
        await disturb(made, plan)
        checks = await check_everything(made)
    done, ended = dict(made.done), dict(Counter(made.ended))
    print(f"faults: {done}; exit codes of workers: {ended}; checked: {dict(checks)}")
