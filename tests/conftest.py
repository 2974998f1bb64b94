"""The services the tests share: one Redis and one Kafka broker for the whole run.

Every test takes fresh names, so nothing has to be cleaned between them. The report ends with what
the run was on, and `XL3M_REQUIRE_KAFKA=1` fails a run whose Kafka tests had no real Kafka.
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


# How long an example takes says something about the machine, nothing about the code.
hypothesis.settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How much chaos, and which."""
    group = parser.getgroup("chaos")
    group.addoption("--chaos-seed", type=int, default=0, help="which schedule of faults")
    group.addoption("--faults", type=int, default=10, help="one of every kind is 10")
    group.addoption("--kills", type=int, default=0, help="workers killed beside these")


def pytest_configure(config: pytest.Config) -> None:
    """Nothing has run yet."""
    config.stash[_ON] = {}
    config.stash[_RAN_ON_KAFKA] = 0


@pytest.fixture(scope="session")
def redis_url(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[str]:
    """A Redis of this run's own."""
    with services.redis(tmp_path_factory.mktemp("redis")) as service:
        pytestconfig.stash[_ON]["Redis"] = f"{service.kind} at {service.url}"
        yield service.url


@pytest.fixture(scope="session")
def broker(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[services.Service]:
    """The best Kafka-protocol broker at hand."""
    with brokers.best(tmp_path_factory.mktemp("kafka")) as service:
        pytestconfig.stash[_ON]["Kafka"] = f"{service.kind} at {service.url}"
        yield service


@pytest.fixture
def durable_broker(broker: services.Service, pytestconfig: pytest.Config) -> services.Service:
    """A real Kafka; on the mock cluster the test is skipped by name."""
    if not broker.durable:
        pytest.skip(_NEEDS_KAFKA)
    pytestconfig.stash[_RAN_ON_KAFKA] += 1
    return broker


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[secured.Kafka]:
    """A real Kafka that lets in only whom it knows."""
    home = brokers.home()
    if home is None:
        pytest.skip(_NEEDS_KAFKA)
    with secured.kafka(home, tmp_path_factory.mktemp("gate")) as kafka:
        yield kafka


@pytest.fixture
def secured_kafka(gate: secured.Kafka, pytestconfig: pytest.Config) -> secured.Kafka:
    """The same, counted."""
    pytestconfig.stash[_RAN_ON_KAFKA] += 1
    return gate


@pytest.fixture
async def redis_client(redis_url: str) -> AsyncIterator[Redis]:
    """A client that answers in bytes."""
    client = Redis.from_url(redis_url, decode_responses=False)
    yield client
    await client.aclose()


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """Names nobody has used: `fresh("topic")` is "topic-" and 12 random digits."""
    return lambda noun: f"{noun}-{uuid.uuid4().hex[:12]}"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Where a real Kafka is required, a run without one is a failed run."""
    if _lacks_kafka(session.config) and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None, None, None]:
    """The last lines, after every other part of the report: what the run was on."""
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
