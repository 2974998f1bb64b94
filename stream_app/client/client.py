"""The client: ask questions of streams and look at their state. Any program may use it.

All functions but `set_question` need only Redis (pub/sub and the streams' keys); no model is
loaded. Get a store from `open_redis` and
`StreamStore.from_settings`, then:

    async for message in client.ask(store, "app.log", "Which host fails?", deadline=30.0):
        print(message)
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from stream_app.errors import UnreachableError
from stream_app.events import decode, encode
from stream_app.runtime.escape import unescape_name
from stream_app.settings import Settings
from stream_app.store.connection import NoPermissionError
from stream_app.store.ranking import ranked
from stream_app.store.state import current_question
from stream_app.store.store import StreamStore
from stream_app.store.subscription import retry_briefly

# Waited beyond the query's deadline: for the batch in progress and for generating the answer.
ANSWER_SECONDS = 60.0
POLL_SECONDS = 0.2


async def ask(
    store: StreamStore, stream: str, question: str | None, deadline: float, early: bool = True
) -> AsyncIterator[dict[str, Any]]:
    """Ask a stream and yield the reply's messages.

    Maps of `type` "text", each with a piece of the answer's text, then one of `type` "answer" with
    the whole answer, or with `error`. early: while the stream is scored, yield before these early
    answers, each as maps of `type` "revision_text" with a `piece` of it, then one of `type`
    "revision"; both have its number, `revision`. question: None asks the standing question;
    deadline: seconds for scoring. Raises UnreachableError if no worker listens or none answers.
    """
    query = {"id": uuid.uuid4().hex, "stream": stream, "deadline": deadline}
    query |= {"question": question} if question else {}
    query |= {} if early else {"early": False}
    channel = store.keys.answer_channel(str(query["id"]))
    try:
        async with (
            aclosing(store.follow(channel)) as messages,
            asyncio.timeout(deadline + ANSWER_SECONDS),
        ):
            await anext(messages)  # subscribed: an earlier answer would be lost
            await ensure_worker(store)
            await store.publish([(store.keys.query_channel(), encode(query))])
            async for fields in _replies(store, query, messages):
                yield fields
    except TimeoutError:
        raise UnreachableError(
            f"no answer within {deadline + ANSWER_SECONDS:.0f} s: the worker may have died; "
            "ask again"
        ) from None


async def _replies(
    store: StreamStore, query: dict[str, Any], messages: AsyncIterator[dict[str, Any] | None]
) -> AsyncIterator[dict[str, Any]]:
    """The messages up to the answer; text that was not streamed is yielded just before it."""
    streamed = ""
    async for message in messages:
        if message is None:
            await _publish_again(store, query)
            continue
        fields = decode(message["data"])
        if fields.get("type") == "answer":
            if rest := _unstreamed(streamed, fields.get("answer")):
                yield {"type": "text", "id": query["id"], "text": rest}
            yield fields
            return
        if fields.get("type") == "text":
            streamed += str(fields.get("text", ""))
        yield fields


async def _publish_again(store: StreamStore, query: dict[str, Any]) -> None:
    """Publish the query once more after a lost subscription, under the same id: a worker that
    answered it meanwhile repeats its answer. Workers resubscribe, too, so wait for one."""
    while not await retry_briefly(lambda: workers(store)):
        await asyncio.sleep(POLL_SECONDS)
    message = store.keys.query_channel(), encode(query)
    await retry_briefly(lambda: store.publish([message]))


def _unstreamed(streamed: str, answer: Any) -> str:
    """The part of the answer's text that was not streamed; all of it if the two differ."""
    if not isinstance(answer, str) or streamed.strip() == answer.strip():
        return ""
    return answer[len(streamed) :] if answer.startswith(streamed) else f"\n{answer}"


async def set_question(
    settings: Settings, stream: str, question: str, replace: bool = False
) -> None:
    """Make it a standing question of the stream, through the questions topic of Kafka.

    replace: it ends the stream's other standing questions. Raises UnreachableError if Kafka does
    not answer.
    """
    from stream_app.kafka.producer import open_producer
    from stream_app.kafka.topics import ensure_topics

    await ensure_topics(settings)
    async with open_producer(settings) as producer:
        value = encode({"question": question, "add": not replace})
        await producer.send_and_wait(settings.questions_topic, value, key=stream.encode())


async def ensure_worker(store: StreamStore) -> None:
    """Raise UnreachableError if no worker listens."""
    if not await workers(store):
        raise UnreachableError(
            "no worker listens on this Redis: start one with `xl3m worker`, or wait until it has "
            "loaded its model"
        )


async def workers(store: StreamStore) -> int:
    """The number of workers that listen for queries."""
    return await store.listening_workers()


async def resolve(store: StreamStore, name: str) -> str:
    """The stream's real name for a name as the commands print it.

    They print unsafe characters as codes such as `\\x1b`. The name is returned as it is if a
    stream has exactly that name, or if none has the decoded one.
    """
    decoded = unescape_name(name)
    if decoded == name:
        return name
    try:
        has_literal, has_decoded = [await store.has_stream(each) for each in (name, decoded)]
    except NoPermissionError:  # a user that may only ask cannot list the streams
        return name
    return decoded if has_decoded and not has_literal else name


async def scored_segments(
    store: StreamStore, stream: str, question: str | None
) -> tuple[int, int] | None:
    """(segments scored for the question, segments in the stream); question: None is the standing
    one. None if the question has no scores yet, or the Redis user may not read them."""
    try:
        records = await store.questions.load(stream)
        wanted = question or current_question(records)
        qids = [qid for qid, record in records.items() if record.question == wanted]
        head = (await store.load(stream)).cursor.head
        ranges = [scored for scored in await store.scored_ranges(stream, qids) if scored]
    except NoPermissionError:
        return None
    scored = max((each.read for each in ranges), default=None)
    return None if scored is None else (scored, head)


async def describe(store: StreamStore, stream: str) -> dict[str, Any]:
    """The state of a stream: `segments` completed, `tail` characters behind the last segment,
    segments `retained`, missing offsets (`gaps`), next offsets (`as_of`), and the standing
    `questions` with their coverage."""
    state = await store.load(stream)
    cursor = state.cursor
    records = await store.questions.load(stream)
    ranges = zip(records.values(), await store.scored_ranges(stream, records), strict=True)
    questions = [
        {"question": record.question, "coverage": round(scored.coverage(cursor.head), 4)}
        for record, scored in ranges
        if scored is not None and not record.expires_at
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
    """The running top-k of a standing question, best segment first; None if there is none yet."""
    for qid, record in (await store.questions.load(stream)).items():
        if record.question != question or record.expires_at:
            continue
        snapshot = await store.snapshot(stream, qid)
        if snapshot is None:
            continue
        best = [
            {"index": s.index, "score": score, "start": s.start, "end": s.end, "text": s.text}
            for s, score in ranked(snapshot, max(1, snapshot.k))
        ]
        scored = [snapshot.scored_range.lo, snapshot.scored_range.hi]
        return {"stream": stream, "question": question, "range": scored,
                "segments": snapshot.state.cursor.head, "top": best}  # fmt: skip
    return None


async def updates(store: StreamStore, stream: str) -> AsyncIterator[dict[str, Any]]:
    """A map for every change of a top-k of the stream, and for every refused question.

    The first map is empty and says that the subscription has begun; so is one after each
    reconnection, since updates may have been missed before it.
    """
    async for message in store.follow(store.keys.update_channel(stream)):
        yield decode(message["data"]) if message else {}
