"""Group check: tests at start-up whether this worker may join its group and use its topics.

Nothing is joined, read or written.
"""

from collections.abc import Awaitable, Iterable
from typing import TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import InconsistentGroupProtocolError, KafkaError, NoError, for_code
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.errors import UnreachableError
from stream_app.kafka.connection import FATAL, explain_refusal
from stream_app.kafka.topics import open_admin, topic_names
from stream_app.settings import Settings

T = TypeVar("T")

_PROTOCOL_TYPES = ("", "consumer")
_ASSIGNORS = ("", "roundrobin")
"""Of groups that we can join; empty while a group has no members."""


async def check_group(settings: Settings) -> None:
    """Raise UnreachableError if the broker denies us the group or a topic."""
    async with open_admin(settings) as admin:
        await _explained(settings, _check(settings, admin))


async def group_state(settings: Settings) -> str:
    """A description of the group's state. Raises UnreachableError if we may not join it now."""
    async with open_admin(settings) as admin:
        await _explained(settings, _check(settings, admin))
        return await _explained(settings, _described(settings, admin))


async def _explained(settings: Settings, request: Awaitable[T]) -> T:
    try:
        return await request
    except (*FATAL, InconsistentGroupProtocolError) as error:
        raise UnreachableError(explain_refusal(settings, error)) from error


async def _check(settings: Settings, admin: AIOKafkaAdminClient) -> None:
    """Send a heartbeat of an unknown member. The broker reports it as such only to a client that
    may use the group; to others it reports the missing right."""
    try:
        node = await admin.find_coordinator(settings.group)
        reply = await admin._send_request(HeartbeatRequest(settings.group, -1, ""), node)
        error = for_code(reply.error_code)
        if error in FATAL:
            raise error(settings.group)
    except FATAL:
        raise
    except KafkaError:
        pass  # the state is unknown now; joining will show it
    await _check_topics(admin, topic_names(settings))


async def _check_topics(admin: AIOKafkaAdminClient, names: Iterable[str]) -> None:
    reply = await admin._send_request(MetadataRequest([*names], allow_auto_topic_creation=False))
    denied = [topic[1] for topic in reply.topics if for_code(topic[0]) in FATAL]
    if denied:
        raise for_code(29)(denied)


async def _described(settings: Settings, admin: AIOKafkaAdminClient) -> str:
    try:
        [reply] = await admin.describe_consumer_groups([settings.group])
        code, _, state, protocol_type, protocol, members, *_ = reply.groups[0]
    except (KafkaError, ValueError):
        return "can be joined"  # not every broker can describe groups
    if for_code(code) is NoError and members:
        if protocol_type not in _PROTOCOL_TYPES or protocol not in _ASSIGNORS:
            raise InconsistentGroupProtocolError(settings.group)
        return f"can be joined; members: {len(members)}, {state}"
    return "can be joined"
