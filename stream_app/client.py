"""Client: asks through Redis pub/sub, and looks at what streams hold.

What the command line uses, and any program may. Knows Redis; no Kafka, no model.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from stream_app import keys
from stream_app.errors import SettingsError, UnreachableError
from stream_app.events import decode, encode
from stream_app.state import current_question
from stream_app.store import StreamStore
from stream_app.terminal import name_meant
from stream_app.variables import variable

# On top of the query's own deadline: loading nothing, generating, and a batch before it.
ANSWER_SECONDS = 60.0


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Redis]:
    """A Redis that answers. Raises UnreachableError when it does not, or no longer, or does not
    let us in."""
    redis = _client(url)
    try:
        await redis.ping()
        yield redis
    except (AuthenticationError, NoPermissionError) as error:
        raise UnreachableError(
            f"Redis refuses ({error}): see user and password in {variable('redis')}, and the "
            "user's rights"
        ) from error
    except RedisError as error:
        raise UnreachableError(
            f"Redis does not answer ({error}): start one, or name another with --redis or "
            f"{variable('redis')}"
        ) from error
    finally:
        await redis.aclose()


def _client(url: str) -> Redis:
    """A client that has not connected yet. Raises SettingsError if the URL's options are wrong."""
    try:
        redis = Redis.from_url(url)
        pool: Any = redis.connection_pool
        pool.make_connection()  # here they are looked at, for the first time
    except (TypeError, ValueError):
        raise SettingsError(
            f"{variable('redis')} has an option behind its ? that redis-py does not take there: "
            "see `Redis.from_url`; those that begin with ssl_ go with rediss://"
        ) from None
    return redis


async def ask(
    redis: Redis, stream: str, question: str | None, deadline: float
) -> AsyncIterator[dict[str, Any]]:
    """Ask, and give out what comes back: maps of `type` "text" with a piece of the answer,
    then one of `type` "answer". Raises UnreachableError when no worker listens."""
    query = {"id": uuid.uuid4().hex, "stream": stream, "deadline": deadline}
    query |= {"question": question} if question else {}
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.answer_channel(str(query["id"])))
        await ensure_worker(redis)
        await redis.publish(keys.QUERY_CHANNEL, encode(query))
        try:
            async with asyncio.timeout(deadline + ANSWER_SECONDS):
                async for message in pubsub.listen():
                    fields = decode(message["data"])
                    yield fields
                    if fields.get("type") == "answer":
                        return
        except TimeoutError:
            raise UnreachableError(
                f"no answer within {deadline + ANSWER_SECONDS:.0f} s: the worker may have died; "
                "ask again"
            ) from None


async def ensure_worker(redis: Redis) -> None:
    """Raise UnreachableError if no worker listens."""
    if not await workers(redis):
        raise UnreachableError("no worker listens on this Redis: start one with `xl3m worker`")


async def workers(redis: Redis) -> int:
    """How many workers listen."""
    client: Any = redis
    return int((await client.pubsub_numsub(keys.QUERY_CHANNEL))[0][1])


async def resolve(store: StreamStore, name: str) -> str:
    """The stream of that name; if there is none, but one whose name is printed so, that one."""
    meant = name_meant(name)
    if meant == name:
        return name
    try:
        literal, coded = [
            await store.redis.sismember(keys.streams(), each) for each in (name, meant)
        ]
    except NoPermissionError:  # who may only ask has no right to look
        return name
    return meant if coded and not literal else name


async def covered(store: StreamStore, stream: str, question: str | None) -> tuple[int, int] | None:
    """How many of the stream's segments are scored for the question (None: the current one), and
    how many there are; None if nothing is known of it, or who asks has no right to know."""
    try:
        known = await store.questions(stream)
        wanted = question or current_question(known)
        qids = [qid for qid, asked in known.items() if asked.question == wanted]
        head = (await store.load(stream)).cursor.head
        ranges = [scored for scored in await store.ranges(stream, qids) if scored]
    except NoPermissionError:
        return None
    scored = max((each.hi - each.lo - each.skipped for each in ranges), default=None)
    return None if scored is None else (scored, head)


async def describe(store: StreamStore, stream: str) -> dict[str, Any]:
    """What there is of a stream: segments, what is retained, gaps, questions and their coverage."""
    cursor = (await store.load(stream)).cursor
    asked = await store.questions(stream)
    ranges = zip(asked.values(), await store.ranges(stream, asked), strict=True)
    questions = [
        {"question": each.question, "coverage": round(scored.coverage(cursor.head), 4)}
        for each, scored in ranges
        if scored is not None and not each.until
    ]
    return {
        "stream": stream,
        "segments": cursor.head,
        "retained": cursor.head - cursor.first,
        "gaps": cursor.gaps,
        "as_of": cursor.next,
        "questions": questions,
    }


async def top(store: StreamStore, stream: str, question: str) -> dict[str, Any] | None:
    """A current question's running top-k, the most certain first; None if it has none yet."""
    for qid, asked in (await store.questions(stream)).items():
        if asked.question != question or asked.until:
            continue
        view = await store.view(stream, qid)
        if view is None:
            continue
        best = [
            {"index": s.index, "score": score, "start": s.start, "end": s.end, "text": s.text}
            for s, score in view.top
        ]
        return {"stream": stream, "question": question, "range": [view.range.lo, view.range.hi],
                "segments": view.state.cursor.head, "top": best}  # fmt: skip
    return None


async def updates(redis: Redis, stream: str) -> AsyncIterator[dict[str, Any]]:
    """Told whenever a top-k of the stream changed, or a question was refused; first of all an
    empty map, when listening has begun."""
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(keys.update_channel(stream))
        yield {}
        async for message in pubsub.listen():
            yield decode(message["data"])
