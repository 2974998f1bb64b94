"""Facts about a log: each has one right answer, which its line states and no other line."""

import re
from pathlib import Path

import pytest

from stream_app.machine_log import FACTS, choose, facts, is_right, last_lines, machine_log

DPKG = """\
2026-09-22 04:45:24 install ed:amd64 <none> 1.19-1
2026-09-22 04:45:25 status installed ed:amd64 1.19-1
2026-09-22 04:45:25 configure mvn:all 3.8.7-1 <none>
2026-09-22 04:45:29 status installed mvn:all 3.8.7-1
2026-09-22 04:45:30 status installed libc6:amd64 2.36-9
2026-09-22 04:45:31 upgrade libc6:amd64 2.36-9 2.36-10
2026-09-22 04:45:32 status installed libc6:amd64 2.36-10
2026-09-22 04:45:40 upgrade nodejs:amd64 18.1-1 20.20.2-1
2026-09-22 04:45:45 status installed nodejs:amd64 20.20.2-1
2026-09-22 04:45:45 status installed npm:all 9.2.0-1
"""
SYSLOG = """\
Dec  1 03:00:01 host CRON[411]: (root) CMD (run-parts /etc/cron.hourly)
Dec  1 03:00:07 host sshd[77]: Accepted publickey for ann from 10.0.0.7
Dec  1 03:05:01 host CRON[411]: (root) CMD (run-parts /etc/cron.hourly)
Dec  1 03:06:00 host kernel: usb 1-1: new high-speed device number 4
"""


def test_packages_that_were_installed_once_are_asked_for() -> None:
    versions, times, packages = facts(DPKG.splitlines())
    assert {fact.question.split()[3]: fact.answer for fact in versions} == {
        "ed": "1.19-1",
        "mvn": "3.8.7-1",
        "npm": "9.2.0-1",
    }  # fmt: skip; not libc6, installed twice, nor nodejs, of two versions
    assert {fact.answer for fact in times} == {"04:45:25", "04:45:29", "04:45:45"}
    assert [fact.answer for fact in packages] == ["ed", "mvn"], "04:45:45 belongs to two"


@pytest.mark.parametrize("text", [DPKG, SYSLOG])
def test_a_fact_stands_in_its_line(text: str) -> None:
    lines = text.splitlines()
    found = [fact for kind in facts(lines) for fact in kind]
    assert found
    assert all(is_right(lines[fact.line], fact.answer) for fact in found)
    assert len({fact.question for fact in found}) == len(found)


def test_other_logs_are_asked_for_the_time_of_what_one_line_says() -> None:
    (times,) = facts(SYSLOG.splitlines())
    assert [(fact.answer, fact.line) for fact in times] == [("03:00:07", 1), ("03:06:00", 3)]
    for fact in times:
        quote = re.findall('"(.*)"', fact.question)[0]
        assert SYSLOG.count(quote) == 1


def test_the_questions_are_of_different_kinds_and_parts() -> None:
    chosen = choose(facts(DPKG.splitlines()))
    assert len({fact.question.split()[0] for fact in chosen}) > 1
    assert len(chosen) == len(set(chosen)) == FACTS
    assert choose([]) == [] == choose([[]])


def test_the_first_log_that_states_enough_is_taken(tmp_path: Path) -> None:
    poor, rich = tmp_path / "poor.log", tmp_path / "rich.log"
    poor.write_text("no times here\n" * 9)
    rich.write_bytes(b"\xff\n\n" + DPKG.encode())
    paths = [str(tmp_path / "none"), str(tmp_path), str(poor), str(rich)]
    path, last, chosen = machine_log(9, paths)
    assert (path, last, len(chosen)) == (str(rich), DPKG.splitlines()[-9:], FACTS)
    assert last_lines(str(rich), 1) == DPKG.splitlines()[-1:]
    with pytest.raises(LookupError):
        machine_log(9, paths[:3])


@pytest.mark.parametrize(
    ("answer", "value", "right"),
    [
        ("The version is 1.19-1.", "1.19-1", True), ("1.19-1+b2", "1.19-1", False),
        ("11.19-1", "1.19-1", False), ("at 04:45:25", "04:45:25", True),
        ("at 04:45:25:1", "04:45:25", False), ("Docker-Compose!", "docker-compose", True),
        ("python3-docker-compose", "docker-compose", False), ("", "x", False),
        ("6321", "632", False), ("1.19", "1.19-1", False), ("1.19-1.2", "1.19-1", False),
    ],
)  # fmt: skip
def test_an_answer_is_right_if_it_states_the_whole_value(
    answer: str, value: str, right: bool
) -> None:
    assert is_right(answer, value) is right
