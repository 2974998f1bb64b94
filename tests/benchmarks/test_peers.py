"""The peers benchmark: each baseline does what its name says, and gives a row."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import parser
from benchmarks.accuracy import peers
from benchmarks.accuracy.baselines import PEERS, LastWindow, Rag, Reply
from benchmarks.accuracy.kv_baselines import CachedText, dynamic_base, extend, moved_up
from benchmarks.harness.haystack import VARIANTS, Haystack
from stream_app.sample_log import service_log
from tests.support import tiny
from xl3m_core import XL3M, Engine, LanguageModel, ModelError

IDS = [3 + 7 * i % 290 for i in range(150)]
NAMES = [name for name in PEERS if name != "embedding_rag"]


@pytest.fixture(scope="module")
def small() -> Engine:
    return XL3M.load().engine


def fresh(name: str = "llama") -> LanguageModel:
    """A model whose RoPE may be changed: it is not shared with other tests."""
    return LanguageModel(tiny.make(name), tiny.tokenizer(), tiny.WINDOW)


def full(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    return model.logits([ids], 1)[0, -1]


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gpt_neox"])
def test_sinks_equal_the_full_forward_while_the_text_fits(name: str) -> None:
    text = CachedText(tiny.model(name), len(IDS), chunk=13)
    torch.testing.assert_close(text.read(IDS), full(tiny.model(name), IDS), rtol=1e-3, atol=1e-3)


def test_the_cache_never_exceeds_its_size_and_keeps_the_sinks_and_the_latest() -> None:
    text = CachedText(tiny.model(), 40, chunk=7)
    for at in range(0, len(IDS), 10):
        text.read(IDS[at : at + 10])
        assert text.cache.get_seq_length() == len(text.ids) <= 40
    assert text.ids == IDS[:4] + IDS[-36:]


def test_keys_moved_up_are_those_of_the_earlier_position() -> None:
    text = CachedText(tiny.model())
    text.read([5, 6, 7] * 5)
    keys = text.cache.layers[0].keys
    moved = moved_up(tiny.model(), keys[..., 12:, :], 12)
    torch.testing.assert_close(moved, keys[..., :3, :], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [None, 60])
def test_asking_leaves_no_trace(size: int | None) -> None:
    text = CachedText(tiny.model(), size)
    text.read(IDS)
    first, kept = text.answer([9, 8, 7], 12)
    assert (first, kept) == text.answer([9, 8, 7], 12)
    assert text.cache.get_seq_length() == len(text.ids) == min(len(IDS), size or len(IDS))


def test_the_answer_is_that_of_generate(small: Engine) -> None:
    text_lines = "\n".join(service_log(15, 3)[0])
    prompt = small.model.prompt(text_lines + "\nQuestion: What is it?\nAnswer: ")
    expected, _ = small.model.generate(prompt, 16)
    for size in (None, small.model.window):
        text = CachedText(small.model, size)
        text.read(prompt[:-5])
        assert text.answer(prompt[-5:], 16)[0] == expected.strip()


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
def test_a_text_read_in_chunks_equals_one_forward(name: str) -> None:
    text = CachedText(tiny.model(name), chunk=16)
    torch.testing.assert_close(text.read(IDS), full(tiny.model(name), IDS), rtol=1e-3, atol=1e-3)


def test_dynamic_rope_in_chunks_is_what_transformers_does_in_one_forward() -> None:
    ids, model, theirs = IDS * 3, fresh(), fresh()
    factor = len(ids) / tiny.WINDOW
    extend(model, "dynamic", len(ids))
    config = theirs.model.config
    config.rope_parameters = config.rope_parameters | {"rope_type": "dynamic", "factor": factor}
    theirs.model.model.rotary_emb = type(theirs.model.model.rotary_emb)(config)
    logits = CachedText(model, chunk=16).read(ids)
    torch.testing.assert_close(logits, full(theirs, ids), rtol=1e-3, atol=1e-3)
    assert dynamic_base(model.model.config, 1.0) == 10_000


def test_yarn_changes_only_what_is_longer_than_the_window() -> None:
    model = fresh()
    for tokens, same in ((100, True), (1000, False), (150, True)):
        extend(model, "yarn", tokens)
        assert torch.equal(full(model, IDS), full(tiny.model(), IDS)) is same


@pytest.mark.parametrize("name", ["gpt2", "bloom", "gemma3"])
def test_a_model_without_one_rope_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="rotary"):
        CachedText(tiny.model(name), 40)


def test_bm25_finds_a_unique_key(small: Engine) -> None:
    haystack = Haystack(small.model.count_tokens, 2000)
    needle, rag = haystack.needles[0], PEERS["bm25_rag"](small, 2000)
    rag.read(haystack, [needle.question])
    assert isinstance(rag, Rag)
    assert peers.found(needle, rag.ask(needle.question))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_shortest_text_fits_the_window_and_has_all_needles(small: Engine, variant: str) -> None:
    haystack = Haystack(small.model.count_tokens, min(peers.LENGTHS), variant, 0, peers.DEPTHS)
    text = "".join(haystack)
    assert small.model.count_tokens([text])[0] <= small.model.window - small.method.question_tokens
    whole = Reply("", text)
    assert all(peers.found(needle, whole) for needle in haystack.needles)


def test_last_window_is_the_longest_end_that_fits(small: Engine) -> None:
    haystack = Haystack(small.model.count_tokens, 2000)
    window, question = LastWindow(small), haystack.needles[0].question
    window.read(haystack, [])
    seen = window.ask(question).seen
    assert seen and "".join(haystack).endswith(seen)
    left = small.model.window - small.method.answer_tokens - small.model.count_tokens([seen])[0]
    assert 0 <= left < 100


def test_every_peer_gives_a_row(small: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_engine", small, raising=False)
    rows = [peers._row(peers.Task(name, "multikey", 400, (0,), 1000)) for name in NAMES]
    assert [row["note"] for row in rows] == [""] * len(NAMES)
    assert all(row["questions"] == 3 and row["tokens_per_s"] > 0 for row in rows)
    long = peers._row(peers.Task("yarn", "multikey", 2000, (0,), 1000))
    assert long["exact_match"] is None and "--most-tokens" in long["note"]


def test_the_rows_come_in_order_and_are_plotted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_this_process(_: str | None, tasks: list[peers.Task]) -> Iterator[dict[str, object]]:
        return (peers._empty(task, "") | {"exact_match": 0.5} for task in tasks)

    monkeypatch.setattr(peers, "run", in_this_process)
    words = f"--short --out {tmp_path} --variants multikey --peers yarn bm25_rag"
    args = parser().parse_args(["peers", *words.split()])
    rows = peers.measure(args)
    assert [row["peer"] for row in rows] == ["yarn"] * 3 + ["bm25_rag"] * 3
    assert (tmp_path / "peers.png").exists()
