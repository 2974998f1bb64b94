"""The generated training data, the tokenizer, and the bundled model.

`training.evaluate` measures how good the model is; here only a sample shows that it is the trained
one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast
from zlib import crc32

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from stream_app.sample_log import service_log
from training.attention import NAME
from training.batch import Batch
from training.batch_loader import REPEATS, BatchLoader
from training.corpus.entities import DRAWS, HELD_OUT, Source
from training.corpus.entities import SMALL as FEW
from training.corpus.formats import ALL
from training.corpus.generate import TEMPLATE, Level, draw
from training.corpus.passages import Passage, any_fact, dense, single
from training.curriculum import BEFORE, DRILL, HARD, HARD_AT, STEPS, TEXTS, chosen
from training.curves import read
from training.evaluate import BACKWARD, LENGTHS, QUESTION_TOKENS, level, passages, score
from training.optimizers import HeadMuon
from training.random_pairs import MAX_QUESTIONS, Pairs
from training.tokenizer import in_pieces
from training.train import new_model
from training.writer import KINDS, Writer
from xl3m_core.inference.loading import BUNDLED_MODEL
from xl3m_core.inference.model import LanguageModel

WORDS = re.compile(r"[\w.-]+")
PAIRS = [step.level for step in BEFORE]
LEVELS: list[Any] = [step.level for step in TEXTS]
HARDEST: list[Any] = [DRILL.level, *LEVELS]
TOKENIZER = AutoTokenizer.from_pretrained(BUNDLED_MODEL)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return LanguageModel.load(BUNDLED_MODEL, device="cpu")


def ten(passage: Passage) -> bool:
    return len(passage.pieces) >= 10


def encode(text: str) -> list[int]:
    ids: list[int] = TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    return ids


@pytest.mark.parametrize("level", LEVELS)
def test_the_generator_is_deterministic(level: Level) -> None:
    one, other = (dense(Source(Random(7)), level, ten) for _ in range(2))
    assert one.pieces == other.pieces
    assert one.pieces != dense(Source(Random(8)), level, ten).pieces


@given(st.integers(), st.sampled_from(LEVELS), st.booleans())
def test_an_answer_stands_in_its_evidence(seed: int, level: Level, held_out: bool) -> None:
    level = replace(level, joint=0.0, several=0.0)
    *context, question, answer = single(Source(Random(seed), held_out), level, ten, False).pieces
    value = answer.text.rstrip("\n")
    assert answer.kind == "answer"
    assert any(
        value in piece.text and _share_a_name(question.text, piece.text) for piece in context
    )


@given(st.integers(), st.sampled_from(BACKWARD))
def test_what_is_told_before_its_key_is_asked_for_as_often_as_wanted(seed: int, shape: str) -> None:
    source = Source(Random(seed))
    for record in (draw(source, Level(0, (shape,))) for _ in range(20)):
        for fact in record.facts:
            key = fact.key[-1]
            if record.line.count(key) == record.line.count(fact.answer) == 1 and len(fact.key) == 3:
                first = record.line.index(fact.answer) < record.line.index(key)
                assert fact.key[0] == "pair" or fact.backward == first
    passage = Passage(records=[draw(source, Level(0, (shape,))) for _ in range(20)])
    if any(fact.backward for record in passage.records for fact in record.facts):
        assert any_fact(source, Level(0, (shape,), backward=1.0), passage).backward


@given(st.integers(), st.sampled_from(PAIRS))
@settings(deadline=None)
def test_of_pairs_every_value_asked_for_stands_in_its_keys_line(seed: int, pairs: Pairs) -> None:
    start, *ends = Writer(TOKENIZER, seed).pairs(pairs).parts()
    newline = ends[0].ids[0]
    told = [_words(line) for line in _split(start.ids[1:], newline)]
    assert len(ends) == min(len(told), MAX_QUESTIONS)
    for end in ends:
        place = end.kinds.index(1)
        key, value = end.ids[1 : place - 1], _words(end.ids[place:-1])
        named = 1 if pairs.fields else 0
        starts = [key[:i] for i in range(1, min(pairs.key, len(key) - named) + 1)]
        assert any(_words(some) in line and value in line for line in told for some in starts)
        assert len(value.split()) <= pairs.value
        if not pairs.fields:
            assert any(line.startswith(value) and line.endswith(_words(key)) for line in told)


def _words(ids: list[int]) -> str:
    return "".join(f" {i} " for i in ids)


def _split(ids: list[int], at: int) -> list[list[int]]:
    lines = list[list[int]]([[]])
    for i in ids:
        if i == at:
            lines.append([])
        else:
            lines[-1].append(i)
    return lines[:-1]


@given(st.integers(), st.integers(0, len(STEPS) - 1))
def test_a_step_is_read_with_easier_ones_and_never_with_harder(seed: int, number: int) -> None:
    steps = [chosen(Random(seed + i), number) for i in range(200)]
    assert steps.count(STEPS[number]) > 100
    easier = {*STEPS[: number + 1]} | ({DRILL} if number > HARD_AT else set())
    assert {*steps} <= easier


@given(st.integers())
@settings(max_examples=5, deadline=None)
def test_prefetched_batches_follow_the_current_step(seed: int) -> None:
    in_process, prefetching = (BatchLoader(TOKENIZER, seed, (), 2) for _ in range(2))
    for loader in (in_process, prefetching):
        loader.set_step(REPEATS)
    one, other = in_process.batches(0), prefetching.batches(1)
    for _ in range(3):
        torch.testing.assert_close(next(one).ids, next(other).ids)
    prefetching.set_step(0)
    while next(other).suffixes == (0, 0):  # repeats have no questions; pairs have some
        pass


def _share_a_name(question: str, line: str) -> bool:
    words = set(WORDS.findall(question)) - set(WORDS.findall(TEMPLATE))
    return any(word.strip(".") in line for word in words)


@given(st.integers(), st.sampled_from(LEVELS))
def test_what_is_absent_is_a_guess(seed: int, level: Level) -> None:
    passage = single(Source(Random(seed)), replace(level, joint=0.0), ten, absent=True)
    assert passage.pieces[-1].kind == "guess"


@pytest.mark.parametrize("level", HARDEST)
def test_a_passage_tells_nothing_twice(level: Level) -> None:
    for seed in range(20):
        records = dense(Source(Random(seed)), replace(level, several=0.0), ten).records
        told = [fact.key for record in records for fact in record.facts]
        assert len(set(told)) == len(told)


@given(st.integers(), st.sampled_from([kind for kind in DRAWS if kind not in FEW]))
def test_what_is_held_out_is_never_drawn_in_training(seed: int, kind: str) -> None:
    learnt, held_out = (Source(Random(seed), half).draw(kind).lower() for half in (False, True))
    assert crc32(learnt.encode()) % HELD_OUT != 0 == crc32(held_out.encode()) % HELD_OUT


@given(st.integers(), st.sampled_from(("host web-17", "bakodu", "10.2.33.4")), st.booleans())
def test_a_near_entity_differs_in_one_place(seed: int, text: str, held_out: bool) -> None:
    near = Source(Random(seed), held_out).near(text)
    assert sum(a != b for a, b in zip(text, near, strict=True)) <= 1
    assert near.startswith("host ") == text.startswith("host ")


@given(st.integers(), st.lists(st.integers(60, 400), min_size=1, max_size=2))
@settings(max_examples=20, deadline=None)
def test_questions_side_by_side_are_read_as_if_each_were_alone(
    seed: int, lengths: list[int]
) -> None:
    writer = Writer(TOKENIZER, seed)
    rows = [writer.exam(LEVELS[-1], length) for length in lengths]
    batch = Batch.of(rows, TOKENIZER.pad_token_id)
    torch.manual_seed(0)
    model: Any = new_model(len(TOKENIZER), 32, 2)
    model.set_attn_implementation(NAME)
    together = model(**batch.inputs(), use_cache=False).logits
    model.set_attn_implementation("sdpa")
    wide, (_, longest) = batch.padding_mask.shape[-1], batch.suffixes
    for row, logits in zip(rows, together, strict=True):
        start, *ends = row.parts()
        for place, end in enumerate(ends):
            assert len(start.ids + end.ids) <= LEVELS[-1].tokens
            alone = model(torch.tensor([start.ids + end.ids])).logits[0]
            at = wide + place * longest
            read = torch.cat((logits[wide - len(start.ids) : wide], logits[at : at + len(end.ids)]))
            torch.testing.assert_close(read, alone, rtol=1e-3, atol=1e-3)


@given(st.integers(), st.sampled_from(HARDEST))
@settings(max_examples=20, deadline=None)
def test_a_batch_predicts_every_token_once_that_stands_behind_another(
    seed: int, level: Level
) -> None:
    writer = Writer(TOKENIZER, seed)
    rows = [writer.exam(level, 40), writer.exam(level, 60)]
    batch = Batch.of(rows, TOKENIZER.pad_token_id)
    for row, ids, kinds in zip(rows, batch.ids, batch.kinds, strict=True):
        start, *ends = row.parts()
        behind = [part.ids[1:] for part in (start, *ends)]
        assert ids[kinds >= 0].tolist() == [token for part in behind for token in part]


@pytest.mark.parametrize("level", HARDEST[:1] + HARDEST[6:])
@pytest.mark.parametrize("shape", HARD.shapes)
def test_an_exam_leaves_room_for_a_question_whatever_the_format(level: Level, shape: str) -> None:
    writer = Writer(TOKENIZER, seed=3)
    for length in (10, round(0.95 * level.tokens)):
        row = writer.exam(replace(level, shapes=(shape,)), length)
        assert max(row.turns) > 0
        assert row.turns.count(0) < level.tokens


@pytest.mark.parametrize("name", ["layers.0.self_attn.q_proj.weight", "0.self_attn.o_proj.weight"])
def test_heads_together_take_the_steps_that_each_takes_alone(name: str) -> None:
    torch.manual_seed(0)
    along, rate, muon = 1 if "o_proj" in name else 0, 0.1, cast(Any, torch.optim.Muon)
    whole = torch.nn.Parameter(torch.randn(64, 64))
    parts = [torch.nn.Parameter(part.clone()) for part in torch.split(whole.detach(), 32, along)]
    alone = muon(parts, lr=rate, weight_decay=0.5, adjust_lr_fn="match_rms_adamw")
    together = HeadMuon({name: whole}, 32, rate, decay=0.5)
    for _ in range(3):
        before = whole.detach().clone()
        whole.grad = torch.randn(64, 64)
        for part, grad in zip(parts, torch.split(whole.grad, 32, along), strict=True):
            part.grad = grad.clone()
        state, together = together.state_dict(), HeadMuon({name: whole}, 32, rate, decay=0.5)
        together.load_state_dict(state)
        together.step()
        alone.step()
        moved, other = (each.detach() - before for each in (whole, torch.cat([*parts], along)))
        assert (moved - other).norm() < 0.03 * other.norm()  # of bfloat16


def test_a_resumed_log_goes_on_where_it_was_saved(tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    first.write_text("50,0,1.0,0.1,1\n100,0,0.9,0.2,2\n150,0,0.8,0.3,3\n")
    second.write_text("150,1,0.7,0.4,1\n200,1,0.6,0.5,2\n")
    rows = read([first, second])
    assert [row[0] for row in rows] == [50, 100, 150, 200]
    assert rows[2][1] == 1


@given(st.integers(0, 500), st.integers())
def test_the_demo_log_tells_its_answers(lines: int, seed: int) -> None:
    log, facts = service_log(lines, seed)
    assert (log, facts) == service_log(lines, seed)
    assert len(log) == lines
    assert len({fact.question for fact in facts}) == len(facts)
    assert all(log[fact.line].endswith(f"={fact.answer}") for fact in facts)


@settings(max_examples=300)
@given(st.text() | st.text(st.sampled_from("ab1 \n—\xa0é気😀.,=")))
def test_the_tokenizer_needs_no_pieces_to_find_the_same_tokens(text: str) -> None:
    slow = Tokenizer.from_file(str(BUNDLED_MODEL / "tokenizer.json"))
    slow.pre_tokenizer = in_pieces()
    assert encode(text) == slow.encode(text, add_special_tokens=False).ids


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


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("absent", [False, True])
def test_a_passage_to_measure_on_fills_its_length(tokens: int, absent: bool) -> None:
    writer = Writer(TOKENIZER, seed=5, held_out=True)
    for shape in ALL:
        for row in passages(writer, level(shape, tokens), 3, absent):
            assert len(row.ids) <= tokens
            assert tokens - QUESTION_TOKENS <= row.kinds.index(
                KINDS["guess" if absent else "answer"]
            )


def test_the_small_model_answers_and_knows_when_it_cannot(model: LanguageModel) -> None:
    writer = Writer(TOKENIZER, seed=11, held_out=True)
    told = score(model.model, passages(writer, level("app", 300), 30))
    untold = score(model.model, passages(writer, level("app", 120), 30, absent=True))
    assert sum(s.exact for s in told) >= 20
    assert max(sum(s.entropy for s in told) / 30, 0.3) < sum(s.entropy for s in untold) / 30
