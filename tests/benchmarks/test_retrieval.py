"""The retrieval benchmark on generated files in its formats: loading, ranking, recall."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import datasets, retrieval
from benchmarks.accuracy.ranking.outcomes import ALL, KS
from benchmarks.accuracy.ranking.rankers import RANKERS
from benchmarks.accuracy.ranking.samples import sample
from stream_app.scoring.bm25 import Bm25, words
from training import plots

HEADER = "LineId,Date,Level,Component,Content,EventId,EventTemplate"
LINES = 80
SPECIAL = 41


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One log with one special line, asked about in two ways, and one meeting with two spans."""
    log, meetings = tmp_path / "logqa" / "Made", tmp_path / "qmsum"
    other = tmp_path / "logqa-paraphrased"
    for folder in (log, meetings, other):
        folder.mkdir(parents=True)
    contents = [f"request {i} done" for i in range(LINES)]
    contents[SPECIAL] = "host=web-17, port=8123"
    table = [f'{i},081109,INFO,mail.Box,"{text}",E1,x' for i, text in enumerate(contents)]
    (log / "made.log_structured.csv").write_text("\n".join([HEADER, *table]) + "\n")
    found = {"Question": "Which port has web-17?", "RawLog": contents[SPECIAL], "Answer": "8123"}
    missing = {"Question": "Which port has web-18?", "RawLog": "no such line", "Answer": "1"}
    (log / "qa.json.train").write_text(json.dumps(found) + "\n" + json.dumps(missing) + "\n")
    asked = {"question": "Where does web-17 listen?", "evidence": contents[SPECIAL]}
    (other / "Made.dev.jsonl").write_text(json.dumps(asked) + "\n")
    meeting = {
        "meeting_transcripts": [{"speaker": "A", "content": f"turn\n{i}"} for i in range(20)],
        "general_query_list": [{"query": "Sum up", "answer": "x"}],
        "specific_query_list": [
            {"query": "What of 3?", "answer": "x", "relevant_text_span": [["3", "4"], ["9", "9"]]}
        ],
    }
    (meetings / "val.jsonl").write_text(json.dumps(meeting) + "\n")
    return tmp_path


def arguments(data: Path | None, *more: str) -> argparse.Namespace:
    """The arguments as the command line would give them."""
    parser = argparse.ArgumentParser()
    retrieval.add_arguments(parser)
    chosen = parser.parse_args(["--data", str(data), *more] if data else list(more))
    chosen.model, chosen.short = None, False
    chosen.out = str(data / "out") if data else "unused"
    return chosen


def by_ranker(rows: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """The rows of a set by their rankers."""
    return {row["ranker"]: row for row in rows if row["set"] == name}


def test_a_log_is_read_with_the_place_of_its_evidence(data: Path) -> None:
    (log,) = datasets.load(data)["logqa/Made"]
    assert len(log.lines) == LINES
    assert log.lines[SPECIAL] == "081109 INFO mail.Box: host=web-17, port=8123"
    question = datasets.Question("Which port has web-17?", ((SPECIAL, SPECIAL),), datasets.WHOLE)
    assert log.questions == (question,)


def test_the_paraphrased_set_asks_about_the_same_line(data: Path) -> None:
    sets = datasets.load(data, ["paraphrased/Made", "logqa/Made"])
    (asked,), (original,) = sets["paraphrased/Made"], sets["logqa/Made"]
    assert asked.lines == original.lines
    assert asked.questions[0].evidence == original.questions[0].evidence
    assert asked.questions[0].text == "Where does web-17 listen?"


def test_sets_are_chosen_by_name_and_all_by_default(data: Path) -> None:
    assert list(datasets.load(data, ["qmsum/val"])) == ["qmsum/val"]
    assert list(datasets.load(data)) == ["logqa/Made", "qmsum/val", "paraphrased/Made"]
    with pytest.raises(SystemExit, match="no set qmsum/test; it has logqa/Made, qmsum/val"):
        datasets.load(data, ["qmsum/test"])


@pytest.mark.parametrize(
    ("question", "group"),
    [
        ("What of blk_-8050165297538775793?", datasets.WHOLE),
        ("What of the block ending in 8775793?", datasets.ENDING),
        ("What of the block ending in 793?", datasets.NONE),
        ("What passed?", datasets.NONE),
    ],
)
def test_questions_are_grouped_by_what_they_have_of_the_identifier(
    question: str, group: str
) -> None:
    evidence = "Verification succeeded for blk_-8050165297538775793"
    assert datasets.identifier_group(question, evidence) == group


def test_evidence_is_the_whole_line_and_nothing_else(data: Path) -> None:
    (log,) = datasets.load(data)["logqa/Made"]
    mask = log.evidence(log.questions[0])
    assert len(mask) == len(log.text)
    assert "".join(np.array(list(log.text))[mask]) == log.lines[SPECIAL]


def test_a_meeting_is_read_with_both_ends_of_its_spans(data: Path) -> None:
    (meeting,) = datasets.load(data)["qmsum/val"]
    assert meeting.lines[3] == "A: turn 3"
    assert meeting.questions == (datasets.Question("What of 3?", ((3, 4), (9, 9)), datasets.OTHER),)
    told = "".join(np.array(list(meeting.text))[meeting.evidence(meeting.questions[0])])
    assert told == "A: turn 3\nA: turn 4A: turn 9"


def test_the_head_keeps_only_questions_it_can_answer(data: Path) -> None:
    (meeting,) = datasets.load(data)["qmsum/val"]
    assert meeting.head(9).questions == ()
    assert meeting.head(10).questions == meeting.questions


def test_a_sample_is_the_same_each_time_and_no_larger(data: Path) -> None:
    document = datasets.Document(
        "d", ("x",), tuple(datasets.Question(str(i), ()) for i in range(9))
    )
    samples = [sample([document, document], 5) for _ in range(2)]
    assert samples[0] == samples[1]
    assert sum(len(d.questions) for d in samples[0]) == 5
    assert sample([document, document], None) == [document, document]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Host web-17, failed.", {"host", "web-17", "web", "17", "failed"}),
        ("blk_-160899:", {"blk_-160899", "blk", "160899"}),
        ("/10.251.1.2", {"10.251.1.2", "10", "251", "1", "2"}),
    ],
)
def test_identifiers_are_words_whole_and_in_parts(text: str, expected: set[str]) -> None:
    assert set(words(text)) == expected


def test_bm25_finds_the_only_text_with_the_key() -> None:
    texts = [f"host web-{i} port {i}" for i in range(30)]
    assert Bm25(texts).ranked("Which port has web-17?", 3)[0] == 17


def test_bm25_ranks_every_text_even_if_no_word_is_known() -> None:
    assert Bm25(["one", "two", "three"]).ranked("zebra ?", 9) == [0, 1, 2]


def test_a_run_gives_a_row_a_ranker_tables_and_a_plot(data: Path) -> None:
    rows = retrieval.measure(arguments(data, "--questions", "1"))
    assert [row["ranker"] for row in rows] == [*RANKERS] * 3
    for row in rows:
        recalls = [row[f"evidence_recall_{k}"] for k in KS]
        assert recalls == sorted(recalls)
        assert recalls[0] >= 0 and recalls[-1] <= 1
        assert 1 <= row["median_rank"] <= row["rank_90"] <= row["segments"]
    assert by_ranker(rows, "logqa/Made")["bm25"]["evidence_recall_1"] == 1
    out = data / "out"
    assert (out / "retrieval.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "retrieval.json").read_text()) == rows
    assert (out / "retrieval.md").read_text().count("| oracle | 1.000 |") >= 2


def test_no_ranker_finds_more_than_the_oracle(data: Path) -> None:
    rows = [r for r in retrieval.measure(arguments(data)) if r["group"] == ALL]
    for name in {row["set"] for row in rows}:
        rankers = by_ranker(rows, name)
        for k in (f"evidence_recall_{k}" for k in KS):
            assert rankers["oracle"][k] >= max(row[k] for row in rankers.values())


def test_all_questions_are_asked_by_default(data: Path) -> None:
    rows = retrieval.measure(arguments(data, "--segment-words", "20", "--rankers", "bm25"))
    assert [row["questions"] for row in rows] == [1, 1, 1]


def test_a_kept_reading_gives_the_same_rows(data: Path) -> None:
    args = arguments(data, "--sets", "logqa/Made", "paraphrased/Made", "--cache", str(data / "c"))
    first = retrieval.measure(args)
    (file,) = (data / "c").iterdir()
    size = file.stat().st_size
    assert retrieval.measure(args) == first
    assert file.stat().st_size == size


def test_a_pool_has_the_evidence_and_says_that_it_is_optimistic(data: Path) -> None:
    chosen = ["--sets", "logqa/Made", "--segment-words", "8", "--rankers", "oracle", "bm25"]
    (oracle, pooled), (_, whole) = (
        retrieval.measure(arguments(data, *chosen, *pool)) for pool in (["--pool", "9"], [])
    )
    assert (oracle["segments"], oracle["evidence_recall_4"]) == (9, 1)
    assert pooled["pool"].startswith("an optimistic pool of 9 of ")
    assert pooled["evidence_recall_4"] == whole["evidence_recall_4"]


def test_a_set_without_questions_has_no_rows(data: Path) -> None:
    args = arguments(data, "--segment-words", "20", "--rankers", "bm25")
    args.short = True  # the first lines alone, in which every question's evidence must be
    (data / "logqa-paraphrased" / "Made.dev.jsonl").write_text("")
    assert {row["set"] for row in retrieval.measure(args)} == {"logqa/Made", "qmsum/val"}


def test_segment_sizes_are_compared_side_by_side(data: Path) -> None:
    sizes = ["--segment-tokens", "30", "60", "--rankers", "bm25", "--sets", "logqa/Made"]
    small, large = retrieval.measure(arguments(data, *sizes))
    assert (small["segment"], large["segment"]) == ("30 tokens", "60 tokens")
    assert small["segments"] > large["segments"]


def test_segments_too_long_for_the_window_are_refused(data: Path) -> None:
    with pytest.raises(SystemExit, match="make the segment or the question shorter"):
        retrieval.measure(arguments(data, "--segment-tokens", "100000"))


def test_segments_by_words_need_no_model(data: Path) -> None:
    args = arguments(data, "--segment-words", "20", "--rankers", "bm25")
    args.model = "no/such/model"
    assert retrieval.measure(args)[0]["evidence_recall_1"] == 1


def test_segments_too_long_for_the_model_are_refused(data: Path) -> None:
    with pytest.raises(SystemExit, match="leave --segment-words out"):
        retrieval.measure(arguments(data, "--segment-words", "2000"))


def test_without_data_it_says_what_to_pass() -> None:
    with pytest.raises(SystemExit, match="--data PATH"):
        retrieval.measure(arguments(None))


def test_a_heat_map_is_drawn(tmp_path: Path) -> None:
    path = plots.heat_map(tmp_path / "a" / "map.png", [[0.0, 1.0]], ["near"], [10, 20])
    assert path.read_bytes().startswith(b"\x89PNG")
