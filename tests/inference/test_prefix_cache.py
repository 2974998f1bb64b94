"""The prefix cache changes the speed of an answer, not the answer."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import tiny
from xl3m_core import LanguageModel
from xl3m_core.inference.prefix_cache import shared_tokens

SHARING = [name for name in tiny.CONFIGS if tiny.model(name).can_extend_cache]
PER_TOKEN = 256  # two layers' keys and values, two heads of eight float32 each
LOGITS = 4 * tiny.VOCAB
PARTS = st.lists(st.integers(3, 30), min_size=1, max_size=40)


def fresh(name: str, prefix_cache_bytes: int) -> LanguageModel:
    cold = tiny.model(name)
    return LanguageModel(cold.model, cold.tokenizer, cold.window, prefix_cache_bytes)


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("name", SHARING)
@given(st.lists(st.tuples(PARTS, PARTS, st.booleans()), min_size=2, max_size=5))
@settings(max_examples=15, deadline=None)
def test_an_answer_is_the_same_with_any_earlier_prompts(name: str, prompts: Any) -> None:
    cached, uncached, start = fresh(name, 1 << 20), fresh(name, 0), list[int]()
    for more, question, prefetch in prompts:
        start = [*start[: len(more)], *more]
        prompt = [0, *start, *question]
        if prefetch:
            cached.prefill(prompt)
        text, first = cached.generate(prompt, 8)
        expected, logits = uncached.generate(prompt, 8)
        assert text == expected
        torch.testing.assert_close(first, logits, rtol=1e-3, atol=1e-3)
    assert cached.prefix_cache.entries and not uncached.prefix_cache.entries


@pytest.mark.parametrize("name", SHARING)
def test_of_a_prefilled_prompt_nothing_is_left_to_read(name: str) -> None:
    model, read = fresh(name, 1 << 20), list[int]()
    prompt = [0, *range(5, 90)]
    model.prefill(prompt)
    hook = model.model.register_forward_pre_hook(
        lambda _, args, inputs: read.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    model.generate(prompt, 1)
    model.prefill(prompt)
    assert not read
    model.generate(prompt, 4)
    assert read == [1] * len(read) and len(read) < 4  # its own generated tokens
    model.prefill([*prompt[:60], 7, 8])
    model.prefill([*prompt[:40]])  # cached, but not the logits of its last token
    hook.remove()
    assert read[-2:] == [2, 1]


@pytest.mark.guarantee("Bounded memory")
@given(st.lists(PARTS, max_size=8), st.integers(0, 60_000))
@settings(max_examples=20, deadline=None)
def test_memory_has_a_bound_and_the_latest_stay(prompts: list[list[int]], limit: int) -> None:
    model, last = fresh("llama", limit), list[int]()
    for i, prompt in enumerate(prompts):
        last = [i, *prompt]
        model.prefill(last)
        assert model.prefix_cache.bytes <= limit
    if last and len(last) * PER_TOKEN + LOGITS <= limit:
        assert tuple(last) in model.prefix_cache.entries


@pytest.mark.parametrize("name", sorted(set(tiny.CONFIGS) - set(SHARING)))
def test_other_models_keep_nothing(name: str) -> None:
    model = fresh(name, 1 << 20)
    model.prefill([0, 5, 6])
    model.generate([0, *range(5, 40)], 4)
    assert not model.prefix_cache.entries


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_shared_tokens_are_those_of_a_comparison_one_by_one(
    start: list[int], one: list[int], other: list[int]
) -> None:
    left, right = (*start, *one), (*start, *other)
    same = (a == b for a, b in zip(left, right, strict=False))
    naive = sum(1 for _ in itertools.takewhile(bool, same))
    assert shared_tokens(left, right) == shared_tokens(right, left) == naive
