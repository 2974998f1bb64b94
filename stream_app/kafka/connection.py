"""Refusal: tries whether Kafka lets us in, and says what to mend if it does not.

aiokafka's own clients tell the reason to their log alone. Knows what a broker may refuse; not
where certificates, passwords and tokens come from.
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
"""What stays as it is until somebody changes a right or a setting."""

_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


async def probe_broker(settings: Settings, options: dict[str, Any], seconds: float) -> None:
    """Be let in by one broker and told of the cluster, within so many seconds for each.

    options: as of `access.kafka`. Raises UnreachableError with the reason of the first broker.
    """
    how = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    how["request_timeout_ms"] = round(seconds * 1000)
    reasons: list[Exception] = []
    for host, port, _ in collect_hosts(settings.broker_address, randomize=False):
        try:
            door = await create_conn(host, port, **how)
            try:
                seen = await door.send(MetadataRequest([]))
            finally:
                door.close()
            # aiokafka does not see that a token was refused; then the broker tells nothing more.
            if settings.kafka_sasl_mechanism != "OAUTHBEARER" or seen.brokers:
                return
            reasons.append(SaslAuthenticationFailed())
        except (KafkaError, OSError, ValueError) as error:  # ValueError: a false proof in SCRAM
            reasons.append(error)
    raise unreachable(settings, reasons[0]) from reasons[0]


def unreachable(settings: Settings, error: Exception) -> UnreachableError:
    """What to do about it. What the broker says is not repeated: it might repeat a token."""
    broker, security = (
        f"the Kafka broker at {settings.broker_address}",
        variable("kafka_security_protocol"),
    )
    match error:
        case ssl.SSLCertVerificationError():
            said = f"the certificate of {broker} is not trusted {_why_not_trusted(error)}"
        case ssl.SSLError():
            said = f"no TLS with {broker} ({error.reason}): see {security}"
        case SaslAuthenticationFailed():
            said = f"{broker} refuses {_who(settings)}"
        case UnsupportedSaslMechanismError():
            mechanism = variable("kafka_sasl_mechanism")
            said = f"{broker} does not take {settings.kafka_sasl_mechanism}: see {mechanism}"
        case (
            TopicAuthorizationFailedError()
            | GroupAuthorizationFailedError()
            | ClusterAuthorizationFailedError()
        ):
            right = type(error).__name__.partition("Authorization")[0].lower()
            said = f"{broker} lets us in, but not to this {right}: give us rights on it"
        case KafkaConnectionError() | ConnectionResetError():
            said = f"{broker} closes the connection: see whether it wants another {security}"
            said += _or_refuses(settings)
        case _:
            said = (
                f"no Kafka broker at {settings.broker_address} ({type(error).__name__}): start "
                f"one, or name another with --broker or {variable('broker')}"
            )
    return UnreachableError(said)


def explain_refusal(settings: Settings, error: Exception) -> str:
    """What to do when the group, or a topic in it, refuses a worker."""
    group = f"the group {settings.group!r} ({variable('group')})"
    match error:
        case GroupAuthorizationFailedError():
            return f"the Kafka broker at {settings.broker_address} {_not_to(group)}"
        case TopicAuthorizationFailedError():
            topics = ", ".join(sorted(_topics_of(error))) or "a topic"
            return f"the Kafka broker at {settings.broker_address} {_not_to(topics)}"
        case InconsistentGroupProtocolError():
            return (
                f"{group} is in use by a program that is no worker of this kind: end that one, or "
                "name another group"
            )
        case InvalidSessionTimeoutError():
            name, seconds = variable("session_timeout_seconds"), settings.session_timeout_seconds
            return (
                f"the broker takes no {name}={seconds:g}: "
                "set it within its group.min.session.timeout.ms and group.max.session.timeout.ms"
            )
        case InvalidGroupIdError():
            return f"the broker takes no {variable('group')}={settings.group!r}: name another"
        case _:
            said = f" ({error})" if str(error) else ""
            return f"{group} does not take this worker: {type(error).__name__}{said}"


def _not_to(what: str) -> str:
    return f"lets us in, but not to {what}: give us the right to read it"


def _topics_of(error: Exception) -> set[str]:
    """The names in the error, which is given one or several."""
    return {
        name for each in error.args for name in ([each] if isinstance(each, str) else each or ())
    }


def _why_not_trusted(error: ssl.SSLCertVerificationError) -> str:
    why = error.verify_message.rstrip(".")
    if error.verify_code in _OTHER_NAME:
        return f"({why}): name it in {variable('broker')} as its certificate does"
    name = variable("kafka_ssl_cafile")
    return f"({why}): name the file of the authority that vouches for it in {name}"


def _who(settings: Settings) -> str:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return f"the token: see the file that {variable('kafka_sasl_token_file')} names"
    names = f"{variable('kafka_sasl_username')} and {variable('kafka_sasl_password')}"
    return f"the user {settings.kafka_sasl_username!r} or the password: see {names}"


def _or_refuses(settings: Settings) -> str:
    """What else it may not like, when it closes the connection without a word."""
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        return f", or refuses {_who(settings)}"
    if settings.kafka_security_protocol == "SSL":
        return f", or {variable('kafka_ssl_certfile')}"
    return ""
