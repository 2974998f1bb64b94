"""The made-up data, the tokenizer, and the small model that comes with the package.

What the model can do is measured by training.evaluate; here only that it is the one shipped.
"""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from stream_app.sample import service_log
from training.curriculum import LEVELS, Writer
from training.evaluate import passages, score
from training.generate import TEMPLATE, Level, question
from training.passages import Passage, dense, single
from xl3m_core.loading import SMALL
from xl3m_core.model import LanguageModel

WORDS = re.compile(r"[\w.-]+")
TOKENIZER = AutoTokenizer.from_pretrained(SMALL)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel.load(SMALL, device="cpu")


def ten(passage: Passage) -> bool:
    return len(passage.pieces) >= 10


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return ids


@pytest.mark.parametrize("level", LEVELS)
def test_the_generator_is_deterministic(level: Level) -> None:
    one, other = (dense(Random(7), level, ten) for _ in range(2))
    assert one.pieces == other.pieces
    assert one.pieces != dense(Random(8), level, ten).pieces


@given(st.integers(), st.sampled_from(LEVELS))
def test_an_answer_stands_in_its_evidence(seed: int, level: Level) -> None:
    *told, asked, answer = single(Random(seed), level, ten, absent=False).pieces
    value = answer.text.rstrip("\n")
    words = set(asked.text.replace("?", " ").split())
    lines = [set(WORDS.findall(piece.text)) for piece in told]
    assert answer.kind == "answer"
    assert any(value in line and len(words & line) >= 2 for line in lines)


@given(st.integers(), st.sampled_from(LEVELS))
def test_what_is_absent_is_a_guess(seed: int, level: Level) -> None:
    passage = single(Random(seed), level, ten, absent=True)
    asked = passage.pieces[-2].text
    assert passage.pieces[-1].kind == "guess"
    assert not any(
        question(Random(seed), record.subject, record.field, 1)[:-1] in asked
        for record in passage.records
    )


def test_keys_are_unique_within_a_passage() -> None:
    for seed in range(50):
        records = dense(Random(seed), LEVELS[-1], ten).records
        assert len({(r.subject, r.field) for r in records}) == len(records)


@given(st.integers(0, 500), st.integers())
def test_the_demo_log_tells_its_answers(lines: int, seed: int) -> None:
    log, facts = service_log(lines, seed)
    assert (log, facts) == service_log(lines, seed)
    assert len(log) == lines
    assert len({fact.question for fact in facts}) == len(facts)
    assert all(log[fact.line].endswith(f"={fact.answer}") for fact in facts)


@settings(max_examples=300)
@given(st.text())
def test_the_tokenizer_loses_nothing(text: str) -> None:
    assert TOKENIZER.decode(encode(text)) == text


@given(st.text(alphabet="ab 019\n=.é"))
def test_digits_and_spaces_stand_alone(text: str) -> None:
    tokens = [TOKENIZER.decode([token]) for token in encode(text)]
    assert all(len(t) == 1 for t in tokens if any(c in " \n0123456789" for c in t))


def test_the_template_is_the_trained_one(model: LanguageModel) -> None:
    assert model.template == TEMPLATE
    assert model.window == 512


def test_the_small_model_answers_and_knows_when_it_cannot(model: LanguageModel) -> None:
    writer = Writer(TOKENIZER, seed=11)
    told = score(model.model, passages(writer, "app", 300, 30))
    untold = score(model.model, passages(writer, "app", 120, 30, absent=True))
    assert sum(s.exact for s in told) >= 24
    assert max(sum(s.entropy for s in told) / 30, 0.3) < sum(s.entropy for s in untold) / 30
