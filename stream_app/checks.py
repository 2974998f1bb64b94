"""Checks: of settings that have a form of their own, or that go together: names of topics, where
to start, addresses, how to get in.

Each raises SettingsError, which names the variable. Knows the forms; not what is done with them.
"""

import re
import time
from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from stream_app.errors import SettingsError
from stream_app.offset_reset import parse_start
from stream_app.variables import or_file, variable

_TOPIC = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")


def check_topics(settings: Any) -> None:
    """Each can be a topic's name, or is a pattern, and none is two of them."""
    kinds = [f.name for f in fields(settings) if f.name.endswith("_topic")]
    named: dict[str, tuple[str, ...]] = {kind: (getattr(settings, kind),) for kind in kinds}
    named["tokens_topic"] = settings.tokens_topics
    for kind, topics in named.items():
        if not all(map(_TOPIC.fullmatch, topics)):
            several = "; or several with commas" if kind == "tokens_topic" else ""
            raise SettingsError(
                f"{variable(kind)} must be 1 to 249 of a-z, A-Z, 0-9, . _ -{several}"
            )
    names = [name for topics in named.values() for name in topics]
    if len({*names}) < len(names):  # its own dead letters
        raise SettingsError(f"{', '.join(map(variable, kinds))} must differ from each other")
    try:
        _ = settings.tokens_pattern
    except re.error as error:
        raise SettingsError(
            f"{variable('tokens_topic')} begins with ^, so it is a pattern, but none that can be "
            f"used ({error})"
        ) from None


def check_start(start: str) -> None:
    """It is one of the ways to say where to start."""
    try:
        parse_start(start, time.time())
    except (ValueError, OverflowError):
        raise SettingsError(
            f"{variable('start')} must be earliest, latest, a time as 2026-05-01T12:00:00Z, or how "
            "long ago as -30m, -1h, -2d"
        ) from None


def check_kafka(settings: Any) -> None:
    """What is given to get in has to go together: less is no way in, more would do nothing."""
    named = {
        name: getattr(settings, name)
        for name in ("kafka_security_protocol", "kafka_sasl_mechanism")
    }
    how = " and ".join(f"{variable(name)}={value}" for name, value in named.items() if value)
    for name, wanted in _wanted(settings).items():
        given = bool(getattr(settings, name))
        if wanted and not given:
            raise SettingsError(f"{how} needs {variable(name)}{or_file(name)}: set it")
        if given and wanted is False:
            raise SettingsError(
                f"{variable(name)} is of no use with {how}: unset it, or set "
                f"{variable('kafka_security_protocol')} to what the broker wants"
            )


def _wanted(settings: Any) -> dict[str, bool | None]:
    """Of each setting whether it has to be given; None where it may."""
    sasl, tls = (
        settings.kafka_security_protocol.startswith("SASL"),
        settings.kafka_security_protocol.endswith("SSL"),
    )
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


def check_registry(settings: Any) -> None:
    """Who we are to a schema registry is of use only where there is one."""
    url, names = variable("schema_registry"), ("user", "password", "ca")
    given = {name for name in names if getattr(settings, f"schema_registry_{name}")}
    for name in sorted(given) if not settings.schema_registry else ():
        raise SettingsError(f"{variable(f'schema_registry_{name}')} is of no use without {url}")
    if not settings.schema_registry:
        return
    if not is_address(settings.schema_registry, ("http", "https")):
        raise SettingsError(f"{url} must be http:// or https:// and an address")
    if "@" in urlsplit(settings.schema_registry).netloc:  # it would be shown
        user, password = (variable(f"schema_registry_{name}") for name in names[:2])
        raise SettingsError(f"{url} must not hold a password: set {user} and {password}")
    if ("user" in given) != ("password" in given) or ":" in settings.schema_registry_user:
        user, password = (variable(f"schema_registry_{name}") for name in names[:2])
        more = or_file("schema_registry_password")
        raise SettingsError(f"{user}, without a colon, and {password}{more} go together")
    if "ca" in given and not settings.schema_registry.startswith("https"):
        raise SettingsError(f"{variable('schema_registry_ca')} needs an https:// {url}")
    if settings.input_format == "msgpack":
        raise SettingsError(
            f"{url} goes with {variable('input_format')}=lines or json, not msgpack"
        )


_LAYOUT = {
    "lines": {"time_from_line"},
    "cri": set[str](),
    "json": {"records_field", "text", "text_field", "time_field", "key_field"},
    "msgpack": {"time_field", "key_field"},
}
"""Of each form of a value the settings that say what is where in it."""


def check_format(settings: Any) -> None:
    """Where the text is in a map is of use only where there are maps: who forgets the format would
    have all of the JSON for text."""
    for name in sorted(set[str]().union(*_LAYOUT.values()) - _LAYOUT[settings.form]):
        value = getattr(settings, name)
        if value and not value.startswith("header:"):
            forms = ", ".join(form for form, names in _LAYOUT.items() if name in names)
            how = f"{variable('input_format')}={settings.input_format}"
            raise SettingsError(f"{variable(name)} is of no use with {how}; it goes with {forms}")


def is_address(address: str, schemes: tuple[str, ...]) -> bool:
    """Whether it is a URL of one of the schemes, with a host or, of a socket, a path."""
    try:
        parts = urlsplit(address)
        if "kafka" in schemes:  # there may be several, but nobody's password, which would be shown
            hosts = [urlsplit(f"//{host}") for host in parts.netloc.split(",")]
            named = all(host.hostname and (host.port or 1) for host in hosts)
            return parts.scheme in schemes and named and "@" not in parts.netloc
        _ = parts.port  # what is none may be part of a password that is not percent-encoded
    except ValueError:
        return False
    return parts.scheme in schemes and bool(parts.netloc or (parts.scheme == "unix" and parts.path))
