"""A slow model's forward passes take far less time than the watchdog allows."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.engine import MAX_WATCHDOG_SHARE, batch_tokens, create_engine, tokens_per_second
from stream_app.settings import Settings
from tests.support import tiny


@pytest.mark.guarantee("Watchdog")
@given(st.floats(0.1, 1e6), st.integers(1, 10**5), st.floats(1, 1e4), st.integers(1, 4096))
def test_a_forward_is_short_or_one_row(speed: float, batch: int, stall: float, row: int) -> None:
    tokens = batch_tokens(Settings(batch_tokens=batch, watchdog_seconds=stall), row, speed)
    assert 1 <= tokens <= max(batch, row)
    assert tokens in (batch, row) or tokens / speed <= MAX_WATCHDOG_SHARE * stall
    if batch / speed < MAX_WATCHDOG_SHARE * stall * 0.99:
        assert tokens == batch


@pytest.mark.guarantee("Watchdog")
def test_a_slow_model_is_named_with_both_settings(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "xl3m"):
        assert batch_tokens(Settings(), 200, 14.0) == 420
        assert batch_tokens(Settings(), 200, 900.0) == 4096
    (said,) = caplog.messages
    assert "14 tokens a second" in said and "420" in said
    assert "XL3M_BATCH_TOKENS" in said and "XL3M_WATCHDOG_SECONDS" in said


@pytest.mark.guarantee("Watchdog")
@pytest.mark.parametrize("name", ["llama", "mamba"])
def test_the_speed_is_that_of_the_machine(name: str) -> None:
    assert tokens_per_second(tiny.model(name)) > 0


@pytest.mark.guarantee("Watchdog")
def test_the_engine_has_forwards_of_that_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stream_app.engine.tokens_per_second", lambda model: 14.0)
    assert create_engine(Settings()).batch_tokens == 420
    assert create_engine(Settings(watchdog_seconds=604_800)).batch_tokens == 4096
