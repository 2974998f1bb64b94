"""Connects to a broker once to test access, and turns its errors into advice.

aiokafka's clients give the reason of a failure in their log only.
"""

import ssl
from typing import Any

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.errors import UnreachableError
from stream_app.settings import Settings
from stream_app.settings.variables import variable

FATAL = (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    ClusterAuthorizationFailedError,
    InvalidSessionTimeoutError,
    InvalidGroupIdError,
)
"""Errors that persist until a right or a setting is changed."""

_NAME_MISMATCH = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


async def probe_broker(settings: Settings, options: dict[str, Any], seconds: float) -> None:
    """Connect to one broker and request the cluster's metadata, within `seconds` for each broker.

    options: of `auth.kafka`. Raises UnreachableError with the first broker's reason.
    """
    connect = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    connect["request_timeout_ms"] = round(seconds * 1000)
    reasons: list[Exception] = []
    for host, port, _ in collect_hosts(settings.broker_address, randomize=False):
        try:
            connection = await create_conn(host, port, **connect)
            try:
                reply = await connection.send(MetadataRequest([]))
            finally:
                connection.close()
            # aiokafka does not notice a rejected token; the broker then sends an empty reply.
            if settings.kafka_sasl_mechanism != "OAUTHBEARER" or reply.brokers:
                return
            reasons.append(SaslAuthenticationFailed())
        except (KafkaError, OSError, ValueError) as error:  # ValueError: a wrong proof in SCRAM
            reasons.append(error)
    raise unreachable(settings, reasons[0]) from reasons[0]


def unreachable(settings: Settings, error: Exception) -> UnreachableError:
    """The error with advice. The broker's message is left out: it may contain a token."""
    broker, security = (
        f"the Kafka broker at {settings.broker_address}",
        variable("kafka_security_protocol"),
    )
    match error:
        case ssl.SSLCertVerificationError():
            reason = f"the certificate of {broker} is not trusted {_why_not_trusted(error)}"
        case ssl.SSLError():
            reason = f"no TLS with {broker} ({error.reason}): see {security}"
        case SaslAuthenticationFailed():
            reason = f"{broker} refuses {_who(settings)}"
        case UnsupportedSaslMechanismError():
            mechanism = variable("kafka_sasl_mechanism")
            reason = f"{broker} does not support {settings.kafka_sasl_mechanism}: see {mechanism}"
        case (
            TopicAuthorizationFailedError()
            | GroupAuthorizationFailedError()
            | ClusterAuthorizationFailedError()
        ):
            right = type(error).__name__.partition("Authorization")[0].lower()
            reason = f"{broker} lets us in, but not to this {right}: give us rights on it"
        case KafkaConnectionError() | ConnectionResetError():
            reason = f"{broker} closes the connection: see whether it wants another {security}"
            reason += _or_refuses(settings)
        case _:
            reason = (
                f"no Kafka broker at {settings.broker_address} ({type(error).__name__}): start "
                f"one, or name another with --broker or {variable('broker')}"
            )
    return UnreachableError(reason)


def explain_refusal(settings: Settings, error: Exception) -> str:
    """Advice for a worker that the group or a topic refuses."""
    group = f"the group {settings.group!r} ({variable('group')})"
    match error:
        case GroupAuthorizationFailedError():
            return f"the Kafka broker at {settings.broker_address} {_not_to(group)}"
        case TopicAuthorizationFailedError():
            topics = ", ".join(sorted(_topics_of(error))) or "a topic"
            return f"the Kafka broker at {settings.broker_address} {_not_to(topics)}"
        case InconsistentGroupProtocolError():
            return (
                f"{group} is in use by another kind of program: stop that program, or name another "
                "group"
            )
        case InvalidSessionTimeoutError():
            name, seconds = variable("session_timeout_seconds"), settings.session_timeout_seconds
            return (
                f"the broker rejects {name}={seconds:g}: "
                "set it within its group.min.session.timeout.ms and group.max.session.timeout.ms"
            )
        case InvalidGroupIdError():
            return f"the broker rejects {variable('group')}={settings.group!r}: name another group"
        case _:
            details = f" ({error})" if str(error) else ""
            return f"{group} refuses this worker: {type(error).__name__}{details}"


def _not_to(what: str) -> str:
    return f"lets us in, but not to {what}: give us the right to read it"


def _topics_of(error: Exception) -> set[str]:
    """The names in the error's arguments: each is one name or several."""
    return {
        name for each in error.args for name in ([each] if isinstance(each, str) else each or ())
    }


def _why_not_trusted(error: ssl.SSLCertVerificationError) -> str:
    why = error.verify_message.rstrip(".")
    if error.verify_code in _NAME_MISMATCH:
        return f"({why}): name it in {variable('broker')} as its certificate does"
    name = variable("kafka_ssl_cafile")
    return f"({why}): name the file of the authority that vouches for it in {name}"


def _who(settings: Settings) -> str:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return f"the token: see the file that {variable('kafka_sasl_token_file')} names"
    names = f"{variable('kafka_sasl_username')} and {variable('kafka_sasl_password')}"
    return f"the user {settings.kafka_sasl_username!r} or the password: see {names}"


def _or_refuses(settings: Settings) -> str:
    """Other possible reasons why a broker closes the connection without an error."""
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return f", or refuses {_who(settings)}"
    if settings.kafka_security_protocol == "SSL":
        return f", or {variable('kafka_ssl_certfile')}"
    return ""
