"""Reader: which answers are written and which are spans, and that a span is the model's best."""

from typing import Any

import pytest
import torch

from tests.support import tiny
from xl3m_core import Engine, KeyContext, LanguageModel, Method, Segment
from xl3m_core.extraction import CUT_END, LEAD, PRIOR, _prompts, best_span
from xl3m_core.grounding import is_grounded
from xl3m_core.inference.model_config import SMALL_READER, recommended_answer
from xl3m_core.method import AnswerMode
from xl3m_core.reader import is_look_up
from xl3m_core.spans import starts

RECORD = "12:07 pump 7 is down at 3.5 bar"
LOG = f"12:05 pump 2 is up\n{RECORD}\n12:09 hall is cold\n"
QUESTION = "Which pump?"
TALK = "Well, the pump is down again, and we talk about it.\n"


def model(name: str = "llama") -> LanguageModel:
    return LanguageModel(tiny.network(name), tiny.tokenizer(), tiny.WINDOW)


def engine(made: LanguageModel, answer: AnswerMode = "auto") -> Engine:
    return Engine(made, Method.fit(tiny.WINDOW, answer=answer, question_tokens=60))


def context(text: str) -> KeyContext:
    return KeyContext((Segment(0, text, 0, len(text), 0, 1),), text)


def slow_best(made: LanguageModel, record: str, question: str) -> tuple[str, float]:
    """Each span by itself, in whole rows."""
    asked, neutral = _prompts(made, record, question)
    ends = [made.encode(["\n"])[0][0], made.encode(["\n\n"])[0][0], *made.eos_token_ids]
    scored = list[tuple[float, str]]()
    for start in starts(record, question):
        for end in start.ends:
            ids = made.encode([LEAD + record[start.start : end]])[0]
            if len(ids) > 9:
                continue
            numbers = []
            for prompt in (asked, neutral):
                logits = made.logits([prompt + ids], len(ids) + 1)[0].log_softmax(-1)
                own = logits[:-1].gather(-1, torch.tensor(ids)[:, None]).sum()
                numbers.append((float(own), float(logits[-1, sorted({*ends})].logsumexp(0))))
            (log_p, over), (prior, _) = numbers
            scored.append((log_p - PRIOR * prior + over, record[start.start : end]))
    return max(scored)[1], max(scored)[0]


@pytest.mark.parametrize("name", ["llama", "mistral", "mamba"])
def test_the_span_is_the_best_of_all_scored_one_by_one(name: str) -> None:
    made, record = model(name), "pump 7 is at 35 C"
    found = best_span(made, record, QUESTION)
    assert found is not None
    text, score = slow_best(made, record, QUESTION)
    assert found.score == pytest.approx(score, abs=1e-3) and found.text == text


@pytest.mark.guarantee("Answer contents")
def test_an_extracted_answer_stands_in_the_context_and_comes_in_one_piece() -> None:
    heard = list[str]()
    answer = engine(model(), "extract").answer(context(LOG), QUESTION, heard.append)
    assert heard == [answer.text] and answer.certainty <= 0
    assert is_grounded(answer.text, [LOG])


def test_a_long_word_is_an_answer_as_a_whole() -> None:
    word = "0f" * 40
    found = best_span(model(), word, "Which?")
    assert found is not None and found.text == word and found.score < CUT_END


def test_a_record_that_does_not_fit_is_answered_freely() -> None:
    made = model()
    assert best_span(made, "7 " * tiny.WINDOW, QUESTION) is None
    assert best_span(made, "is of the", QUESTION) is None
    text = "is of the\n"
    assert engine(made, "extract").answer(context(text), QUESTION) == engine(made, "free").answer(
        context(text), QUESTION
    )


@pytest.mark.parametrize(
    ("text", "question", "answer", "mode"),
    [
        (LOG, QUESTION, "auto", "extract"),
        (LOG, "Explain what the pumps did.", "auto", "free"),
        (LOG, "How do the pumps work?", "auto", "free"),
        (LOG, "How many pumps?", "auto", "extract"),
        (TALK, QUESTION, "auto", "free"),
        (TALK, QUESTION, "extract", "extract"),
        (LOG, QUESTION, "free", "free"),
    ],
)
def test_auto_extracts_what_is_looked_up_in_logs(
    text: str, question: str, answer: AnswerMode, mode: str
) -> None:
    assert engine(model(), answer).reader.mode(text, question) == mode


def test_large_models_write_unless_their_config_says_otherwise() -> None:
    class Config:
        pass

    config: Any = Config()
    assert recommended_answer(config, SMALL_READER - 1) == "auto"
    assert recommended_answer(config, SMALL_READER) == "free"
    config.xl3m_answer = "extract"
    assert recommended_answer(config, SMALL_READER) == "extract"


@pytest.mark.parametrize("question", ["summarise it", "Please list all", "  How did it end?"])
def test_open_questions_are_no_look_ups(question: str) -> None:
    assert not is_look_up(question) and is_look_up("How long did it take?")
