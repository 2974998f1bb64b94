"""Applies a rebuild: resets a stream, or partitions that feed none, in one transaction each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stream_app.store.codec import to_cursor, to_question
from stream_app.store.connection import AnyRedis
from stream_app.store.keys import Keys
from stream_app.store.partitions import name_of
from stream_app.store.rebuild_plan import (
    PartitionState,
    RebuildPlan,
    Retained,
    RetainedOffsets,
    missing_offsets,
    partition_states,
)
from stream_app.store.state import Cursor
from stream_app.store.store import StreamStore

SCAN_COUNT = 1000
"""Keys that each SCAN looks at."""


async def find_keys(store: StreamStore, stream: str | None = None) -> dict[bytes, list[bytes]]:
    """All keys of the stream, or of every stream, by their beginning up to the stream's name."""
    names = dict[bytes, list[bytes]]()
    pattern = store.keys.of_stream(stream) if stream else store.keys.of_streams()
    async for name in store.redis.scan_iter(pattern, SCAN_COUNT):
        names.setdefault(_stem(name), []).append(name)
    return names


async def apply(
    store: StreamStore,
    planned: RebuildPlan,
    retained: Retained,
    names: Mapping[bytes, Sequence[bytes]],
) -> None:
    """Reset a stream in one transaction. names: from `find_keys`.

    (1) Its partitions get a new epoch, which fences their owners, and the first offset in Kafka as
        their position.
    (2) Log, tail and all scores are deleted.
    (3) The cursor keeps what fences older owners, and counts the missing offsets.
    (4) Questions stay, with nothing scored.

    Then workers are notified: the owner ends, and its successor reads again. If the partitions were
    reset first, their owner would skip all of it as already in the stream; if the stream were
    deleted first, the owner would continue in the middle.
    """
    keys, stream = store.keys, planned.stream
    cursor_key, questions_key = keys.cursor(stream), keys.questions(stream)
    found = names.get(_stem(keys.of_stream(stream).encode()), ())

    async def write(pipe: AnyRedis) -> None:
        cursor = to_cursor(await pipe.hgetall(cursor_key))
        questions = to_question(await pipe.hgetall(questions_key))
        known = await partition_states(pipe, keys, planned.partitions)
        reset = {name: _reset(state, retained[name]) for name, state in known.items()}
        pipe.multi()
        _write_partitions(pipe, keys, reset)
        _delete_data(pipe, keys, stream, cursor.head, questions, found)
        pipe.delete(cursor_key)
        pipe.hset(cursor_key, mapping=_reset_cursor(cursor, reset, retained))
        for qid, question in questions.items():
            scored = keys.scored_range(stream, qid)
            fields = ("lo", "hi", "read", "skipped", "first")
            pipe.hset(scored, mapping=dict.fromkeys(fields, 0))
            pipe.hincrby(scored, "rebuilt", 1)
            if question.expires_at:
                pipe.expireat(scored, int(question.expires_at))

    watched = [cursor_key, questions_key, *map(keys.partition, planned.partitions)]
    await store.redis.transaction(write, *watched)
    await store.redis.publish(keys.question_channel(), stream.encode())


async def set_back(store: StreamStore, partitions: Iterable[str], retained: Retained) -> None:
    """Set partitions that feed no stream to the first offset in Kafka, all in one transaction, with
    new epochs, which fence their owners. Then workers are notified."""
    keys, names = store.keys, list(partitions)

    async def write(pipe: AnyRedis) -> None:
        known = await partition_states(pipe, keys, names)
        pipe.multi()
        _write_partitions(pipe, keys, {name: _reset(known[name], retained[name]) for name in names})

    await store.redis.transaction(write, *map(keys.partition, names))
    await store.redis.publish(keys.question_channel(), b"")


def _stem(name: bytes) -> bytes:
    """The beginning that all keys of a stream share. Braces in a stream's name are quoted, so the
    first closing brace ends it."""
    return name.partition(b"}")[0]


def _reset(state: PartitionState, offsets: RetainedOffsets) -> PartitionState:
    """The partition at the first offset in Kafka. Its owner may have noticed since the plan was
    made that the topic was recreated: then the larger incarnation counts."""
    incarnation = max(state.incarnation, offsets.incarnation)
    return PartitionState(state.epoch + 1, offsets.first, incarnation)


def _write_partitions(pipe: AnyRedis, keys: Keys, states: Mapping[str, PartitionState]) -> None:
    for name, state in states.items():
        fields = {"epoch": state.epoch, "next": state.position, "made": state.incarnation, "gap": 0}
        pipe.hset(keys.partition(name), mapping=fields)


def _delete_data(
    pipe: AnyRedis,
    keys: Keys,
    stream: str,
    head: int,
    questions: Mapping[str, Any],
    found: Sequence[bytes],
) -> None:
    """Delete all keys of the stream but its cursor, its questions and their ranges. found: keys
    found by SCAN, in case there are more than can be derived."""
    kept = {keys.scored_range(stream, qid) for qid in questions}
    kept |= {keys.cursor(stream), keys.questions(stream)}
    names = {name for qid in questions for name in keys.question_keys(stream, qid, head)}
    names |= {keys.log(stream), keys.tail(stream), *(name.decode() for name in found)}
    pipe.delete(*(names - kept))


def _reset_cursor(
    cursor: Cursor, reset: Mapping[str, PartitionState], retained: Retained
) -> dict[str, int]:
    """The cursor of a stream of which nothing is read; its version increases as in any commit."""
    incarnations = {name: state.incarnation for name, state in reset.items()}
    fields = {
        "version": cursor.version + 1,
        "questions": cursor.questions + 1,
        "rebuilt": cursor.rebuilt + 1,
        "gaps": missing_offsets(cursor, incarnations, retained),
    }
    for name, state in reset.items():
        fields[f"epoch:{name_of(name, state.incarnation)}"] = state.epoch
    return fields
