"""The checks after the last fault: every record was processed, exactly once.

Reads the topics and the streams' state only.
"""

import json
from collections import Counter

from stream_app.client import client
from stream_app.testing import top_k
from tests.support.workers import offline
from tests.system.chaos.world import BAD, World
from xl3m_core import Segment


async def check_everything(world: World) -> Counter[str]:
    """Wait for the end state and compare it with an undisturbed run's; the number of checks."""
    checks = Counter[str]()
    texts = await world.texts()
    for stream in world.streams:
        checks += await _stream(world, stream, texts[stream])
    checks += await _dead_letters(world)
    return checks + await _answers(world)


async def _stream(world: World, stream: str, text: str) -> Counter[str]:
    """Compare the log exactly, and the k best segments."""
    store, engine, question = world.site.store, world.site.engine, world.questions[stream]
    segments, scores = offline(engine, text, question)

    async def done() -> bool:
        known = await client.describe(store, stream)
        covered = {q["question"]: q["coverage"] for q in known["questions"]}
        read = (await store.load(stream)).tail.end
        return bool(read == len(text) and covered.get(question) == 1.0)

    await world.until(done, f"{stream!r} with {len(segments)} segments scored for {question!r}")
    found = await store.segments(stream, 0, len(segments) + 1)
    assert [_said(s) for s in found] == [_said(s) for s in segments], stream
    best = top_k(engine, segments, scores)
    seen = await client.top(store, stream, question)
    assert seen and [s["index"] for s in seen["top"]] == [index for index, _ in best], stream
    return Counter({"streams": 1, "segments": len(segments), "best segments": len(best)})


def _said(segment: Segment) -> tuple[str, int, int, int, int]:
    """The segment without its times: a record that was sent twice has two."""
    return segment.text, segment.start, segment.end, segment.start_token, segment.end_token


async def _dead_letters(world: World) -> Counter[str]:
    """Every bad event is a dead letter with its partition and offset, and no other event is."""
    sent = {(r.partition, r.offset) for r in await world.topic("tokens") if r.value == BAD}
    found = set[tuple[int, int]]()

    async def all_found() -> bool:
        letters = [json.loads(record.value) for record in await world.topic("dead_letters")]
        found.update((letter["partition"], letter["offset"]) for letter in letters)
        return found >= sent

    await world.until(all_found, f"{len(sent)} dead letters")
    assert found == sent, f"good events among the dead letters: {found - sent}"
    return Counter({"dead letters": len(sent)})


async def _answers(world: World) -> Counter[str]:
    """Every query has an answer of any content; Kafka may deliver it twice."""
    ids = list[str]()

    async def answered() -> bool:
        ids[:] = [json.loads(record.value)["id"] for record in await world.topic("answers")]
        return set(ids) >= set(world.query_ids)

    await world.until(answered, f"answers to {len(world.query_ids)} queries")
    assert set(ids) == set(world.query_ids)
    return Counter({"queries": len(world.query_ids), "answered twice": len(ids) - len(set(ids))})
