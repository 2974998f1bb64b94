"""A group or a topic that denies a worker access, on the real Kafka: the worker ends with one line,
or retries and recovers; the doctor reports it in advance.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from confluent_kafka.admin import AdminClient

from stream_app.cli.doctor import kafka_findings
from stream_app.embedded import kafka_server
from stream_app.embedded.process import free_port
from stream_app.kafka import auth
from tests.kafka.test_records import assert_alive, log_of, reads, with_changes
from tests.support import brokers, secured
from tests.support.workers import WAIT_SECONDS, Site, site
from tests.system.test_system import says

Fresh = Callable[[str], str]


async def marks(here: Site) -> dict[str, tuple[str, str]]:
    return {f.subject: (f.mark, f.message) async for f in kafka_findings(here.settings)}


@pytest.mark.guarantee("Unreadable records")
async def test_a_worker_waits_for_another_kind_of_program_to_leave_its_group(
    here: Site, fresh: Fresh
) -> None:
    settings, stream, log = here.settings, fresh("stream"), here.folder / "workers.log"
    other: Any = AIOKafkaConsumer(
        settings.tokens_topic, **auth.kafka(settings), group_id=settings.group,
        partition_assignment_strategy=(RangePartitionAssignor,),
    )  # fmt: skip
    async with other:
        async with asyncio.timeout(WAIT_SECONDS):
            while not other.assignment():
                await other.getmany(timeout_ms=100)
        mark, line = (await marks(here))[f"group {settings.group}"]
        assert mark == "FAIL" and "another kind of program" in line
        await here.start()
        await here.until(lambda: says(log, "another kind of program"))
    await here.send("tokens", stream, b"read after all\n")
    await here.until(lambda: reads(here, stream, "read after all"))
    assert (await marks(here))[f"group {settings.group}"][0] == "ok"
    assert_alive(here)


@pytest.fixture
async def guarded(
    tmp_path: Path, redis_url: str, fresh: Fresh, pytestconfig: pytest.Config
) -> AsyncIterator[tuple[Site, Any]]:
    """A site on a Kafka where a user has only listed rights, and a function to list one."""
    home = brokers.home()
    if home is None:
        pytest.skip("needs a real Kafka: set KAFKA_HOME")
    plain, port = free_port(), free_port()
    name = "SASL_PLAINTEXT"
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    properties = {
        "sasl.enabled.mechanisms": "PLAIN",
        f"listener.name.{name.lower()}.plain.sasl.jaas.config": (
            f'{login} user_{secured.USER}="{secured.PASSWORD}";'
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "group.max.session.timeout.ms": 20_000,
    }
    folder = tmp_path / "guarded"
    folder.mkdir()
    with kafka_server.node(
        home, folder, partitions=1, port=plain, listeners={name: port}, properties=properties
    ):
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{plain}"})
        allow(admin, "TOPIC", "*", "ALL")
        allow(admin, "CLUSTER", "kafka-cluster", "ALL")
        changes = {
            "kafka_security_protocol": name, "kafka_sasl_mechanism": "PLAIN",
            "kafka_sasl_username": secured.USER, "kafka_sasl_password": secured.PASSWORD,
            "session_timeout_seconds": 15.0,
        }  # fmt: skip
        async with site(f"kafka://127.0.0.1:{port}", redis_url, tmp_path, fresh, **changes) as here:
            yield here, admin


def allow(admin: Any, kind: str, name: str, operation: str, allowed: bool = True) -> None:
    """Give the user a right, or remove it."""
    kinds: Any = importlib.import_module("confluent_kafka.admin")
    pattern = kinds.ResourcePatternType.LITERAL
    resource = getattr(kinds.ResourceType, kind if kind != "CLUSTER" else "BROKER")
    permission = kinds.AclPermissionType.ALLOW if allowed else kinds.AclPermissionType.DENY
    binding = kinds.AclBinding(
        resource, name, pattern, f"User:{secured.USER}", "*",
        getattr(kinds.AclOperation, operation), permission,
    )  # fmt: skip
    for done in admin.create_acls([binding]).values():
        done.result(30)


async def ended(here: Site, worker: Any) -> int:
    return int(await asyncio.wait_for(worker.wait(), WAIT_SECONDS))


@pytest.mark.guarantee("Unreadable records")
async def test_a_group_it_may_not_read_ends_the_worker_at_its_start_with_one_line(
    guarded: tuple[Site, Any],
) -> None:
    here, admin = guarded
    group = here.settings.group
    mark, line = (await marks(here))[f"group {group}"]
    assert mark == "FAIL" and "right to read" in line
    worker = await here.start()
    assert await ended(here, worker) == 3
    line = log_of(here).strip().splitlines()[-1]
    assert group in line and "give us the right to read it" in line
    assert "Traceback" not in log_of(here)
    allow(admin, "GROUP", group, "READ")
    assert (await marks(here))[f"group {group}"][0] == "ok"


@pytest.mark.guarantee("Unreadable records")
async def test_a_right_that_is_taken_away_ends_the_worker_with_code_3(
    guarded: tuple[Site, Any], fresh: Fresh
) -> None:
    here, admin = guarded
    group, stream = here.settings.group, fresh("stream")
    allow(admin, "GROUP", group, "READ")
    worker = await here.start()
    await here.send("tokens", stream, b"allowed\n")
    await here.until(lambda: reads(here, stream, "allowed"))
    allow(admin, "GROUP", group, "READ", allowed=False)
    assert await ended(here, worker) == 3
    assert "give us the right to read it" in log_of(here).strip().splitlines()[-1]
    assert "Traceback" not in log_of(here)
    here.workers.clear()


@pytest.mark.guarantee("Unreadable records")
async def test_a_session_beyond_the_brokers_bounds_ends_the_worker_and_names_the_setting(
    guarded: tuple[Site, Any],
) -> None:
    here, admin = guarded
    allow(admin, "GROUP", here.settings.group, "READ")
    long = with_changes(here, session_timeout_seconds=60.0)
    worker = await long.start()
    assert await ended(long, worker) == 3
    assert "XL3M_SESSION_TIMEOUT_SECONDS=60" in log_of(here)
    assert "Traceback" not in log_of(here)
