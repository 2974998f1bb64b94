"""The retrieval benchmark on generated files in its formats: loading, ranking, recall."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import datasets, retrieval
from stream_app.scoring.bm25 import Bm25, words
from training import plots
from xl3m_core import Segment

HEADER = "LineId,Date,Level,Component,Content,EventId,EventTemplate"
LINES = 80
SPECIAL = 41


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """One log with one special line and one meeting with two spans."""
    log, meetings = tmp_path / "logqa" / "Made", tmp_path / "qmsum"
    log.mkdir(parents=True)
    meetings.mkdir()
    contents = [f"request {i} done" for i in range(LINES)]
    contents[SPECIAL] = "host=web-17, port=8123"
    table = [f'{i},081109,INFO,mail.Box,"{text}",E1,x' for i, text in enumerate(contents)]
    (log / "made.log_structured.csv").write_text("\n".join([HEADER, *table]) + "\n")
    found = {"Question": "Which port has web-17?", "RawLog": contents[SPECIAL], "Answer": "8123"}
    missing = {"Question": "Which port has web-18?", "RawLog": "no such line", "Answer": "1"}
    (log / "qa.json.train").write_text(json.dumps(found) + "\n" + json.dumps(missing) + "\n")
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


def test_a_log_is_read_with_the_place_of_its_evidence(data: Path) -> None:
    (log,) = datasets.load(data)["logqa/Made"]
    assert len(log.lines) == LINES
    assert log.lines[SPECIAL] == "081109 INFO mail.Box: host=web-17, port=8123"
    assert log.questions == (datasets.Question("Which port has web-17?", ((SPECIAL, SPECIAL),)),)


def test_evidence_is_the_whole_line_and_nothing_else(data: Path) -> None:
    (log,) = datasets.load(data)["logqa/Made"]
    mask = log.evidence(log.questions[0])
    assert len(mask) == len(log.text)
    assert "".join(np.array(list(log.text))[mask]) == log.lines[SPECIAL]


def test_a_meeting_is_read_with_both_ends_of_its_spans(data: Path) -> None:
    (meeting,) = datasets.load(data)["qmsum/val"]
    assert meeting.lines[3] == "A: turn 3"
    assert meeting.questions == (datasets.Question("What of 3?", ((3, 4), (9, 9))),)
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
    samples = [retrieval.sample([document, document], 5) for _ in range(2)]
    assert samples[0] == samples[1]
    assert sum(len(d.questions) for d in samples[0]) == 5


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


def test_evidence_over_two_segments_is_found_in_parts() -> None:
    segments = [Segment(i, "xxxx", i * 4, i * 4 + 4, i, i + 1) for i in range(3)]
    evidence = np.array([False] * 3 + [True] * 2 + [False] * 7)
    found = retrieval.find(evidence, segments, [1, 2, 0])
    assert found.ranks.tolist() == [2, 0]


def test_a_run_gives_a_row_a_ranker_and_a_plot(data: Path) -> None:
    rows = retrieval.measure(arguments(data, "--questions", "1"))
    assert [row["ranker"] for row in rows] == [*retrieval.RANKERS] * 2
    for row in rows:
        recalls = [row[f"evidence_recall_{k}"] for k in retrieval.KS]
        assert recalls == sorted(recalls)
        assert recalls[0] >= 0 and recalls[-1] <= 1
        assert 1 <= row["median_rank"] <= row["rank_90"] <= row["segments"]
    assert rows[0]["ranker"] == "bm25" and rows[0]["evidence_recall_1"] == 1
    assert (data / "out" / "retrieval.png").read_bytes().startswith(b"\x89PNG")


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
