"""The Faust app: only our settings count, and it leaves no files."""

import os
from pathlib import Path
from typing import Any

import pytest
from mode import CrashingSupervisor

from stream_app.events import KEPT_BYTES, dead_letter
from stream_app.kafka.faust_app import create_faust
from stream_app.settings import Settings

FAUSTS_OWN = {
    "APP_VERSION": "1.4.2",
    "BROKER_URL": "amqp://rabbit//",
    "APP_WEB_ENABLED": "true",
    "AGENT_SUPERVISOR": "mode.OneForOneSupervisor",
    "STREAM_WAIT_EMPTY": "false",
}


def test_variables_of_fausts_own_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ | FAUSTS_OWN)
    conf: Any = create_faust(Settings(broker="kafka://somewhere:1")).conf
    assert [str(url) for url in conf.broker] == ["kafka://somewhere:1"]
    assert (conf.web_enabled, conf.stream_wait_empty) == (False, True)
    assert conf.agent_supervisor is CrashingSupervisor


@pytest.mark.parametrize("most", [1, 4096, 1 << 20, 1 << 24])
def test_a_dead_letter_fits_however_large_events_may_be(most: int) -> None:
    conf = create_faust(Settings(max_event_bytes=most)).conf
    letter = dead_letter("t", 0, 0, b"\0" * KEPT_BYTES, b"\0" * KEPT_BYTES, "?")
    assert conf.producer_max_request_size >= max(len(letter), 4 * most)


def test_no_folder_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    app: Any = create_faust(Settings(group="team/xl3m"))
    app._create_directories()
    assert not [*tmp_path.iterdir()]
