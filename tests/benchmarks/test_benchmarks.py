"""The benchmarks' arithmetic, and a short run of several of them on the bundled model."""

import inspect
import json
import math
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.accuracy import certainty, late, late_texts, needle
from benchmarks.harness.haystack import VARIANTS
from benchmarks.harness.live_worker import Sample, in_events
from benchmarks.speed import questions
from benchmarks.speed.twenty_million import Outcome, depths, part_tokens, row, seconds_at, speed


def steady(tokens: int, per_second: int) -> list[Sample]:
    return [Sample(t / per_second, t, 400.0, t / 1e6) for t in range(0, tokens + 1, per_second)]


def test_a_steady_stream_has_one_speed_and_flat_memory() -> None:
    samples = steady(5_000_000, 10_000)
    figures = row(samples, [Outcome("q", "a", "a", True, False)])
    assert figures["throughput_ratio"] == pytest.approx(1)
    assert figures["rss_growth"] == 0
    assert (figures["exact_match"], figures["evidence_recall"]) == (1, 0)
    assert speed(samples, 1_000_000, 2_000_000) == pytest.approx(10_000)
    assert part_tokens(samples) == 1_000_000
    assert part_tokens(steady(100_000, 10_000)) == 20_000


def test_time_between_two_samples_is_on_the_line() -> None:
    samples = [Sample(0, 0, 1, 1), Sample(10, 100, 1, 1), Sample(30, 200, 1, 1)]
    assert seconds_at(samples, 150) == pytest.approx(20)
    with pytest.raises(ValueError, match="never scored"):
        seconds_at(samples, 201)


def test_depths_reach_from_start_to_end() -> None:
    assert depths(5) == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert depths(1) == (0.5,)


def test_events_hold_the_text_and_end_with_lines() -> None:
    text = [f"line {n}\n" * 999 for n in range(5)]
    events = list(in_events(text))
    assert "".join(events) == "".join(text)
    assert all(event.endswith("\n") for event in events)


@pytest.mark.parametrize("variant", VARIANTS)
def test_needle_gives_a_row_a_length_and_draws_its_map(variant: str, tmp_path: Path) -> None:
    args = benchmarks.parser().parse_args(
        f"needle --lengths 600 --variants {variant} --depths 0 1 --out {tmp_path}".split()
    )
    (found,) = needle.measure(args)
    assert (found["variant"], found["tokens"], found["questions"]) == (variant, 600, 2)
    assert all(0 <= found[f"exact_match{k}"] <= 1 for k in ("", "_k1", "_k2", "_k4"))
    assert (tmp_path / f"needle_{variant}.png").stat().st_size > 1000
    json.dumps(found)


def test_late_gives_a_row_for_each_length_over_the_given_number_of_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late, "DEPTHS", (0.0, 0.5, 1.0))
    told = ["late", "--lengths", "600", "1200", "--texts", "2", "--variants", "multikey"]
    rows = late.measure(benchmarks.parser().parse_args(told))
    assert [(row["tokens"], row["questions"]) for row in rows] == [(600, 6), (1200, 6)]
    assert all(0 <= row["evidence_recall"] <= 1 for row in rows)
    assert len({ratio.what for ratio in late.ratios(rows)}) == 2


def test_late_decides_its_aim_on_33_questions_or_more() -> None:
    assert late.TEXTS * len(needle.DEPTHS) >= late.ENOUGH
    row = {"variant": "multikey", "tokens": 600, "evidence_recall": 1.0}
    few, enough = (late.ratios([row | {"questions": count}])[0].goal for count in (11, 33))
    assert (few, enough) == ("0.95 of 33 questions or more", "0.95")


def test_both_kinds_of_segments_have_an_aim_in_the_table(
    capsys: pytest.CaptureFixture[str],
) -> None:
    kinds = ("short segments", "full rows")
    rows = [
        {"segments": kind, "questions": count, "of_one": 1.0, "seconds": 1.0}
        for kind in kinds
        for count in questions.COUNTS
    ]
    benchmarks.table("ratios", [ratio._asdict() for ratio in questions.ratios(rows)])
    told = capsys.readouterr().out
    for kind in kinds:
        assert re.search(f"8 questions, {kind} .* at most 1.6\n", told)
        assert re.search(f"32 questions, {kind} .* at most 3.5\n", told)


@pytest.mark.parametrize("option", ["model", "short", "seed", "out"])
def test_help_names_the_benchmarks_that_ignore_an_option(option: str) -> None:
    named = benchmarks.EVERY[f"--{option}"]["help"].partition("ignored by ")[2]
    assert set(filter(None, named.split(", "))) == {*benchmarks.ALL} - readers(option)


@pytest.mark.parametrize("option", ["variants", "lengths", "texts"])
def test_help_groups_an_option_under_the_benchmarks_that_read_it(option: str) -> None:
    groups = benchmarks.parser()._action_groups
    (group,) = (g for g in groups if option in {action.dest for action in g._group_actions})
    assert set(str(group.title).split(", ")) == readers(option)


def readers(option: str) -> set[str]:
    """The benchmarks that read an option."""
    read = re.compile(rf"\bargs\.{option}\b")
    return {name for name, it in benchmarks.ALL.items() if read.search(inspect.getsource(it))}


def test_rank_correlation_is_spearmans() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    assert certainty.rank_correlation(x, x**3) == pytest.approx(1)
    assert certainty.rank_correlation(x, -x) == pytest.approx(-1)
    assert certainty.rank_correlation(x, np.ones(4)) == 0
    assert certainty.rank_correlation(x, np.array([1.0, 2.0, 2.0, 3.0])) == pytest.approx(
        0.9487, abs=1e-4
    )


def test_certainty_tells_evidence_from_none(tmp_path: Path) -> None:
    rows = certainty.measure(Namespace(model=None, short=True, seed=0, out=str(tmp_path)))
    assert rows[0]["auc"] > 0.8
    assert rows[0]["rank_correlation"] < -0.3
    assert rows[0]["exact_match"] > rows[-1]["exact_match"]
    assert [row["entropy"] for row in rows] == sorted(row["entropy"] for row in rows)


def test_late_on_real_texts_gives_a_row_a_set_with_the_share_of_the_full_scan(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "qmsum"
    folder.mkdir()
    turns = [{"speaker": "A", "content": f"we talk about the {i} buttons"} for i in range(60)]
    asked = [
        {"query": f"What of the {i} buttons?", "relevant_text_span": [[i, i]]} for i in (3, 50)
    ]
    meeting = {"meeting_transcripts": turns, "specific_query_list": asked}
    (folder / "val.jsonl").write_text(json.dumps(meeting) + "\n")
    told = ["late", "--data", str(tmp_path), "--sets", "qmsum/val", "--lines", "55"]
    (row,) = late.measure(benchmarks.parser().parse_args(told))
    assert (row["questions"], row["variant"].partition(",")[0]) == (2, "qmsum/val")
    assert 0 < row["share_scored"] <= 1 and row["low"] <= row["high"]
    (ratio,) = late.ratios([row])
    assert ratio.ratio == row["of_exact"] or math.isnan(ratio.ratio)


@pytest.mark.parametrize("smooth", [True, False])
def test_what_was_not_read_is_not_ranked_and_neighbours_count_in_talk(smooth: bool) -> None:
    local = [0.0, 1.0, 0.8, 0.9, 5.0]
    order = late_texts.best(local, {1, 2, 3}, [smooth] * 5)
    assert order == ([1, 2, 3] if smooth else [1, 3, 2])
    everything = late_texts.best(local, range(5), [smooth] * 5)
    assert everything[0] == 4 and sorted(everything) == [*range(5)]


def test_an_interval_of_a_ratio_holds_the_ratio() -> None:
    found = [late_texts.Found(i % 5, 0.1, 0.4 + 0.1 * (i % 2), 0.5) for i in range(20)]
    low, high = late_texts.interval(found)
    ratio = sum(f.early for f in found) / sum(f.full for f in found)
    assert 0.8 <= low <= ratio + 1e-9 and ratio - 1e-9 <= high <= 1.0
