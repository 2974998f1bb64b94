"""Chooses the Kafka that the tests run on.

In this order: `KAFKA_HOME`, one that Maven downloads into the cache, a running one at
`XL3M_TEST_BROKER`, the embedded mock cluster. No other module reads these variables.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from stream_app.embedded import kafka_server, services

VERSION = "4.2.1"
_PROJECT = Path(__file__).parent / "maven_kafka"
_MAVEN_S = 300
_FROM_MAVEN = f"Apache Kafka {VERSION} (Maven)"


@contextmanager
def best(folder: Path, environment: Mapping[str, str] = os.environ) -> Iterator[services.Service]:
    """The best available broker; started in the folder unless it already runs."""
    if found := home(environment):
        with services.kafka(folder, kafka_home=found) as service:
            kind = service.kind if environment.get("KAFKA_HOME") else _FROM_MAVEN
            yield replace(service, kind=kind)
    elif address := environment.get("XL3M_TEST_BROKER"):
        yield running(address)
    else:
        with services.kafka(folder) as service:
            yield service


def home(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The home of a Kafka distribution, if there is one."""
    named = environment.get("KAFKA_HOME")
    return Path(named) if named else from_maven(_cache(environment))


def is_real_required(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a run without a real Kafka counts as failed."""
    return environment.get("XL3M_REQUIRE_KAFKA", "0") not in ("", "0")


def running(address: str) -> services.Service:
    """The running broker at the address, `host:port` with or without `kafka://`."""
    parts = urlsplit(address if "://" in address else f"kafka://{address}")
    host, port = parts.hostname or "127.0.0.1", parts.port or 9092
    if not kafka_server.is_broker_up(host, port):
        raise services.EmbeddedError(f"XL3M_TEST_BROKER: no Kafka answers at {host}:{port}")
    return services.Service(f"kafka://{host}:{port}", "Kafka (XL3M_TEST_BROKER)", durable=True)


def from_maven(home: Path) -> Path | None:
    """The Kafka home in the cache, downloaded by Maven if missing; None if that fails."""
    if home.is_dir():
        return home
    maven = shutil.which("mvn")
    if maven is None:
        return None
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        building = Path(scratch) / "home"
        building.mkdir()
        if not _download(maven, building / "libs"):
            return None
        for part in ("bin", "config"):
            shutil.copytree(_PROJECT / part, building / part)
        building.rename(home)  # atomic: an interrupted download leaves no home
    return home


def _download(maven: str, libs: Path) -> bool:
    """Whether Maven could copy Kafka's jars into libs; without a network it fails in seconds."""
    goals = ["--batch-mode", "--quiet", "--update-snapshots", "package", f"-Dlibs={libs}"]
    limits = ["-Daether.connector.connectTimeout=3000", "-Dmaven.wagon.http.retryHandler.count=0"]
    command = [maven, "--file", str(_PROJECT / "pom.xml"), *goals, *limits]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_MAVEN_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0 and any(libs.glob("kafka_2.13-*.jar"))


def _cache(environment: Mapping[str, str]) -> Path:
    root = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "xl3m" / f"kafka-{VERSION}"
