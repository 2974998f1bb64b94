"""What the model read is kept: a run that stops goes on, and gives the same."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.ranking import readings
from benchmarks.accuracy.ranking.readings import RECORD, Readings
from benchmarks.harness.progress import Progress
from xl3m_core import XL3M, Engine
from xl3m_core.method import MEASURES

TEXTS = [f"line {i}: host web-{i} is up" for i in range(12)]
QUESTIONS = ["Which host is up?", "What happened?", "N/A"]


class Interrupted(Exception):
    """What stops a run in these tests."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return XL3M.load().engine


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(readings, "STEP_TOKENS", 100)
    yield


def progress() -> Progress:
    return Progress("test", 0)


def read(engine: Engine, folder: Path | None, questions: list[str]) -> readings.Floats:
    return Readings(engine, MEASURES, folder).read(TEXTS, questions, progress())


def test_what_is_kept_is_what_was_read(engine: Engine, tmp_path: Path) -> None:
    fresh = read(engine, None, QUESTIONS)
    first, again = (read(engine, tmp_path, QUESTIONS) for _ in range(2))
    assert fresh.shape[:2] == (len(QUESTIONS), len(TEXTS))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(fresh, first, rtol=0.01, atol=0.01)


def test_another_question_is_read_by_itself(engine: Engine, tmp_path: Path) -> None:
    some = read(engine, tmp_path, QUESTIONS[:2])
    kept = Readings(engine, MEASURES, tmp_path)
    alone = Readings(engine, MEASURES, None)
    assert kept.missing(TEXTS, QUESTIONS) == alone.missing(TEXTS, QUESTIONS[2:])
    np.testing.assert_array_equal(kept.read(TEXTS, QUESTIONS, progress())[:2], some)
    assert kept.missing(TEXTS, QUESTIONS) == 0


@pytest.mark.usefixtures("small_steps")
def test_a_run_goes_on_where_it_stopped(engine: Engine, tmp_path: Path) -> None:
    class Stopping(Progress):
        def add(self, tokens: int) -> None:
            if self.done:
                raise Interrupted
            self.done += tokens

    stopped = Readings(engine, MEASURES, tmp_path)
    whole = stopped.missing(TEXTS, QUESTIONS)
    with pytest.raises(Interrupted):
        stopped.read(TEXTS, QUESTIONS, Stopping("test", whole))
    resumed = Readings(engine, MEASURES, tmp_path)
    assert 0 < resumed.missing(TEXTS, QUESTIONS) < whole
    found = resumed.read(TEXTS, QUESTIONS, progress())
    np.testing.assert_allclose(found, read(engine, None, QUESTIONS), rtol=0.01, atol=0.01)


def test_half_a_record_is_cut_off(engine: Engine, tmp_path: Path) -> None:
    found = read(engine, tmp_path, QUESTIONS)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: -RECORD.itemsize // 2])
    again = read(engine, tmp_path, QUESTIONS)
    np.testing.assert_allclose(again, found, rtol=0.01, atol=0.01)
    assert file.stat().st_size == len(whole)


def test_numbers_of_another_version_are_refused(engine: Engine, tmp_path: Path) -> None:
    read(engine, tmp_path, QUESTIONS)
    (file,) = tmp_path.iterdir()
    records = np.fromfile(file, dtype=RECORD)
    records["numbers"] += 1
    file.write_bytes(records.tobytes())
    with pytest.raises(SystemExit, match="another version: give another --cache"):
        read(engine, tmp_path, QUESTIONS)


def test_words_are_counted_anew(engine: Engine, tmp_path: Path) -> None:
    found = read(engine, tmp_path, QUESTIONS)
    (file,) = tmp_path.iterdir()
    records = np.fromfile(file, dtype=RECORD)
    records["numbers"][:, readings.LEXICAL] = 7
    file.write_bytes(records.tobytes())
    np.testing.assert_array_equal(read(engine, tmp_path, QUESTIONS), found)


def test_other_measures_have_a_file_of_their_own(engine: Engine, tmp_path: Path) -> None:
    for measures in (MEASURES, MEASURES[:1]):
        Readings(engine, measures, tmp_path).read(TEXTS, QUESTIONS, progress())
    assert len(list(tmp_path.iterdir())) == 2


def test_progress_tells_how_long_the_rest_takes() -> None:
    running = Progress("reading", 3_600_000)
    running.add(600_000)
    assert running.line(600.0).endswith(
        "600,000 of 3,600,000 tokens read, 1,000 a second, 50 min left"
    )
    running.add(3_000_000)
    assert running.line(3600.0).endswith("0 min left")
