"""Chat models: an answer ends at the template's end of turn, and has no reasoning before it."""

import math
import threading
from itertools import pairwise
from typing import Any

import pytest
import torch
from tokenizers import AddedToken

from tests.support import tiny
from xl3m_core import Engine, KeyContext, LanguageModel, Method, ModelError, Segment
from xl3m_core.inference.chat_template import CONTENT, THOUGHTS, ChatTemplate

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPACED = "{% for m in messages %}{{ m.role }}: {{ m.content }} </s>{% endfor %}assistant:"
TEXTUAL = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
REFUSING = "{% for m in messages %}{% if m.role != 'user' %}{{ raise_exception('no') }}{% endif %}"
REFUSING += "{{ m.content }}{% endfor %}:"
QWEN3 = CHATML.removesuffix("{% endif %}")
QWEN3 += "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
R1 = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}assistant:<think>\n"


def tokenizer(template: str | None, special: bool = False) -> Any:
    made = tiny.tokenizer(template)
    made.add_tokens([AddedToken(n, special=True) for n in ("<|im_start|>", "<|im_end|>")])
    made.add_tokens([AddedToken(n, special=special) for n in ("<think>", "</think>")])
    return made


def chat(template: str) -> ChatTemplate:
    return LanguageModel(tiny.make("llama", vocab_size=310), tokenizer(template), tiny.WINDOW).chat


def id_of(made: Any, token: str) -> int:
    (found,) = made(token, add_special_tokens=False)["input_ids"]
    return int(found)


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize(
    ("template", "end"),
    [(CHATML, "<|im_end|>"), (QWEN3, "<|im_end|>"), (SPACED, "</s>"), (tiny.CHAT, "</s>"),
     (TEXTUAL, None), (REFUSING, None)],
)  # fmt: skip
def test_the_template_says_what_closes_a_turn(template: str, end: str | None) -> None:
    found = chat(template)
    assert found.end_token_ids() == ({id_of(found.tokenizer, end)} if end else set())


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("by_hand", [True, False])
def test_an_answer_ends_with_its_turn_though_the_files_name_the_bases_end(by_hand: bool) -> None:
    """In our decoding loop and in transformers', which by default stops at the config's tokens."""
    made = tokenizer(CHATML)
    foot, end, a = id_of(made, "\n"), id_of(made, "<|im_end|>"), id_of(made, "8")
    scripted = tiny.bigrams(made, {foot: {a: 9}, a: {end: 9}, end: {foot: 9}})
    scripted.generation_config.eos_token_id = 1
    model = LanguageModel(scripted, made, tiny.WINDOW)
    model.can_extend_cache = model.can_extend_cache and by_hand
    text, _ = model.generate(model.prompt("which port?"), 12)
    assert text == "8"


@pytest.mark.guarantee("Answer contents")
def test_the_tokenizers_end_counts_where_the_models_file_names_none() -> None:
    network = tiny.make("llama")
    network.generation_config.eos_token_id = None
    assert LanguageModel(network, tiny.tokenizer(), tiny.WINDOW).eos_token_ids == {1}
    network.generation_config.eos_token_id = [5, 6]
    assert LanguageModel(network, tiny.tokenizer(), tiny.WINDOW).eos_token_ids == {1, 5, 6}


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("template", [QWEN3, R1])
def test_a_prompt_ends_behind_a_thought_that_is_closed(template: str) -> None:
    model = LanguageModel(tiny.make("llama", vocab_size=310), tokenizer(template), tiny.WINDOW)
    text = model.tokenizer.decode(model.prompt("which?"))
    assert text.endswith("</think>\n\n") and text.count("<think>") == 1
    assert CONTENT not in text


def reasoning(template: str, special: bool, opens: str) -> tuple[LanguageModel, float]:
    """A model that begins to reason after a colon and never ends; after empty reasoning it answers
    with one of two digits. And its certainty of them."""
    made = tokenizer(template, special)
    ids = {c: id_of(made, c) for c in ("\n", "a", "8", "9")}
    last = ChatTemplate(made, threading.Lock()).prompt_frame()[1][-1]
    think = made(opens, add_special_tokens=False)["input_ids"]
    follows = {last: {think[0]: 30.0}, ids["a"]: {ids["a"]: 30.0}}
    follows |= {one: {other: 30.0} for one, other in pairwise(think)}
    follows[think[-1]] = {ids["a"]: 30.0}
    follows[ids["\n"]] = {ids["8"]: 30.0, ids["9"]: 30.0 - math.log(3)}
    follows[ids["8"]] = {1: 30.0}
    p = 0.75
    return (
        LanguageModel(tiny.bigrams(made, follows), made, tiny.WINDOW),
        p * math.log(p) + (1 - p) * math.log(1 - p),
    )


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("template", [TEXTUAL, R1, QWEN3])
def test_a_reasoning_model_answers_at_once_and_is_as_certain_as_of_its_answer(
    template: str, special: bool, by_hand: bool
) -> None:
    model, certain = reasoning(template, special, "<think>")
    model.can_extend_cache = model.can_extend_cache and by_hand
    heard = list[str]()
    engine = Engine(model, Method.fit(tiny.WINDOW, question_tokens=60, answer="free"))
    context = KeyContext((Segment(0, "port 8\n", 0, 7, 0, 7),), "port 8\n")
    answer = engine.answer(context, "which?", heard.append)
    assert answer.text == "".join(heard) == "8"
    assert answer.certainty == pytest.approx(certain, abs=1e-3)


@pytest.mark.guarantee("Answer contents")
def test_a_thought_spelled_letter_by_letter_is_one_too() -> None:
    made = tokenizer(TEXTUAL)
    names = [made.get_added_vocab()[n] for n in ("<think>", "</think>")]
    found = LanguageModel(tiny.make("llama", vocab_size=310), made, tiny.WINDOW).chat
    states = [found.is_thinking([7], "<think>"[:n]) for n in range(8)]
    assert states == [False] + [None] * 6 + [True]
    assert found.is_thinking([names[0]], "") is True
    assert found.is_thinking([7], "<thing") is False and found.is_thinking([7], "think") is False


@pytest.mark.guarantee("Answer contents")
def test_a_base_model_may_write_what_it_likes() -> None:
    made = tokenizer(None)
    colon, less, a = id_of(made, ":"), id_of(made, "<think>"), id_of(made, "8")
    network = tiny.bigrams(made, {colon: {less: 9}, less: {a: 9}, a: {1: 9}})
    model = LanguageModel(network, made, tiny.WINDOW)
    assert model.generate([0, colon], 9)[0] == "<think>8"
    assert torch.is_tensor(model.generate([0, colon], 1)[1])


@pytest.mark.parametrize("template", ["{{ raise_exception('no') }}", "always the same:"])
def test_a_template_that_cannot_frame_a_message_is_refused(template: str) -> None:
    with pytest.raises(ModelError, match="its chat template"):
        chat(template).prompt_frame()


@pytest.mark.parametrize("opening", THOUGHTS)
def test_a_thought_is_known_by_what_opens_it(opening: str) -> None:
    found = ChatTemplate(tokenizer(TEXTUAL), threading.Lock())
    assert found.opened_thought([7], f" {opening} so") == opening
    assert found.opened_thought([7], "so") is None
    assert found.is_thinking([7], opening[:-1]) is None
