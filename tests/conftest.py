"""Shared fixtures: one Redis and one Kafka broker for the whole run.

Every test uses fresh names, so nothing has to be cleaned up between tests. The report ends with the
services that were used. `XL3M_REQUIRE_KAFKA=1` fails a run without a real Kafka.
"""

import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
from redis.asyncio import Redis

from stream_app.embedded import services
from tests.support import brokers, secured
from tests.support.workers import Site, site

_NEEDS_KAFKA = "needs a real Kafka: set KAFKA_HOME"
_ON = pytest.StashKey[dict[str, str]]()
_RAN_ON_KAFKA = pytest.StashKey[int]()


# The duration of an example depends on the machine: no deadlines.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the chaos test."""
    group = parser.getgroup("chaos")
    group.addoption("--chaos-seed", type=int, default=0, help="seed of the schedule of faults")
    group.addoption(
        "--faults", type=int, default=10, help="number of faults; 10 is one of every kind"
    )
    group.addoption("--kills", type=int, default=0, help="additional kills of workers")


def pytest_configure(config: pytest.Config) -> None:
    """Start without services and with no test on a real Kafka."""
    config.stash[_ON] = {}
    config.stash[_RAN_ON_KAFKA] = 0


@pytest.fixture(scope="session")
def redis_url(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[str]:
    """The URL of a Redis that this run starts."""
    with services.redis(tmp_path_factory.mktemp("redis")) as service:
        pytestconfig.stash[_ON]["Redis"] = f"{service.kind} at {service.url}"
        yield service.url


@pytest.fixture(scope="session")
def broker(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[services.Service]:
    """The best available broker: a real Kafka, or the mock cluster."""
    with brokers.best(tmp_path_factory.mktemp("kafka")) as service:
        pytestconfig.stash[_ON]["Kafka"] = f"{service.kind} at {service.url}"
        yield service


@pytest.fixture
def durable_broker(broker: services.Service, pytestconfig: pytest.Config) -> services.Service:
    """A real Kafka; without one the test is skipped, and the reason says so."""
    if not broker.durable:
        pytest.skip(_NEEDS_KAFKA)
    pytestconfig.stash[_RAN_ON_KAFKA] += 1
    return broker


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[secured.Kafka]:
    """A real Kafka with TLS and authentication."""
    home = brokers.home()
    if home is None:
        pytest.skip(_NEEDS_KAFKA)
    with secured.kafka(home, tmp_path_factory.mktemp("gate")) as kafka:
        yield kafka


@pytest.fixture
def secured_kafka(gate: secured.Kafka, pytestconfig: pytest.Config) -> secured.Kafka:
    """A real Kafka with TLS and authentication; counts the test."""
    pytestconfig.stash[_RAN_ON_KAFKA] += 1
    return gate


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[Redis]:
    """A client that returns bytes."""
    client = Redis.from_url(redis_url, decode_responses=False)
    yield client
    await client.aclose()


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Unused names: `fresh("topic")` is "topic-" and 12 random hexadecimal digits."""
    return lambda noun: f"{noun}-{uuid.uuid4().hex[:12]}"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a run without a real Kafka if one is required."""
    if _lacks_kafka(session.config) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """Print the services that were used, as the last section of the report."""
    yield
    terminalreporter.section("services")
    for name in ("Kafka", "Redis"):
        terminalreporter.line(f"{name}: {config.stash[_ON].get(name, 'not used')}")
    terminalreporter.line(f"Tests on a real Kafka: {config.stash[_RAN_ON_KAFKA]}")
    if _lacks_kafka(config):
        message = "FAILED: XL3M_REQUIRE_KAFKA is set, but no test ran on a real Kafka"
        terminalreporter.line(message, red=True)


def _lacks_kafka(config: pytest.Config) -> bool:
    return brokers.is_real_required() and config.stash[_RAN_ON_KAFKA] == 0


@pytest.fixture
async def here(
    durable_broker: services.Service, redis_url: str, tmp_path: Path, fresh: Callable[[str], str]
) -> AsyncIterator[Site]:
    """A site on a real Kafka."""
    async with site(durable_broker.url, redis_url, tmp_path, fresh) as made:
        yield made
