"""The engine's batches and the whole method on one text: the same result for any chunks.

The model is tiny and its weights are random: the answers are meaningless, but must be equal.
"""

import gc
import itertools
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.support import tiny
from xl3m_core import (
    XL3M,
    Answer,
    Engine,
    KeyContext,
    LanguageModel,
    Measure,
    Method,
    MethodError,
    QuestionError,
    Segment,
    Tail,
)
from xl3m_core.inference.batching import batches
from xl3m_core.inference.executor import ModelExecutor
from xl3m_core.method import MEASURES
from xl3m_core.relevance import relevance
from xl3m_core.scoring import plan_batches

QUESTION = "which pump is down?"
LINES = [
    f"{i:03} pump {i * 7 % 10} {'is down' if i % 5 else 'runs'} in hall {i}" for i in range(60)
]
TEXT = "\n".join(LINES)
PAIRS = [(line * (1 + i % 3), QUESTION[i % 4 :]) for i, line in enumerate(LINES[:20])]


def xl3m(batch_tokens: int = 4096) -> XL3M:
    return XL3M(tiny.engine(tiny.model(), batch_tokens=batch_tokens))


def without_timings(answer: Answer) -> Answer:
    """The answer without its timings."""
    answer.timings.clear()
    return answer


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 400))
@settings(max_examples=25)
def test_batches_cover_every_row_once_and_keep_to_the_token_budget(
    sizes: list[int], budget: int
) -> None:
    watched = tiny.Watched()
    engine = tiny.engine(watched, batch_tokens=budget)
    engine.score([("x" * size, QUESTION) for size in sizes])
    rows = [len(row) for batch in watched.batches for row in batch]
    frame = len(engine.suffix(QUESTION)) + 1
    expected = [frame + size for size in map(len, watched.encode(["x" * n for n in sizes]))]
    assert sorted(rows) == sorted(expected)
    most = budget * 5 // 4 if engine.executor.workers > 1 else budget
    for batch in watched.batches:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= most


@given(st.integers(2, 4), st.integers(20, 120), st.integers(8, 400))
def test_workers_have_the_same_number_of_batches_and_the_last_is_no_leftover(
    workers: int, size: int, count: int
) -> None:
    engine = tiny.engine(tiny.model())
    engine.executor = ModelExecutor(workers)
    sizes = [size + n % 3 for n in range(count)]
    found = [len(batch) for batch in batches(sizes, engine.budget(sizes))]
    assert -(-len(found) // workers) * max(found) <= 1.3 * count / workers + 2


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("budget", [1, 100, 300, 1000])
def test_scores_are_the_same_whatever_the_batch_budget(measure: Measure, budget: int) -> None:
    usual = tiny.engine(tiny.model(), measure).score(PAIRS)
    other = tiny.engine(tiny.model(), measure, budget).score(PAIRS)
    assert other == pytest.approx(usual, abs=2e-4)


def test_scores_come_in_the_order_of_the_pairs() -> None:
    engine = tiny.engine(tiny.model())
    forth, back = engine.score(PAIRS), engine.score(PAIRS[::-1])
    assert back == pytest.approx(forth[::-1], abs=2e-4)
    assert len(set(forth)) == len(forth)
    assert engine.score([]) == []


# -- several questions of a segment --------------------------------------------------------------

ASKED = [QUESTION, "which pump is up?", "which hall?", "why is it wet in the hall?", "?"]
MANY = [(line * (i % 4), question) for i, line in enumerate(LINES[:9]) for question in ASKED]
MANY += [*PAIRS, ("wet " * 150, ASKED[0]), ("wet " * 150, ASKED[3])]
ALL: list[Measure] = [*get_args(Measure)]


def scores_by_measure(
    engine: Engine, pairs: Sequence[tuple[str, str]]
) -> dict[Measure, list[float]]:
    """The score of each pair by every measure, from one reading."""
    features = engine.features(pairs, ALL)
    return {measure: [relevance(each, measure) for each in features] for measure in ALL}


def submitted_scores(engine: Engine, pairs: Sequence[tuple[str, str]]) -> list[float]:
    """The scores of pairs that are scored in the background."""
    return [*map(engine.relevance, engine.submit(pairs).result().features)]


@pytest.mark.guarantee("Stream equals batch")
@pytest.mark.parametrize("name", tiny.CONFIGS)
@pytest.mark.parametrize("budget", [1, 300, 4096])
def test_questions_that_share_a_segment_have_the_scores_they_have_alone(
    name: str, budget: int
) -> None:
    engine = tiny.engine(tiny.model(name), batch_tokens=budget)
    together = scores_by_measure(engine, MANY)
    alone = [scores_by_measure(engine, [pair]) for pair in MANY]
    for measure in ALL:
        slow = [scores[measure][0] for scores in alone]
        assert together[measure] == pytest.approx(slow, abs=1e-3)
        assert max(slow) - min(slow) > 0.01, "a difference to be seen"


@pytest.mark.parametrize("measure", ALL)
def test_a_measure_among_others_is_the_measure_alone(measure: Measure) -> None:
    engine = tiny.engine(tiny.model(), measure)
    among = scores_by_measure(engine, MANY)[measure]
    assert among == pytest.approx(engine.score(MANY), abs=2e-4)
    assert engine.features([], ALL) == []


@pytest.mark.guarantee("Stream equals batch")
@given(st.lists(st.sampled_from(MANY), max_size=12), st.integers(0, 12), st.integers(1, 600))
@settings(max_examples=25, deadline=None)
def test_shared_scores_do_not_depend_on_what_comes_in_one_call(
    pairs: list[tuple[str, str]], cut: int, budget: int
) -> None:
    engine = tiny.engine(tiny.model(), batch_tokens=budget)
    parts = engine.score(pairs[:cut]) + engine.score(pairs[cut:])
    assert engine.score(pairs) == pytest.approx(parts, abs=1e-3)


@pytest.mark.parametrize("name", tiny.CONFIGS)
@pytest.mark.parametrize("workers", [2, 3])
def test_scores_are_the_same_with_one_worker_and_with_several(name: str, workers: int) -> None:
    one, several = (tiny.engine(tiny.model(name), batch_tokens=300) for _ in range(2))
    one.executor, several.executor = ModelExecutor(1), ModelExecutor(workers)
    assert len(plan_batches(several.model, several._rows(MANY), 300, workers)[0]) > workers
    slow, fast = scores_by_measure(one, MANY), scores_by_measure(several, MANY)
    for measure in ALL:
        assert fast[measure] == pytest.approx(slow[measure], abs=1e-3)
    assert several.score(MANY[:1]) == pytest.approx(one.score(MANY[:1]), abs=1e-3)


def test_a_pair_for_each_worker_is_one_batch_and_several_if_more_may_follow() -> None:
    watched = tiny.Watched()
    engine = tiny.engine(watched)
    engine.executor = ModelExecutor(2)
    scores = engine.score(PAIRS[:2])
    assert len(watched.batches) == 1
    assert submitted_scores(engine, PAIRS[:2]) == pytest.approx(scores, abs=1e-3)
    assert len(watched.batches) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_the_time_of_scores_is_that_of_their_batches_alone(
    workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, ticks = tiny.engine(tiny.model(), batch_tokens=1), itertools.count()
    engine.executor = ModelExecutor(workers)
    assert engine.submit(PAIRS[:6]).result().seconds > 0
    monkeypatch.setattr("xl3m_core.engine.score_batches", lambda *_: 2.0 + 0 * next(ticks))
    assert engine.submit(PAIRS[:6]).result().seconds == 6 * 2.0 / workers
    assert next(ticks) == 6


def test_scoring_from_inside_an_answer_is_refused() -> None:
    engine, refused = tiny.engine(tiny.model()), list[str]()

    def ask(_: str) -> None:
        for score in (engine.score, engine.submit):
            with pytest.raises(RuntimeError, match="inside an answer"):
                score(PAIRS)
            refused.append(score.__name__)

    engine.answer(KeyContext((), "pump seven is down"), QUESTION, ask)
    assert refused[:2] == ["score", "submit"]
    assert engine.score(PAIRS[:1])


def test_a_question_that_is_refused_is_refused_by_the_future() -> None:
    with pytest.raises(QuestionError, match="empty"):
        tiny.engine(tiny.model()).submit([("text", " ")]).result()


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_scores_submitted_before_others_are_complete_are_those_they_have_alone(
    order: tuple[int, ...],
) -> None:
    engine = tiny.engine(tiny.model(), batch_tokens=200)
    engine.executor = ModelExecutor(2)
    parts = [MANY[at::3] for at in range(3)]
    submitted = [engine.submit(part) for part in parts]
    engine.answer(KeyContext((), "pump seven is down"), QUESTION)
    for n in order:
        found = [*map(engine.relevance, submitted[n].result().features)]
        assert found == pytest.approx(engine.score(parts[n]), abs=1e-3)


@pytest.mark.guarantee("Scheduling")
@pytest.mark.parametrize("prompt", ["cold", "warm"])
def test_an_answer_beside_batches_in_progress_is_the_one_it_is_alone(
    prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, going, answered = tiny.model(), threading.Barrier(3, timeout=30), threading.Event()
    engine, read, waited = tiny.engine(model), model.logits, list[bool]()
    engine.executor = ModelExecutor(2)
    context, pieces = KeyContext((), "pump seven is down"), list[str]()
    alone = engine.answer(context, QUESTION)
    if prompt == "cold":
        model.prefix_cache.entries.clear()

    def slow(rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        going.wait()
        waited.append(answered.wait(30))
        return read(rows, keep)

    pairs = [(line, QUESTION) for line in LINES]
    scores = engine.score(pairs)
    monkeypatch.setattr(model, "logits", slow)
    with ThreadPoolExecutor(1) as pool:
        begun = pool.submit(engine.score, pairs)
        going.wait()  # both workers run a batch
        assert engine.answer(context, QUESTION, pieces.append) == alone
        answered.set()
        assert begun.result() == pytest.approx(scores, abs=1e-3)
    assert "".join(pieces) == alone.text
    assert waited == [True, True], "neither batch had ended before"


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_models_that_see_all_and_take_places_share(name: str) -> None:
    model = LanguageModel(tiny.network(name), tiny.tokenizer(), tiny.WINDOW)
    assert model.can_share_prefix is (name not in (*tiny.UNPADDED, "bloom", "mistral", "gemma3"))


@pytest.mark.parametrize("budget", [1, 300, 1000])
def test_a_shared_segment_is_read_once_and_forwards_keep_to_the_budget(budget: int) -> None:
    model = tiny.Watched()
    engine, read = tiny.engine(model, batch_tokens=budget), list[tuple[int, int]]()

    def note(_: Any, args: Any, inputs: dict[str, Any]) -> None:
        rows, width = inputs["input_ids"].shape
        read.append((rows, inputs["past_key_values"].get_seq_length() + width))

    hook = model.model.register_forward_pre_hook(note, with_kwargs=True)
    engine.score([(line, question) for line in LINES[:6] for question in ASKED])
    hook.remove()
    assert model.batches == []
    assert read and all(rows == 1 or rows * width <= budget for rows, width in read)


def test_a_row_never_exceeds_the_window_and_keeps_the_whole_question() -> None:
    watched = tiny.Watched()
    engine = tiny.engine(watched)
    engine.score([("long " * 500, QUESTION)])
    [[row]] = watched.batches
    assert len(row) == tiny.WINDOW
    assert row[0] == watched.bos[0]
    assert tuple(row[-len(engine.suffix(QUESTION)) :]) == engine.suffix(QUESTION)


@pytest.mark.guarantee("Chunking")
@pytest.mark.parametrize("cut", [1, 7, 10**6])
def test_a_text_in_chunks_gives_the_answer_of_the_whole_text(cut: int) -> None:
    chunks = (TEXT[start : start + cut] for start in range(0, len(TEXT), cut))
    assert without_timings(xl3m().answer(chunks, QUESTION)) == without_timings(
        xl3m().answer(TEXT, QUESTION)
    )


def test_the_batch_budget_changes_no_evidence() -> None:
    small, large = xl3m(100).answer(TEXT, QUESTION), xl3m().answer(TEXT, QUESTION)
    assert [e.index for e in small.evidence] == [e.index for e in large.evidence]
    assert small.answer == large.answer


def naive(engine: Engine, text: str) -> tuple[list[Segment], KeyContext]:
    """All segments, scored one by one, then sorted: the method as in the paper."""
    segmenter = engine.segmenter()
    tail, segments = segmenter.push(Tail(), text)
    segments += segmenter.flush(tail)
    scores = {s.index: engine.score([(s.text, QUESTION)])[0] for s in segments}
    ranked = sorted(segments, key=lambda s: (-scores[s.index], s.index))[: engine.method.k]
    return segments, engine.assemble(ranked, QUESTION)


@pytest.mark.parametrize("name", ["llama", "gpt2", "rwkv"])
def test_the_answer_is_that_of_the_method_done_naively(name: str) -> None:
    engine = tiny.engine(tiny.model(name), batch_tokens=500)
    segments, context = naive(engine, TEXT)
    answer = XL3M(engine).answer(TEXT, QUESTION)
    assert [e.index for e in answer.evidence] == [s.index for s in context.segments]
    assert answer.answer == engine.answer(context, QUESTION).text
    assert len(segments) > 2 * engine.method.k
    assert all(TEXT[e.start : e.end] == e.text for e in answer.evidence)


def live_segments() -> int:
    return sum(type(thing) is Segment for thing in gc.get_objects())


@pytest.mark.guarantee("Bounded memory")
def test_no_more_segments_are_held_than_the_best_and_one_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, batches, held = xl3m(64), list[int](), list[int]()
    score = whole.engine.score

    def noting(pairs: list[tuple[str, str]]) -> list[float]:
        batches.append(len(pairs))
        return score(pairs)

    monkeypatch.setattr(whole.engine, "score", noting)
    gc.collect()
    before = live_segments()
    many = (line + "\n" for _ in range(3) for line in LINES)
    whole.answer(many, QUESTION, on_progress=lambda _: held.append(live_segments() - before))
    assert len(batches) > 10
    assert max(held) <= whole.engine.method.k + max(batches)


@pytest.mark.guarantee("Bounded memory")
def test_a_chunk_of_any_size_is_worked_on_in_pieces() -> None:
    progress: list[int] = []
    whole = XL3M(Engine(tiny.model(), Method.fit(tiny.WINDOW, question_tokens=64, k=1), 4096))
    whole.answer(["down " * 30_000], QUESTION, on_progress=progress.append)
    assert len(progress) > 2


@pytest.mark.parametrize("question", ["", "  \n", "why " * 80])
@pytest.mark.parametrize("text", ["", TEXT])
def test_a_question_that_is_empty_or_too_long_is_refused_before_anything_is_read(
    question: str, text: str
) -> None:
    def unread() -> Iterator[str]:
        pytest.fail("read")
        yield text

    with pytest.raises(QuestionError, match=r"empty|tokens .* leaves it 64 of the window's 192"):
        xl3m().answer(unread(), question)
    with pytest.raises(QuestionError):
        xl3m().engine.score([(text, QUESTION), (text, question)])


def test_a_method_for_a_longer_window_is_refused() -> None:
    with pytest.raises(MethodError, match=r"4096 tokens.* 192"):
        Engine(tiny.model(), Method.fit(4096))
    assert Engine(tiny.model(), Method.fit(128)).method.window == 128


def test_progress_counts_the_tokens_scored_and_text_comes_as_it_is_generated() -> None:
    progress: list[int] = []
    pieces: list[str] = []
    answer = xl3m(64).answer(TEXT, QUESTION, on_progress=progress.append, on_text=pieces.append)
    assert progress == sorted(progress)
    assert progress[-1] == sum(tiny.model().count_tokens(TEXT.splitlines(keepends=True)))
    assert "".join(pieces).strip() == answer.answer


def test_a_text_of_nothing_has_no_answer() -> None:
    answer = xl3m().answer("", QUESTION)
    assert (answer.answer, answer.evidence, answer.error) == ("", (), "the text is empty")


def test_a_model_without_numbers_has_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = xl3m()
    monkeypatch.setattr(whole.engine, "score", lambda pairs: [-math.inf] * len(pairs))
    answer = whole.answer(TEXT, QUESTION)
    assert (answer.answer, answer.evidence) == ("", ())
    assert "no segment can be read" in str(answer.error)


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("chat", [None, tiny.CHAT])
def test_key_context_question_and_answer_fit_the_window(chat: str | None) -> None:
    class Measured(tiny.Watched):
        def generate(self, prompt: Any, max_tokens: int, on_text: Any = None) -> tuple[str, Tensor]:
            assert len(prompt) + max_tokens <= tiny.WINDOW
            return super().generate(prompt, max_tokens, on_text)

    model = Measured()
    model.tokenizer.chat_template = chat
    engine = tiny.engine(model)
    _, context = naive(engine, TEXT)
    assert context.segments
    engine.answer(context, QUESTION)


@pytest.mark.guarantee("Stream equals batch")
def test_segments_that_say_the_same_are_chosen_by_place_whatever_the_batches() -> None:
    same, others = "the pump in hall seven is down\n", [f"valve {i} is open\n" for i in range(40)]
    texts = [text for other in others for text in (same, other)]
    alone = tiny.engine(tiny.model(), batch_tokens=1).score([(same, QUESTION)])[0]
    for budget in (1, 200, 1000, 100_000):
        scores = tiny.engine(tiny.model(), batch_tokens=budget).score(
            [(text, QUESTION) for text in texts]
        )
        assert set(scores[::2]) == {alone}
