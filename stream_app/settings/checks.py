"""Checks that a field's type cannot express: the form of one value, and settings that must agree.

Functions of one value return it or raise ValueError ("must be ..."); the model adds the variable's
name. Functions of all settings take a `Settings` and raise SettingsError, which names variables.
"""

import re
import time
from typing import Any
from urllib.parse import urlsplit

from stream_app.errors import SettingsError
from stream_app.settings.offset_reset import parse_start
from stream_app.settings.variables import variable, variable_or_file
from xl3m_core.records import record_start as parse_record_start

PREFIX_LENGTH = 64

_TOPIC = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)*")
_RESERVED = re.compile(r"[0-9]+|schema|query|question|answer|update")
"""Names of keys and channels continue with these after the prefix: with such a part, the prefix of
one group could produce the names of another."""

# -- one value -----------------------------------------------------------------------------------


def kafka_address(url: str) -> str:
    """`kafka://host:port`, several with commas; no password, because it would be shown."""
    try:
        parts = urlsplit(url)
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.split(",")]
        is_valid = all(host.hostname and (host.port or 1) for host in hosts)
    except ValueError:
        is_valid = False
    if not is_valid or parts.scheme != "kafka" or "@" in parts.netloc:
        raise ValueError("must be kafka:// and an address")
    return url


def redis_address(url: str) -> str:
    """`redis://host`, `rediss://host`, or `unix:///path`."""
    if not _is_url(url, ("redis", "rediss", "unix")):
        raise ValueError("must be redis:// and an address")
    return url


def _is_url(url: str, schemes: tuple[str, ...]) -> bool:
    """Whether it has one of the schemes, and a host or, for a socket, a path."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # an invalid one may be part of a password that is not percent-encoded
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.netloc or (parts.scheme == "unix" and parts.path))


def redis_prefix(prefix: str) -> str:
    """A prefix with which no two groups have a name in common."""
    if len(prefix) > PREFIX_LENGTH or not _PREFIX.fullmatch(prefix):
        raise ValueError(f"must be 1 to {PREFIX_LENGTH} of a-z, A-Z, 0-9, . _ - and : between them")
    if reserved := [part for part in prefix.split(":")[1:] if _RESERVED.fullmatch(part)]:
        raise ValueError(f"must not have {reserved[0]!r} after a colon: names of keys begin so")
    return prefix


def start(value: str) -> str:
    """A form that `parse_start` reads."""
    try:
        parse_start(value, time.time())
    except (ValueError, OverflowError):
        raise ValueError(
            "must be earliest, latest, a time such as 2026-05-01T12:00:00Z, or a duration before "
            "now such as -30m, -1h, -2d"
        ) from None
    return value


def record_start(pattern: str) -> str:
    """`auto`, `line` or a regular expression."""
    try:
        parse_record_start(pattern)
    except ValueError as error:
        raise ValueError(f"cannot be used: {error}") from None
    return pattern


# -- settings that must agree --------------------------------------------------------------------


def check_topics(settings: Any) -> None:
    """Valid names of topics (or a pattern), all different."""
    fields = [name for name in type(settings).model_fields if name.endswith("_topic")]
    topics: dict[str, tuple[str, ...]] = {name: (getattr(settings, name),) for name in fields}
    topics["tokens_topic"] = settings.tokens_topics
    for field, names in topics.items():
        if not all(map(_TOPIC.fullmatch, names)):
            several = "; or several with commas" if field == "tokens_topic" else ""
            raise SettingsError(
                f"{variable(field)} must be 1 to 249 of a-z, A-Z, 0-9, . _ -{several}"
            )
    names = tuple(name for group in topics.values() for name in group)
    if len({*names}) < len(names):  # a worker would read its own dead letters
        raise SettingsError(f"{', '.join(map(variable, fields))} must differ from each other")
    try:
        _ = settings.tokens_pattern
    except re.error as error:
        raise SettingsError(
            f"{variable('tokens_topic')} begins with ^, so it must be a regular expression, and it "
            f"is not a valid one ({error})"
        ) from None


def check_kafka_authentication(settings: Any) -> None:
    """All that the security protocol and the mechanism need, and nothing they do not use."""
    chosen = {
        name: getattr(settings, name)
        for name in ("kafka_security_protocol", "kafka_sasl_mechanism")
    }
    how = " and ".join(f"{variable(name)}={value}" for name, value in chosen.items() if value)
    for name, needed in _needed(settings).items():
        is_set = bool(getattr(settings, name))
        if needed and not is_set:
            raise SettingsError(f"{how} needs {variable_or_file(name)}: set it")
        if is_set and needed is False:
            raise SettingsError(
                f"{variable(name)} has no effect with {how}: unset it, or set "
                f"{variable('kafka_security_protocol')} to the protocol of the broker's listener"
            )


def _needed(settings: Any) -> dict[str, bool | None]:
    """For each setting whether it is needed; None if it is optional."""
    protocol = settings.kafka_security_protocol
    sasl, tls = protocol.startswith("SASL"), protocol.endswith("SSL")
    token = settings.kafka_sasl_mechanism == "OAUTHBEARER"
    return {
        "kafka_sasl_mechanism": sasl,
        "kafka_sasl_username": sasl and not token,
        "kafka_sasl_password": sasl and not token,
        "kafka_sasl_token_file": sasl and token,
        "kafka_ssl_cafile": None if tls else False,
        "kafka_ssl_keyfile": None if tls else False,
        "kafka_ssl_certfile": (bool(settings.kafka_ssl_keyfile) or None) if tls else False,
    }


def check_schema_registry(settings: Any) -> None:
    """A URL without a password; its user, password and CA only with a URL."""
    url, parts = variable("schema_registry"), ("user", "password", "ca")
    names = {part: variable(f"schema_registry_{part}") for part in parts}
    given = {part for part in parts if bool(getattr(settings, f"schema_registry_{part}"))}
    if not settings.schema_registry:
        if given:
            raise SettingsError(f"{names[min(given)]} has no effect without {url}")
        return
    if not _is_url(settings.schema_registry, ("http", "https")):
        raise SettingsError(f"{url} must be http:// or https:// and an address")
    if "@" in urlsplit(settings.schema_registry).netloc:  # it would be shown
        raise SettingsError(
            f"{url} must not hold a password: set {names['user']} and {names['password']}"
        )
    if ("user" in given) != ("password" in given) or ":" in settings.schema_registry_user:
        password = variable_or_file("schema_registry_password")
        raise SettingsError(f"{names['user']}, without a colon, and {password} go together")
    if "ca" in given and not settings.schema_registry.startswith("https"):
        raise SettingsError(f"{names['ca']} needs an https:// {url}")
    if settings.form == "msgpack":
        raise SettingsError(
            f"{url} goes with {variable('input_format')}=lines or json, not msgpack"
        )


_USED_BY = {
    "lines": {"time_from_line"},
    "cri": set[str](),
    "json": {"records_field", "text", "text_field", "time_field", "key_field"},
    "msgpack": {"time_field", "key_field"},
}
"""For each form of an event the settings that describe its content."""


def check_format(settings: Any) -> None:
    """No field paths without maps: otherwise a forgotten format would make the JSON the text."""
    for name in sorted(set[str]().union(*_USED_BY.values()) - _USED_BY[settings.form]):
        value = getattr(settings, name)
        if value and not value.startswith("header:"):
            forms = ", ".join(form for form, names in _USED_BY.items() if name in names)
            how = f"{variable('input_format')}={settings.input_format}"
            raise SettingsError(f"{variable(name)} has no effect with {how}; it goes with {forms}")
