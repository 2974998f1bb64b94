"""Access: how to get in to Kafka, in the form that each client wants, and why it was refused.

Certificates, passwords and tokens go through here and nowhere else. Knows TLS and SASL; not
what is read or written once inside.
"""

import asyncio
import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka.abc import AbstractTokenProvider
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from stream_app.errors import SettingsError, UnreachableError
from stream_app.settings import Settings, variable

if TYPE_CHECKING:
    from faust.auth import Credentials

_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


def kafka(settings: Settings) -> dict[str, Any]:
    """What every aiokafka client is given: where the broker is and how to get in.

    Raises SettingsError when a file that it needs cannot be used.
    """
    logging.getLogger("aiokafka.conn").addFilter(_without_requests)
    options: dict[str, Any] = {
        "bootstrap_servers": settings.broker_address,
        "security_protocol": settings.kafka_security,
    }
    if settings.kafka_security.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if settings.kafka_mechanism == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = _token(settings)
    elif settings.kafka_mechanism:
        options["sasl_plain_username"] = settings.kafka_user
        options["sasl_plain_password"] = settings.kafka_password
    if settings.kafka_mechanism:
        options["sasl_mechanism"] = settings.kafka_mechanism
    return options


def faust_credentials(settings: Settings) -> "Credentials | None":
    """The same for a Faust app; None if anybody may come in."""
    from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

    options = kafka(settings)
    context = options.get("ssl_context")
    if settings.kafka_mechanism == "OAUTHBEARER":
        provider = options["sasl_oauth_token_provider"]
        return OAuthCredentials(oauth_cb=provider, ssl_context=context)
    if settings.kafka_mechanism:
        return SASLCredentials(
            username=settings.kafka_user,
            password=settings.kafka_password,
            ssl_context=context,
            mechanism=settings.kafka_mechanism,
        )
    return SSLCredentials(context) if context else None


async def knock(settings: Settings, options: dict[str, Any], seconds: float) -> None:
    """Be let in by one broker and told of the cluster, within so many seconds for each.

    aiokafka's own clients tell the reason why they were not to their log alone. Raises
    UnreachableError with the reason of the first broker.
    """
    options = kafka(settings)
    reasons: list[Exception] = []
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers"), randomize=False):
        try:
            door = await create_conn(
                host, port, request_timeout_ms=round(seconds * 1000), **options
            )
            try:
                seen = await door.send(MetadataRequest([]))
            finally:
                door.close()
            # aiokafka does not see that a token was refused; then the broker tells nothing more.
            if settings.kafka_mechanism != "OAUTHBEARER" or seen.brokers:
                return
            reasons.append(SaslAuthenticationFailed())
        except (KafkaError, OSError, ValueError) as error:  # ValueError: a false proof in SCRAM
            reasons.append(error)
    raise unreachable(settings, reasons[0]) from reasons[0]


def unreachable(settings: Settings, error: Exception) -> UnreachableError:
    """What to do about it. What the broker says is not repeated: it might repeat a token."""
    at, security = settings.broker_address, variable("kafka_security")
    match error:
        case ssl.SSLCertVerificationError():
            why = error.verify_message.rstrip(".")
            mend = (
                f"name it in {variable('broker')} as its certificate does"
                if error.verify_code in _OTHER_NAME
                else f"name the file of the authority that vouches for it in {variable('kafka_ca')}"
            )
            said = f"the certificate of the Kafka broker at {at} is not trusted ({why}): {mend}"
        case ssl.SSLError():
            said = f"no TLS with the Kafka broker at {at} ({error.reason}): see {security}"
        case SaslAuthenticationFailed():
            said = f"the Kafka broker at {at} refuses {_who(settings)}"
        case UnsupportedSaslMechanismError():
            said = (
                f"the Kafka broker at {at} does not take {settings.kafka_mechanism}: see "
                f"{variable('kafka_mechanism')}"
            )
        case KafkaConnectionError() | ConnectionResetError():
            said = (
                f"the Kafka broker at {at} closes the connection: see whether it wants another "
                f"{security}{_or_refuses(settings)}"
            )
        case _:
            said = (
                f"no Kafka broker at {at} ({type(error).__name__}): start one, or name another "
                f"with --broker or {variable('broker')}"
            )
    return UnreachableError(said)


def _who(settings: Settings) -> str:
    if settings.kafka_mechanism == "OAUTHBEARER":
        return f"the token: see the file that {variable('kafka_token_file')} names"
    names = f"{variable('kafka_user')} and {variable('kafka_password')}"
    return f"the user {settings.kafka_user!r} or the password: see {names}"


def _or_refuses(settings: Settings) -> str:
    """What else it may not like, when it closes the connection without a word."""
    if settings.kafka_mechanism == "OAUTHBEARER":
        return f", or refuses {_who(settings)}"
    if settings.kafka_security == "SSL":
        return f", or {variable('kafka_certificate')}"
    return ""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token that somebody else renews: read whenever a connection is made."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    async def token(self) -> str:
        """Called by aiokafka, which tries again after an OSError."""
        return await asyncio.to_thread(self.read)

    def read(self) -> str:
        """The token. Raises OSError, which does not show the path: it might be the token."""
        try:
            token = self.path.read_text("ascii").strip()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
            raise OSError(f"the file of {variable('kafka_token_file')}: {why}") from None
        if not token:
            raise OSError(f"the file of {variable('kafka_token_file')}: it is empty")
        return token


def _token(settings: Settings) -> TokenFile:
    provider = TokenFile(settings.kafka_token_file)
    try:
        provider.read()
    except OSError as error:
        raise SettingsError(f"no token: {error}") from None
    return provider


def _tls(settings: Settings) -> ssl.SSLContext:
    """A context that checks the broker's certificate and name."""
    name = "kafka_ca"
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca or None)
        name = "kafka_certificate"
        if settings.kafka_certificate:
            key = settings.kafka_key or None
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(settings.kafka_certificate, key, password="")
    except OSError as error:  # of ssl, too
        why = getattr(error, "reason", None) or error.strerror
        keys = f", its key (here or in {variable('kafka_key')}) not encrypted"
        raise SettingsError(
            f"{variable(name)} must name a PEM file that can be read"
            f"{keys if name == 'kafka_certificate' else ''} ({why})"
        ) from None
    return context


def _without_requests(record: logging.LogRecord) -> bool:
    """At debug level aiokafka writes down each request, those with passwords and tokens too."""
    return record.levelno > logging.DEBUG
