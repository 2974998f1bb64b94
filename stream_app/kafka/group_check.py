"""Group check: asks whether Kafka lets this worker into its group and at its topics, first.

Nothing is joined, read or written. Knows what can be asked of a group; not its members.
"""

from collections.abc import Iterable
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import InconsistentGroupProtocolError, KafkaError, NoError, for_code
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.errors import UnreachableError
from stream_app.kafka.connection import FATAL, explain_refusal
from stream_app.kafka.topics import open_admin, topic_names
from stream_app.settings import Settings

_OURS = ("", "consumer")
_SHARING = ("", "roundrobin")
"""Protocols of a group, and how it shares partitions: none while nobody is in it."""


async def check_group(settings: Settings) -> None:
    """Raise UnreachableError if the broker does not let us into the group, or at a topic."""
    async with open_admin(settings) as admin:
        await _look(settings, _ask(settings, admin))


async def group_state(settings: Settings) -> str:
    """How the group is, if we may join it now. Raises UnreachableError if not."""
    async with open_admin(settings) as admin:
        await _look(settings, _ask(settings, admin))
        return str(await _look(settings, _described(settings, admin)))


async def _look(settings: Settings, asking: Any) -> Any:
    try:
        return await asking
    except (*FATAL, InconsistentGroupProtocolError) as error:
        raise UnreachableError(explain_refusal(settings, error)) from error


async def _ask(settings: Settings, admin: AIOKafkaAdminClient) -> None:
    """A heartbeat of nobody is refused as such, but only to who may read for the group."""
    try:
        node = await admin.find_coordinator(settings.group)
        seen = await admin._send_request(HeartbeatRequest(settings.group, -1, ""), node)
        refused = for_code(seen.error_code)
        if refused in FATAL:
            raise refused(settings.group)
    except FATAL:
        raise
    except KafkaError:
        pass  # it does not say now; joining will
    await _ask_for_topics(admin, topic_names(settings))


async def _ask_for_topics(admin: AIOKafkaAdminClient, names: Iterable[str]) -> None:
    seen = await admin._send_request(MetadataRequest([*names], allow_auto_topic_creation=False))
    denied = [topic[1] for topic in seen.topics if for_code(topic[0]) in FATAL]
    if denied:
        raise for_code(29)(denied)


async def _described(settings: Settings, admin: AIOKafkaAdminClient) -> str:
    try:
        [seen] = await admin.describe_consumer_groups([settings.group])
        code, _, state, protocol_type, protocol, members, *_ = seen.groups[0]
    except (KafkaError, ValueError):
        return "can be joined"  # not every broker describes groups
    if for_code(code) is NoError and members:
        if protocol_type not in _OURS or protocol not in _SHARING:
            raise InconsistentGroupProtocolError(settings.group)
        return f"can be joined; members: {len(members)}, {state}"
    return "can be joined"
