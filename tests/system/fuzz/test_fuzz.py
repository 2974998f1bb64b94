"""The short form of `make fuzz`: every target accepts or refuses its inputs; faults are seen."""

import time
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.system.fuzz.fuzzing import Tally, by_mutation
from tests.system.fuzz.mutate import LONGEST, mutated
from tests.system.fuzz.targets import REFUSALS, TARGETS, Target, segments, settings, tokenizer

INPUTS = 1000


@pytest.mark.guarantee("Dead letters")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: str(target.name))
def test_every_input_is_accepted_or_refused_with_a_reason(target: Target) -> None:
    tally = Tally(target.name, target.call, REFUSALS)
    inputs = len(target.seeds) + round(INPUTS * target.weight)
    by_mutation(target, tally, inputs, seed=0)
    assert tally.inputs == tally.accepted + tally.refused == inputs


@given(st.binary(max_size=200))
@example(b"\x84\x02\x03" + "気\ud800".encode("utf-8", "surrogatepass") * 50)
def test_any_text_in_any_chunks_is_the_same_segments(data: bytes) -> None:
    segments(data)


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
@example(b"\0\xff</s><s>\xed\xa0\x80")
def test_any_text_is_token_ids_none_of_them_special(data: bytes) -> None:
    tokenizer(data)


@given(st.dictionaries(st.integers(0, 255), st.binary(max_size=30), max_size=4))
def test_any_environment_is_settings_or_refused(given_: dict[int, bytes]) -> None:
    lines = [bytes([which]) + text.replace(b"\n", b"") for which, text in given_.items()]
    try:
        settings(b"\n".join(lines))
    except REFUSALS as reason:
        assert str(reason)


def target_of(call: Any) -> tuple[Target, Tally]:
    return Target("it", call, [b"seed"]), Tally("it", call, REFUSALS)


def test_any_other_exception_is_a_fault_that_shows_its_input() -> None:
    def call(data: bytes) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError) as caught:
        by_mutation(*target_of(call), inputs=5, seed=0)
    assert caught.value.__notes__ == ["it: b'seed'"]


def test_an_input_that_takes_too_long_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 100, 6))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(now)))
    with pytest.raises(TimeoutError, match="for b'seed'"):
        by_mutation(*target_of(len), inputs=5, seed=0)


def test_the_same_seed_gives_the_same_inputs() -> None:
    def inputs(seed: int) -> list[bytes]:
        seen = list[bytes]()
        by_mutation(*target_of(seen.append), inputs=50, seed=seed)
        return seen

    assert inputs(1) == inputs(1) != inputs(2)
    assert all(len(data) <= LONGEST for data in inputs(1))


def test_mutations_reach_beyond_their_seed() -> None:
    random = Random(0)
    assert len({mutated(random, b"seed", [b"other"]) for _ in range(200)}) > 100
