"""The benchmarks' timing: the order of the calls, and what the clock covers."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import count
from typing import Any

import pytest
import torch

from benchmarks.harness import stub_workers, timing
from benchmarks.harness.haystack import Haystack
from benchmarks.speed import growth, query, scoring
from benchmarks.speed.questions import costs
from tests.support import tiny
from xl3m_core import Engine, LanguageModel
from xl3m_core.inference.executor import ModelExecutor
from xl3m_core.inference.loading import BUNDLED_MODEL
from xl3m_core.scoring import Scores


def test_calls_take_turns_at_being_first_and_a_first_round_does_not_count() -> None:
    called = list[str]()
    taken = timing.interleaved({name: partial(called.append, name) for name in "abc"}, rounds=3)
    assert "".join(called) == "abc" + "abc" + "cba" + "abc"
    assert {name: len(spent) for name, spent in taken.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_is_taken_within_each_round() -> None:
    assert timing.ratio([1.0, 10.0, 300.0], [2.0, 20.0, 100.0]) == 0.5


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_bare_forward_reads_the_batches_that_the_engine_reads(workers: int) -> None:
    model = tiny.Watched()
    engine = tiny.engine(model, batch_tokens=300)
    engine.executor = ModelExecutor(workers)
    texts = [f"pump {n} is down" + " again" * (n % 7) for n in range(20)]
    engine.score([(text, scoring.QUESTION) for text in texts])
    read = scoring.batched(engine, scoring.rows_of(engine, texts))
    bare = [unpadded(ids, mask) for ids, mask in read]
    assert len(bare) > workers
    assert sorted(bare) == sorted(model.batches)


def unpadded(ids: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


class Event:
    """An event that remembers whether it was acknowledged."""

    acked = False

    def ack(self) -> None:
        self.acked = True


async def test_a_bare_agent_acknowledges_all_and_is_timed_without_its_warm_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, events = 0, [Event() for _ in range(10)]

    async def arriving() -> AsyncIterator[Event]:
        nonlocal now
        for event in events:
            now += 1  # each takes a second
            yield event

    monkeypatch.setattr(stub_workers, "perf_counter", lambda: now)
    await stub_workers.acknowledge(arriving(), skipped=2, count=10)
    assert capsys.readouterr().out == "took 8\n"
    assert all(event.acked for event in events)


@pytest.mark.parametrize("order", query.ORDERS)
def test_a_cold_prompt_finds_an_empty_prefix_cache_and_a_warm_one_a_filled_one(
    order: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clock, found = tiny.model(), count(), dict[int, int]()
    prompt = model.prompt("Which pump is down?")
    model.generate(prompt, 1)  # leaves an entry in the cache, as an earlier prompt would

    def seconds(call: Callable[[], Any], _: str) -> float:
        found[turn := next(clock)] = len(model.prefix_cache.entries)
        call()
        return turn

    monkeypatch.setattr(query, "seconds", seconds)
    spent = query.seconds_to_token(model, prompt, order, "cpu")
    assert sorted(spent, key=spent.__getitem__) == [*order]
    caches = {what: found[int(turn)] for what, turn in spent.items()}
    assert (caches["cold"], caches["warm"]) == (0, 1)


def test_bare_and_cold_are_each_first_in_turn_and_warm_comes_right_after_cold() -> None:
    assert sorted(order[0] for order in query.ORDERS) == ["bare", "cold"]
    assert all(order.index("warm") == order.index("cold") + 1 for order in query.ORDERS)


def test_99_of_a_hundred_do_not_exceed_p99() -> None:
    assert query.p99([*map(float, range(1, 101))]) == 99
    assert query.p99([*map(float, range(1, 2001))]) == 1980
    assert query.p99([*map(float, range(1, 21))]) == 20


def test_first_token_says_of_how_many_prompts_its_figures_are() -> None:
    rows = query.first_token("tiny", roomy(), prompts=3)
    assert [(row["times"], row["high"]) for row in rows] == [(3, "largest")] * 2
    assert [row["of"] for row in rows] == ["bare", "cold"]


def test_the_time_to_first_words_is_compared_with_a_batch_scored_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(query, "PAUSE_SECONDS", 0)
    engine, begun = roomy(), list[int]()
    submit = engine.submit

    def noting(pairs: Sequence[tuple[str, str]]) -> Future[Scores]:
        begun.append(len(pairs))
        return submit(pairs)

    monkeypatch.setattr(engine, "submit", noting)
    row = query.first_words(engine, prompts=2)
    assert (row["times"], row["of"]) == (2, "a batch")
    assert len(begun) > query.STEPS and len(set(begun)) == 1, "step after step of the same"


def test_costs_are_those_of_each_count_over_one_question() -> None:
    found = costs(roomy(), 3, (1, 2), seed=0)
    assert [*found] == [1, 2]
    assert found[1].of_one == 1


def roomy() -> Engine:
    """An engine on the bundled model, whose tokens are longer than the tiny models'."""
    return Engine(LanguageModel.load(BUNDLED_MODEL))


def test_the_text_is_made_before_the_clock_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[int]()

    class Noted(Haystack):
        def __iter__(self) -> Any:
            made.append(self.tokens)
            return super().__iter__()

    def interleaved(calls: Mapping[int, Callable[[], Any]], rounds: int) -> dict[int, list[float]]:
        before = [*made]
        for call in calls.values():
            call()
        assert made == before == [300, 600]
        return {tokens: [tokens / 100] * rounds for tokens in calls}

    monkeypatch.setattr(growth, "Haystack", Noted)
    monkeypatch.setattr(growth, "interleaved", interleaved)
    rows = growth.by_length(roomy(), (300, 600))
    assert [(row["at"], row["cost"]) for row in rows] == [(300, 3.0), (600, 6.0)]
    assert all(row["rss_mb"] > 0 for row in rows)
