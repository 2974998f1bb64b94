"""Dead letters: every one is sent and marks what was truncated; the log lines are limited, and
further ones are counted.
"""

import asyncio
import base64
import json
import logging
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.events import KEPT_BYTES, KEPT_HEADER_BYTES, dead_letter, decode, encode
from stream_app.kafka import dead_letters
from stream_app.kafka.dead_letters import DeadLetterLog, dead_letter_sender, headers_of
from tests.support.fakes import Event, Message, running, until


def event(offset: int, topic: str = "t", **changes: Any) -> Event:
    message = Message(topic, 0, offset, 1, b"k", b"v")
    return Event(message._replace(**changes))


async def send_all(log: DeadLetterLog, events: list[Event], reason: str) -> list[dict[str, Any]]:
    """The dead letters that were sent."""
    sent = list[dict[str, Any]]()

    async def send(key: bytes | None, value: bytes) -> None:
        sent.append(json.loads(value))

    dead_letter = dead_letter_sender(send, log=log)
    for each in events:
        await dead_letter(each, reason.format(each.message.offset))
    return sent


# -- the log -------------------------------------------------------------------------------------


@pytest.mark.guarantee("Dead letters")
async def test_all_are_sent_and_the_first_few_are_logged_one_by_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = DeadLetterLog()
    sent = await send_all(log, [event(i) for i in range(1000)], "byte {} is wrong")
    assert [letter["offset"] for letter in sent] == [*range(1000)]
    assert len(caplog.messages) == dead_letters.LOGGED_EVENTS
    log.summarise()
    assert len(caplog.messages) == dead_letters.LOGGED_EVENTS + 1
    assert (
        f"t: {1000 - dead_letters.LOGGED_EVENTS} more dead letters for this reason"
        in caplog.messages[-1]
    )
    assert "t/0 offset 999: byte 999 is wrong" in caplog.messages[-1]
    log.summarise()
    assert len(caplog.messages) == dead_letters.LOGGED_EVENTS + 1


@pytest.mark.guarantee("Dead letters")
async def test_kinds_and_topics_are_counted_apart(caplog: pytest.LogCaptureFixture) -> None:
    log = DeadLetterLog()
    for topic in ("a", "b"):
        for reason in ("byte {} is wrong", "field 'x{}' is missing"):
            await send_all(log, [event(i, topic) for i in range(20)], reason)
    assert len(caplog.messages) == 4 * dead_letters.LOGGED_EVENTS
    log.summarise()
    assert len(caplog.messages) == 4 * dead_letters.LOGGED_EVENTS + 4


@pytest.mark.guarantee("Dead letters")
async def test_a_kind_that_stopped_is_logged_again_when_it_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = DeadLetterLog()
    await send_all(log, [event(i) for i in range(20)], "why")
    log.summarise()
    await send_all(log, [event(20)], "why")  # it continues: counted
    logged = len(caplog.messages)
    log.summarise()
    assert len(caplog.messages) == logged + 1 and "1 more" in caplog.messages[-1]
    log.summarise()
    await send_all(log, [event(21)], "why")
    assert caplog.messages[-1] == "t/0 offset 21: why"


@pytest.mark.guarantee("Dead letters")
async def test_of_any_number_of_kinds_so_many_are_remembered_and_none_uncounted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "MAX_KINDS", 3)
    log = DeadLetterLog()
    for kind in "abcdef":
        await send_all(log, [event(i) for i in range(10)], kind)
    assert len(log.kinds) == 3
    log.summarise()
    assert len([m for m in caplog.messages if f"{10 - dead_letters.LOGGED_EVENTS} more" in m]) == 6


@pytest.mark.guarantee("Dead letters")
async def test_counted_events_are_logged_each_interval_and_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(dead_letters, "INTERVAL_SECONDS", 0.01)
    log = DeadLetterLog()
    async with running(log):
        await send_all(log, [event(i) for i in range(10)], "why")
        await until(lambda: "5 more" in caplog.messages[-1])
        monkeypatch.setattr(dead_letters, "INTERVAL_SECONDS", 1000.0)
        await send_all(log, [event(i) for i in range(10)], "another")
        await asyncio.sleep(0)
    assert "5 more" in caplog.messages[-1] and "another" in caplog.messages[-1]


# -- what a letter holds -------------------------------------------------------------------------


@pytest.mark.guarantee("Dead letters")
def test_a_letter_that_is_cut_says_so_and_how_much_there_was() -> None:
    key, value = b"k" * (KEPT_BYTES + 1), b"v" * 5_000_000
    letter = json.loads(dead_letter("t", 0, 7, key, value, "why"))
    assert letter["truncated"] is True
    assert (letter["key_bytes"], letter["value_bytes"]) == (len(key), len(value))
    assert base64.b64decode(letter["value"]) == value[:KEPT_BYTES]
    whole = json.loads(dead_letter("t", 0, 7, b"k", b"v" * KEPT_BYTES, "why"))
    assert "truncated" not in whole
    assert (whole["key_bytes"], whole["value_bytes"], whole["headers"]) == (1, KEPT_BYTES, [])


@pytest.mark.guarantee("Dead letters")
async def test_a_letter_has_the_record_s_headers() -> None:
    headers = [("trace", b"\xffabc"), ("none", None), ("trace", b"")]
    [letter] = await send_all(DeadLetterLog(), [event(0, headers=headers)], "why")
    assert letter["headers"] == [["trace", "/2FiYw=="], ["none", None], ["trace", ""]]
    assert headers_of(Message("t", 0, 0, None, None, b"", {"a": b"1"})) == [("a", b"1")]
    assert headers_of(cast(Any, object())) == []


HEADERS = st.lists(
    st.tuples(
        st.text(st.characters(), max_size=9) | st.binary(max_size=9), st.none() | st.binary()
    ),
    max_size=20,
)


@pytest.mark.guarantee("Dead letters")
@given(HEADERS, st.text(st.characters()))
def test_any_headers_and_any_reason_are_a_letter(headers: Any, reason: str) -> None:
    letter = json.loads(dead_letter("t", 0, 7, None, None, reason, headers))
    assert len(letter["headers"]) == len(headers)
    for (_, value), (name, kept) in zip(headers, letter["headers"], strict=True):
        assert isinstance(name, str)
        assert kept is None if value is None else base64.b64decode(kept) == value


@pytest.mark.guarantee("Dead letters")
def test_headers_are_kept_within_a_bound_and_the_letter_says_so() -> None:
    headers = [(f"h{i}", b"x" * 1000) for i in range(1000)]
    whole = dead_letter("t", 0, 7, b"k" * 100_000, b"v" * 100_000, "why", headers)
    letter = json.loads(whole)
    assert letter["truncated"] is True and 0 < len(letter["headers"]) < 20
    assert len(whole) < 2 * (2 * KEPT_BYTES + KEPT_HEADER_BYTES)


# -- numbers that JSON has no word for -----------------------------------------------------------


@pytest.mark.guarantee("Dead letters")
@pytest.mark.parametrize("as_json", [True, False])
def test_what_is_no_finite_number_is_null(as_json: bool) -> None:
    odd = {"certainty": float("nan"), "evidence": [{"score": float("-inf"), "index": 2}], "c": 1.5}
    data = encode(odd, as_json)
    assert decode(data) == {"certainty": None, "evidence": [{"score": None, "index": 2}], "c": 1.5}
    assert b"NaN" not in data and b"Infinity" not in data
