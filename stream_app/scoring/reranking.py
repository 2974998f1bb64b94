"""Reranking: a question's rows under another measure or k, without the model.

A row keeps the raw numbers that the model gave, so its score by another measure is a function of
them. Rows that lack a number the new measure needs are left out: the model reads these again.
"""

import asyncio
import math
from typing import TYPE_CHECKING

from stream_app.scoring.jobs import TrackedQuestion, range_update
from stream_app.store.range_update import RangeResult
from stream_app.store.rows import Flag, Rows, flag_of, pack_row
from stream_app.store.store import StreamStore
from xl3m_core.relevance import SMOOTHED_MEASURES

if TYPE_CHECKING:
    from xl3m_core import Engine

ROWS_AT_ONCE = 2048
"""Rows that are written by one command."""


async def rank_again(
    store: StreamStore, engine: "Engine", stream: str, qid: str, new_qid: str
) -> int | None:
    """Give a standing question's rows, ranked by the engine's measure and k, the id `new_qid`, and
    end `qid`. Returns how many rows were kept; None if it was interrupted by another change of the
    question: then `qid` stays, to be tried again.

    Texts come from the log: a segment of the top-k that the log no longer has is left out.
    """
    scored = await store.scored_range(stream, qid)
    if scored is None or not await store.questions.copy(stream, qid, new_qid, scored.hi):
        return None
    cursor = (await store.load(stream)).cursor
    rows = await store.rows(stream, qid, cursor.first, cursor.head)
    new = await asyncio.to_thread(rows_by_measure, rows, engine)
    if (question := await _tracked(store, stream, new_qid)) is None:
        return None
    newest_first = sorted(new, reverse=True)
    for at in range(0, len(new), ROWS_AT_ONCE):
        job = question.scattered_job(newest_first[at : at + ROWS_AT_ONCE], cursor)
        (reply,) = await store.extend_range([range_update(job, new)], engine.method.k)
        if reply.result is RangeResult.CONFLICT:
            return None
        question.written(job, reply)
    await store.questions.end(stream, qid)
    return len(new)


def rows_by_measure(rows: Rows, engine: "Engine") -> dict[int, bytes]:
    """By index, those rows that have what the engine's measure needs, with its scores."""
    smooths = engine.method.measure in SMOOTHED_MEASURES
    new = dict[int, bytes]()
    for index in rows.read():
        features = rows.features(index)
        if (score := engine.relevance(features)) > -math.inf:
            is_running_text = rows.flag(index) is not Flag.READ
            flag = flag_of(is_running_text=is_running_text, is_smoothed=is_running_text and smooths)
            new[index] = pack_row(score, flag, features)
    return new


async def _tracked(store: StreamStore, stream: str, qid: str) -> TrackedQuestion | None:
    _, known = await store.questions.tracked(stream)
    record, scored = known.get(qid, (None, None))
    return TrackedQuestion(stream, qid, record, scored) if record and scored else None
