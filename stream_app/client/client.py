"""Client: asks through Redis pub/sub, and looks at what streams hold.

What the command line uses, and any program may. Knows Redis; no Kafka, no model.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from stream_app.errors import SettingsError, UnreachableError
from stream_app.events import decode, encode
from stream_app.runtime.escape import unescape_name
from stream_app.settings import Settings
from stream_app.settings.variables import variable
from stream_app.store.keys import Keys
from stream_app.store.state import current_question
from stream_app.store.store import StreamStore
from stream_app.store.subscription import follow

# On top of the query's own deadline: loading nothing, generating, and a batch before it.
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.2


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[Redis]:
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
        if "HELLO" in str(error):
            raise UnreachableError(
                f"Redis is older than 6.0 ({error}): upgrade it, or name another in "
                f"{variable('redis')}"
            ) from error
        raise UnreachableError(
            f"Redis does not answer ({error}): start one, or name another with --redis or "
            f"{variable('redis')}"
        ) from error
    finally:
        await redis.aclose()


def store_of(settings: Settings, redis: Redis) -> StreamStore:
    """The streams of the settings' prefix, bounded as they say."""
    keys = Keys(settings.prefix)
    return StreamStore(redis, settings.retention_segments, settings.retention_bytes, keys)


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
    store: StreamStore, stream: str, question: str | None, deadline: float
) -> AsyncIterator[dict[str, Any]]:
    """Ask, and give out what comes back: maps of `type` "text" with a piece of the answer,
    then one of `type` "answer". Raises UnreachableError when no worker listens."""
    query = {"id": uuid.uuid4().hex, "stream": stream, "deadline": deadline}
    query |= {"question": question} if question else {}
    channel = store.keys.answer_channel(str(query["id"]))
    try:
        async with (
            aclosing(follow(store.redis, channel)) as heard,
            asyncio.timeout(deadline + ANSWER_SECONDS),
        ):
            await anext(heard)  # an answer would be lost before
            await ensure_worker(store)
            await store.redis.publish(store.keys.query_channel(), encode(query))
            async for fields in _said(store, query, heard):
                yield fields
    except TimeoutError:
        raise UnreachableError(
            f"no answer within {deadline + ANSWER_SECONDS:.0f} s: the worker may have died; "
            "ask again"
        ) from None


async def _said(
    store: StreamStore, query: dict[str, Any], heard: AsyncIterator[dict[str, Any] | None]
) -> AsyncIterator[dict[str, Any]]:
    """What is said until the answer, with all of its text in pieces before it."""
    said = ""
    async for message in heard:
        if message is None:
            await _ask_again(store, query)
            continue
        fields = decode(message["data"])
        if fields.get("type") == "answer":
            if unsaid := _unsaid(said, fields.get("answer")):
                yield {"type": "text", "id": query["id"], "text": unsaid}
            yield fields
            return
        said += str(fields.get("text", ""))
        yield fields


async def _ask_again(store: StreamStore, query: dict[str, Any]) -> None:
    """What was said while nobody listened is lost. With the same id: who has answered it meanwhile
    says it once more. After a restart of Redis workers need a moment to listen again, too."""
    while not await workers(store):
        await asyncio.sleep(POLL_SECONDS)
    await store.redis.publish(store.keys.query_channel(), encode(query))


def _unsaid(said: str, answer: Any) -> str:
    """What of the answer's text did not come in pieces; all of it, if these do not go together."""
    if not isinstance(answer, str) or said.strip() == answer.strip():
        return ""
    return answer[len(said) :] if answer.startswith(said) else f"\n{answer}"


async def ensure_worker(store: StreamStore) -> None:
    """Raise UnreachableError if no worker listens."""
    if not await workers(store):
        raise UnreachableError("no worker listens on this Redis: start one with `xl3m worker`")


async def workers(store: StreamStore) -> int:
    """How many workers listen."""
    return int((await store.redis.pubsub_numsub(store.keys.query_channel()))[0][1])


async def resolve(store: StreamStore, name: str) -> str:
    """The stream of that name; if there is none, but one whose name is printed so, that one."""
    meant = unescape_name(name)
    if meant == name:
        return name
    try:
        literal, coded = [
            await store.redis.sismember(store.keys.streams(), each) for each in (name, meant)
        ]
    except NoPermissionError:  # who may only ask has no right to look
        return name
    return meant if coded and not literal else name


async def scored_segments(
    store: StreamStore, stream: str, question: str | None
) -> tuple[int, int] | None:
    """How many of the stream's segments are scored for the question (None: the current one), and
    how many there are; None if nothing is known of it, or who asks has no right to know."""
    try:
        known = await store.questions(stream)
        wanted = question or current_question(known)
        qids = [qid for qid, asked in known.items() if asked.question == wanted]
        head = (await store.load(stream)).cursor.head
        ranges = [scored for scored in await store.scored_ranges(stream, qids) if scored]
    except NoPermissionError:
        return None
    scored = max((each.hi - each.lo - each.skipped for each in ranges), default=None)
    return None if scored is None else (scored, head)


async def describe(store: StreamStore, stream: str) -> dict[str, Any]:
    """What there is of a stream: segments, the characters behind the last one, what is retained,
    gaps, questions and their coverage."""
    state = await store.load(stream)
    cursor = state.cursor
    asked = await store.questions(stream)
    ranges = zip(asked.values(), await store.scored_ranges(stream, asked), strict=True)
    questions = [
        {"question": each.question, "coverage": round(scored.coverage(cursor.head), 4)}
        for each, scored in ranges
        if scored is not None and not each.expires_at
    ]
    return {
        "stream": stream,
        "segments": cursor.head,
        "tail": state.tail.unsegmented,
        "retained": cursor.head - cursor.first,
        "gaps": cursor.gaps,
        "as_of": cursor.next,
        "questions": questions,
    }


async def top(store: StreamStore, stream: str, question: str) -> dict[str, Any] | None:
    """A current question's running top-k, the most certain first; None if it has none yet."""
    for qid, asked in (await store.questions(stream)).items():
        if asked.question != question or asked.expires_at:
            continue
        view = await store.snapshot(stream, qid)
        if view is None:
            continue
        best = [
            {"index": s.index, "score": score, "start": s.start, "end": s.end, "text": s.text}
            for s, score in view.top
        ]
        scored = [view.scored_range.lo, view.scored_range.hi]
        return {"stream": stream, "question": question, "range": scored,
                "segments": view.state.cursor.head, "top": best}  # fmt: skip
    return None


async def updates(store: StreamStore, stream: str) -> AsyncIterator[dict[str, Any]]:
    """Told whenever a top-k of the stream changed, or a question was refused; first of all an
    empty map, when listening has begun, and again if it had to begin anew."""
    async for message in follow(store.redis, store.keys.update_channel(stream)):
        yield decode(message["data"]) if message else {}
