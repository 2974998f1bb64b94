"""Authentication for Kafka: TLS and SASL options in the form that each client takes.

Certificates, passwords and tokens pass through this module only.
"""

import asyncio
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiokafka.abc import AbstractTokenProvider

from stream_app.errors import SettingsError
from stream_app.kafka import log_filter
from stream_app.settings import Settings
from stream_app.settings.variables import read_private, variable

if TYPE_CHECKING:
    from faust.auth import Credentials


def kafka(settings: Settings) -> dict[str, Any]:
    """Options of every aiokafka client: the broker's address and authentication.

    Raises SettingsError if a file they need cannot be used.
    """
    log_filter.install()
    options: dict[str, Any] = {
        "bootstrap_servers": settings.broker_address,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        options["ssl_context"] = _tls(settings)
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = _token(settings)
    elif settings.kafka_sasl_mechanism:
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password.get_secret_value()
    if settings.kafka_sasl_mechanism:
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
    return options


def faust_credentials(settings: Settings) -> "Credentials | None":
    """The same for a Faust app; None without authentication."""
    from faust.auth import OAuthCredentials, SASLCredentials, SSLCredentials

    options = kafka(settings)
    context = options.get("ssl_context")
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        provider = options["sasl_oauth_token_provider"]
        return OAuthCredentials(oauth_cb=provider, ssl_context=context)
    if settings.kafka_sasl_mechanism:
        return SASLCredentials(
            username=settings.kafka_sasl_username,
            password=settings.kafka_sasl_password.get_secret_value(),
            ssl_context=context,
            mechanism=settings.kafka_sasl_mechanism,
        )
    return SSLCredentials(context) if context else None


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token in a file that another program renews: it is read for each connection."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    async def token(self) -> str:
        """Called by aiokafka, which retries after an OSError."""
        return await asyncio.to_thread(self.read)

    def read(self) -> str:
        """The token. Raises OSError without the path."""
        try:
            token = read_private(self.path, "ascii").strip()
        except OSError as error:
            raise OSError(f"the file of {variable('kafka_sasl_token_file')}: {error}") from None
        if not token:
            raise OSError(f"the file of {variable('kafka_sasl_token_file')}: it is empty")
        return token


def _token(settings: Settings) -> TokenFile:
    provider = TokenFile(settings.kafka_sasl_token_file)
    try:
        provider.read()
    except OSError as error:
        raise SettingsError(f"no token: {error}") from None
    return provider


def _tls(settings: Settings) -> ssl.SSLContext:
    """A context that checks the broker's certificate and name."""
    name = "kafka_ssl_cafile"
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ssl_cafile or None)
        name = "kafka_ssl_certfile"
        if settings.kafka_ssl_certfile:
            key = settings.kafka_ssl_keyfile or None
            # Without a password OpenSSL would ask for one on the terminal.
            context.load_cert_chain(settings.kafka_ssl_certfile, key, password="")
    except OSError as error:  # includes ssl.SSLError
        why = getattr(error, "reason", None) or error.strerror
        keys = f", its key (here or in {variable('kafka_ssl_keyfile')}) not encrypted"
        raise SettingsError(
            f"{variable(name)} must name a PEM file that can be read"
            f"{keys if name == 'kafka_ssl_certfile' else ''} ({why})"
        ) from None
    return context
