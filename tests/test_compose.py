"""docker-compose.yml and the Dockerfile, as far as they can be tested without a Docker engine.

`docker-compose config` checks the file too, if Debian's `docker-compose` is installed.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_app.settings import Settings
from stream_app.settings.variables import variable

ROOT = Path(__file__).parents[1]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())[
    "services"
]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@pytest.mark.skipif(not shutil.which("docker-compose"), reason="needs docker-compose")
def test_the_file_follows_the_compose_specification() -> None:
    command = ["docker-compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


def test_every_image_is_pinned() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE)
    for image in images:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", image), image


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    for port in ports:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


def test_every_setting_is_passed_on_but_how_to_get_in() -> None:
    known = {variable(name) for name in Settings.model_fields if not name.startswith("kafka_")}
    for name in ("worker", "feeder"):
        given = SERVICES[name]["environment"]
        assert given.keys() == known
        assert {name for name, value in given.items() if value} == {"XL3M_BROKER", "XL3M_REDIS"}


def test_addresses_are_settings_that_can_be_used() -> None:
    given = SERVICES["worker"]["environment"].items()
    settings = Settings.from_env({name: value for name, value in given if value})
    assert settings.broker_address == "kafka:9092"
    assert "INSIDE://kafka:9092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert settings.redis == "redis://redis:6379/0"


def test_every_topic_is_made_with_the_same_partitions() -> None:
    script = SERVICES["topics"]["command"][0]
    named = re.search(r"for topic in (.*); do", script)
    assert named
    topics = {f.default for name, f in Settings.model_fields.items() if name.endswith("_topic")}
    assert set(named[1].split()) == topics
    partitions = SERVICES["kafka"]["environment"]["KAFKA_NUM_PARTITIONS"]
    assert f"--partitions {partitions} " in script


@pytest.mark.guarantee("Failover")
def test_workers_can_be_scaled_and_start_again() -> None:
    worker = SERVICES["worker"]
    assert not worker.keys() & {"container_name", "ports"}
    assert worker["restart"] == "unless-stopped"
    assert worker["depends_on"]["kafka"]["condition"] == "service_healthy"
    assert worker["depends_on"]["redis"]["condition"] == "service_healthy"


def test_what_workers_wait_for_has_a_health_check() -> None:
    for name in ("kafka", "redis"):
        assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"


def test_the_worker_is_not_root() -> None:
    assert "user" not in SERVICES["worker"]
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (\S+)", last_stage, flags=re.MULTILINE) == ["xl3m"]


def test_the_image_runs_a_worker_unless_told_otherwise() -> None:
    assert 'ENTRYPOINT ["xl3m"]\nCMD ["worker"]' in DOCKERFILE
