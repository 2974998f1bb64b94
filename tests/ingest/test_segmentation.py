"""Segmentation: noted with a log, and reported to a worker with another model."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
from redis.asyncio import Redis

from stream_app.ingest.segmentation import (
    Segmentation,
    SegmentationCheck,
    differences,
    mismatches,
    retained,
)
from stream_app.settings import Settings
from stream_app.store.state import Commit, Committed, Cursor, Retention, State
from stream_app.store.store import StreamStore
from tests.support import tiny
from tests.support.fakes import HashEngine
from xl3m_core import Engine, LanguageModel, Method, Segment, Tail

Fresh = Callable[[str], str]
LONG, SHORT, OTHER = Segmentation(512, 7), Segmentation(100, 7), Segmentation(100, 8)
METHOD = Method.fit(512, k=3)  # of which 512 - 1 - 64 - 32 are for a segment


@pytest.fixture
def store(redis_client: Redis) -> StreamStore:
    """A store that keeps three segments of a log."""
    return StreamStore(redis_client, Retention(3))


def cursor(first: int, **cuts: Segmentation) -> Cursor:
    return Cursor(head=9, first=first, cuts={int(k[1:]): c.number for k, c in cuts.items()})


@pytest.mark.guarantee("Chunking")
def test_a_cut_is_one_number() -> None:
    for cut in (LONG, SHORT, Segmentation(1 << 20, (1 << 32) - 1), Segmentation(1, 0)):
        assert Segmentation.from_number(cut.number) == cut


@pytest.mark.guarantee("Chunking")
def test_what_is_trimmed_counts_no_more() -> None:
    cuts = {"_0": LONG, "_4": SHORT}
    assert retained(cursor(0, **cuts)) == retained(cursor(3, **cuts)) == {LONG, SHORT}
    assert retained(cursor(4, **cuts)) == {SHORT}
    assert retained(Cursor(head=9)) == set(), "an older worker noted nothing"


@pytest.mark.guarantee("Chunking")
def test_a_mismatch_names_its_streams_and_numbers() -> None:
    cursors = {f"s{i}": cursor(0, _0=LONG) for i in range(5)} | {"fits": cursor(0, _0=SHORT)}
    (mismatch,) = differences(cursors, METHOD, SHORT)
    assert mismatch.startswith("5 streams ('s0', 's1', 's2', …) hold segments of 512 tokens")
    assert "reads 415 " in mismatch and "xl3m rebuild" in mismatch
    (mismatch,) = differences({"a": cursor(0, _0=OTHER)}, METHOD, SHORT)
    assert mismatch.startswith("1 stream ('a') ") and "tokenizer" in mismatch
    assert [*differences({"a": cursor(0, _0=SHORT), "b": Cursor()}, METHOD, SHORT)] == []


async def grown(
    store: StreamStore, stream: str, base: State, count: int, cut: Segmentation
) -> State:
    head = base.cursor.head
    segments = [Segment(head + i, "x", i, i + 1, i, i + 1) for i in range(count)]
    offset = base.cursor.next.get("t/0", 0) + 1
    commit = Commit(
        stream, base, segments, Tail(head + count), "t/0", 1, offset, cut=cut.number
    )  # fmt: skip
    (result,) = await store.commit([commit])
    assert isinstance(result, Committed)
    state = result.state
    return state


@pytest.mark.guarantee("Chunking")
async def test_the_cursor_says_how_its_log_was_cut(store: StreamStore, fresh: Fresh) -> None:
    stream = fresh("s")
    state = await grown(store, stream, State(), 2, LONG)
    state = await grown(store, stream, state, 1, LONG)
    assert state.cursor.cuts == {0: LONG.number}
    state = await grown(store, stream, state, 2, SHORT)
    assert state.cursor.cuts == {0: LONG.number, 3: SHORT.number}
    assert state == await store.load(stream)
    assert retained(state.cursor) == {LONG, SHORT}
    state = await grown(store, stream, state, 1, SHORT)
    assert retained(state.cursor) == {SHORT}
    assert [state.cursor] == await store.cursors([stream])


@pytest.mark.guarantee("Chunking")
async def test_a_worker_with_a_smaller_window_says_what_it_finds(
    store: StreamStore, fresh: Fresh, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    from stream_app.cli.doctor import _segmented_otherwise

    stream, engine = fresh("s"), HashEngine()
    await store.register_streams([(stream, "t/0")])
    await grown(
        store, stream, State(), 2, replace(Segmentation.of_engine(engine), segment_tokens=190)
    )
    mismatch = [line for line in await mismatches(store, engine) if stream in line]
    assert len(mismatch) == 1 and "segments of 190 tokens" in mismatch[0]
    with caplog.at_level(logging.WARNING, "xl3m"):
        await SegmentationCheck(engine, store).run()
    assert mismatch[0] in caplog.messages
    assert mismatch[0] in await _segmented_otherwise(Settings(redis=redis_url), engine)


@pytest.mark.guarantee("Chunking")
def test_two_tokenizers_have_two_marks() -> None:
    spaced = LanguageModel(tiny.network("llama"), tiny.spaced_tokenizer(), tiny.WINDOW)
    one, other = (
        Segmentation.of_engine(tiny.engine(tiny.model())),
        Segmentation.of_engine(tiny.engine(spaced)),
    )
    assert one.tokenizer != other.tokenizer
    assert Segmentation.of_engine(tiny.engine(tiny.model("gpt2"))) == one, (
        "the tokenizer counts, not the network"
    )


@pytest.mark.guarantee("Chunking")
def test_a_smaller_model_answers_from_the_end_of_a_segment_cut_for_a_larger_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = LanguageModel(tiny.network("llama"), tiny.tokenizer(), 96)
    engine = Engine(model, Method.fit(96, question_tokens=60, answer_tokens=4, segment_tokens=20))
    text = "".join(f"pump {i} is down since noon\n" for i in range(20))
    tokens = model.count_tokens([text])[0]
    assert tokens > 96
    segment = Segment(0, text, 0, len(text), 0, tokens)
    with caplog.at_level(logging.WARNING, "xl3m"):
        scores = [engine.score([(text, q)])[0] for q in ("which?", "why?")]
    assert len(caplog.messages) == 1 and f"of {tokens} tokens" in caplog.messages[0]
    assert engine.shortened == 2 and all(score < 0 for score in scores)
    context = engine.assemble([segment], "which?")
    (cut,) = context.segments
    assert text.endswith(cut.text) and cut.text.startswith("pump") and cut.end == segment.end
    assert engine.answer(context, "which?").certainty <= 0
