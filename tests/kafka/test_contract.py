"""The contract with Faust, mode and aiokafka: every private or undocumented name that
`stream_app/kafka/` uses, with its signature. An upgrade that changes one fails here by name.

After an upgrade: compare the library's new code with the module that the message names, adapt the
module, then change the signature here.
"""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stream_app.kafka
from tests.kafka.contract import describe, owner
from tests.support.layout import KAFKA_LIBRARIES, library_names, private_uses

FOLDER = Path(next(iter(stream_app.kafka.__path__)))
TREES = {path.stem: ast.parse(path.read_text()) for path in FOLDER.glob("*.py")}

# Module or class of a library -> name -> its signature without types.
CONTRACT = {
    "faust.app.base.App": {
        "_consumer_wait_empty": "async (self, consumer, logger)",
        "_create_directories": "(self)",
        "_new_consumer": "(self)",
        "_on_partitions_revoked": "async (self, revoked)",
        "consumer_generation_id": "attribute",
        "flow_control": "attribute",
        "on_rebalance_complete": "attribute",
        "on_stop": "async (self)",
        "rebalancing": "attribute",
        "rebalancing_count": "attribute",
    },
    "faust.transport.drivers.aiokafka.Consumer": {
        "_acked": "attribute",
        "_acked_index": "attribute",
        "_add_gap": "async (self, tp, offset_from, offset_to)",
        "_buffered_partitions": "attribute",
        "_commit": "async (self, offsets)",
        "_committed_offset": "attribute",
        "_gap": "attribute",
        "_get_active_partitions": "(self)",
        "_getmany": "async (self, active_partitions, timeout)",
        "_new_consumer_thread": "(self)",
        "_new_offset": "(self, tp)",
        "_read_offset": "attribute",
        "_thread": "attribute",
        "_to_message": "(self, tp, record)",
        "_wait_next_records": "async (self, timeout)",
        "assignment": "(self)",
        "earliest_offsets": "async (self, *partitions)",
        "flow_active": "attribute",
        "highwaters": "async (self, *partitions)",
        "on_buffer_drop": "(self, tp)",
        "on_buffer_full": "(self, tp)",
        "on_partitions_assigned": "async (self, assigned, generation_id=0)",
        "perform_seek": "async (self)",
        "resume_flow": "(self)",
        "seek_to_committed": "async (self)",
        "seek_wait": "async (self, partitions)",
        "stop_flow": "(self)",
        "unacked": "property",
    },
    "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread": {
        "_create_worker_consumer": "(self, transport)",
        "_ensure_consumer": "(self)",
        "_fetch_records": (
            "async (self, consumer, active_partitions, timeout=None, max_records=None)"
        ),
        "_highwaters": "async (self, partitions)",
        "call_thread": "async (self, fun, *args, **kwargs)",
        "crash": "async (self, exc)",
        "on_thread_stop": "async (self)",
        "verify_event_path": "(self, now, tp)",
    },
    "faust.transport.conductor.Conductor": {
        "_update_indices": "async (self)",
    },
    "mode.utils.queues.FlowControlEvent": {
        "manage_queue": "(self, queue)",
        "suspend": "(self)",
    },
    "mode.worker.Worker": {
        "_on_sigterm": "(self)",
        "_stop_on_signal": "async (self, signal)",
        "install_signal_handlers": "(self)",
        "on_setup_root_logger": "(self, logger, level)",
    },
    "faust.worker.Worker": {
        "on_start": "async (self)",
    },
    "faust.streams": {
        "_CStreamIterator": "class",
    },
    "aiokafka.consumer.consumer.AIOKafkaConsumer": {
        "_client": "attribute",
        "_coordinator": "attribute",
        "_fetcher": "attribute",
        "_isolation_level": "attribute",
        "_request_timeout_ms": "attribute",
    },
    "aiokafka.consumer.group_coordinator.GroupCoordinator": {
        "_coordination_task": "attribute",
        "check_errors": "(self)",
        "request_rejoin": "(self)",
    },
    "aiokafka.consumer.fetcher.Fetcher": {
        "_default_reset_strategy": "attribute",
        "_isolation_level": "attribute",
        "_proc_fetch_request": "async (self, assignment, node_id, request)",
        "_set_error": "(self, tp, error)",
        "_subscriptions": "attribute",
        "beginning_offsets": "async (self, partitions, timeout_ms)",
        "end_offsets": "async (self, partitions, timeout_ms)",
        "fetched_records": "async (self, partitions, timeout=0, max_records=None)",
    },
    "aiokafka.consumer.fetcher.PartitionRecords": {
        "__init__": (
            "(self, tp, records, aborted_transactions, fetch_offset, key_deserializer, "
            "value_deserializer, check_crcs, isolation_level)"
        ),
        "_aborted_producers": "attribute",
        "_consume_aborted_up_to": "(self, batch_offset)",
        "_consumer_record": "(self, tp, record)",
        "_contains_abort_marker": "(self, next_batch)",
        "_isolation_level": "attribute",
        "_records": "attribute",
        "_records_iterator": "attribute",
        "_tp": "attribute",
        "_unpack_records": "(self)",
        "next_fetch_offset": "attribute",
    },
    "aiokafka.consumer.fetcher.FetchResult": {
        "__init__": "(self, tp, *, assignment, partition_records, backoff)",
        "_partition_records": "attribute",
        "_topic_partition": "attribute",
        "_update_position": "(self)",
        "check_assignment": "(self, tp)",
        "getall": "(self, max_records=None)",
        "has_more": "(self)",
    },
    "aiokafka.consumer.subscription_state.TopicPartitionState": {
        "await_reset": "(self, strategy)",
        "has_valid_position": "property",
        "highwater": "attribute",
        "pause": "(self)",
        "paused": "property",
        "position": "property",
        "resume": "(self)",
        "seek": "(self, position)",
    },
    "aiokafka.consumer.subscription_state.Assignment": {
        "state_value": "(self, tp)",
        "tps": "property",
    },
    "aiokafka.producer.producer.AIOKafkaProducer": {
        "_message_accumulator": "attribute",
        "_sender": "attribute",
        "client": "attribute",
    },
    "aiokafka.producer.message_accumulator.MessageAccumulator": {
        "_batch_ttl": "attribute",
    },
    "aiokafka.producer.sender.Sender": {
        "close": "async (self)",
    },
    "aiokafka.admin.client.AIOKafkaAdminClient": {
        "_send_request": "async (self, request, node_id=None)",
        "find_coordinator": "async (self, group_id, coordinator_type=0)",
    },
    "aiokafka.client.AIOKafkaClient": {
        "cluster": "attribute",
        "force_metadata_update": "(self)",
        "get_random_node": "(self)",
        "send": "async (self, node_id, request, *, group=<ConnectionGroup.DEFAULT: 0>)",
    },
    "aiokafka.cluster.ClusterMetadata": {
        "add_listener": "(self, listener)",
        "partitions_for_topic": "(self, topic)",
    },
    "aiokafka.protocol.api.Request": {
        "API_KEY": "attribute",
        "build": "(self, request_struct_class)",
    },
    "aiokafka.protocol.api.RequestStruct": {
        "FLEXIBLE_VERSION": "attribute",
        "SCHEMA": "attribute",
    },
    "aiokafka.protocol.api.Response": {
        "API_KEY": "property",
        "API_VERSION": "property",
        "SCHEMA": "attribute",
    },
    "aiokafka.conn": {
        "collect_hosts": "(hosts, randomize=True)",
        "create_conn": (
            "async (host, port, *, client_id='aiokafka', request_timeout_ms=40000, "
            "ssl_context=None, security_protocol='PLAINTEXT', max_idle_ms=None, on_close=None, "
            "sasl_mechanism=None, sasl_plain_username=None, sasl_plain_password=None, "
            "sasl_kerberos_service_name='kafka', sasl_kerberos_domain_name=None, "
            "sasl_oauth_token_provider=None)"
        ),
    },
    "aiokafka.conn.AIOKafkaConnection": {
        "close": "(self, reason=None, exc=None)",
        "send": "(self, request, expect_response=True)",
    },
    "aiokafka.protocol.metadata.MetadataRequest": {
        "__init__": "(self, topics=None, allow_auto_topic_creation=None)",
    },
    "aiokafka.protocol.group.HeartbeatRequest": {
        "__init__": "(self, group, generation_id, member_id)",
    },
    "faust.tables.recovery": {
        "RebalanceAgain": "class",
    },
    "mode.services.Service": {
        "add_future": "(self, coro)",
    },
    "aiokafka.abc.AbstractTokenProvider": {
        "token": "async (self)",
    },
    "aiokafka.record.default_records": {
        "DefaultRecordBatch": "class",
    },
    "aiokafka.record.legacy_records": {
        "LegacyRecordBatch": "class",
    },
}
NAMES = {name for names in CONTRACT.values() for name in names}
GENERATED = {"logger", "_abc_impl", "_tasks"}
"""Names that mode and abc give each class of their own."""
CASES = [(path, name) for path, names in CONTRACT.items() for name in names]


@pytest.mark.parametrize(("path", "name"), CASES, ids=[f"{path}.{name}" for path, name in CASES])
def test_the_library_still_has_the_name_with_this_signature(path: str, name: str) -> None:
    assert fault(path, name, CONTRACT[path][name]) == ""


@pytest.mark.parametrize(
    ("name", "signature", "found"),
    [
        ("_getmany", "async (self, partitions)", "async (self, active_partitions, timeout)"),
        ("_add_gap", "(self, tp, offset_from, offset_to)", "async (self, tp, offset_from"),
        ("_no_such_name", "(self)", "missing"),
    ],
)
def test_a_changed_name_is_reported_with_the_module_that_uses_it(
    name: str, signature: str, found: str
) -> None:
    message = fault("faust.transport.drivers.aiokafka.Consumer", name, signature)
    assert found in message and signature in message
    assert "consumer.py" in message or name == "_no_such_name"


@pytest.mark.parametrize("module", sorted(TREES))
def test_every_private_name_in_use_is_in_the_contract(module: str) -> None:
    assert private_uses(TREES[module], library_names()) <= NAMES


@pytest.mark.parametrize("module", sorted(TREES))
def test_every_override_of_a_library_s_name_is_in_the_contract(module: str) -> None:
    """Also a new name of ours that happens to be one of the library's."""
    for ours in classes(module):
        assert set(overrides(ours)) <= NAMES, ours


def test_the_contract_holds_no_name_that_nothing_uses() -> None:
    # Some are used through a Protocol of a package above.
    source = "".join(path.read_text() for path in FOLDER.parent.rglob("*.py"))
    assert not [name for name in NAMES if name != "__init__" and name not in source]


def fault(path: str, name: str, expected: str) -> str:
    """What is wrong with a name; empty if nothing is."""
    found = describe(owner(path), name)
    if found == expected:
        return ""
    users = ", ".join(f"stream_app/kafka/{module}.py" for module in users_of(name))
    return f"{path}.{name} was {expected!r} and is {found!r}; it is used by {users or 'no module'}"


def users_of(name: str) -> list[str]:
    """The modules whose code has the name."""
    return sorted(
        module
        for module, tree in TREES.items()
        if any(name in vars(node).values() for node in ast.walk(tree))
    )


def classes(module: str) -> Iterator[Any]:
    """The classes that a module of ours defines."""
    loaded = importlib.import_module(f"stream_app.kafka.{module}".removesuffix(".__init__"))
    for found in vars(loaded).values():
        if inspect.isclass(found) and found.__module__ == loaded.__name__:
            yield found


def overrides(ours: Any) -> Iterator[str]:
    """Names of a class that a library's class among its bases has as well."""
    bases = [base for base in ours.__mro__ if base.__module__.split(".")[0] in KAFKA_LIBRARIES]
    for name in vars(ours):
        is_ours = name.startswith("__") or name in GENERATED
        if not is_ours and any(name in vars(base) for base in bases):
            yield name
