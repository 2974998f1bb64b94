"""Variables: a setting's name and text in the environment, secrets in files, and typing errors.

Knows no setting but the secret ones, and does not read the environment itself.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stream_app.errors import SettingsError

SECRETS = ("redis", "kafka_sasl_password", "schema_registry_password")
"""Settings that may lie in a file, named by their variable and `_FILE`."""


PREFIX = "XL3M_"
ELSEWHERE = ("XL3M_LOGS", "XL3M_REQUIRE_KAFKA", "XL3M_TEST_BROKER")
"""Variables that docker-compose.yml and the tests read."""
_ALIKE = 0.6

# What Kubernetes tells every container of a service that is called xl3m, or xl3m-worker.
_OF_KUBERNETES = re.compile(
    r"XL3M_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)


def unknown(env: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """A line for each variable that is named as settings are and is none; names: of the settings.
    What a variable holds may be a secret and is not said."""
    known = {variable(name) for name in names} | {f"{variable(name)}_FILE" for name in SECRETS}
    odd = [name for name in env if name.upper().startswith(PREFIX) and name not in known]
    return [
        _unknown(name, known)
        for name in sorted(odd)
        if name not in ELSEWHERE and not _is_of_kubernetes(name, env[name])
    ]


def _unknown(name: str, known: Iterable[str]) -> str:
    plain = {each.removeprefix(PREFIX): each for each in known}
    like = difflib.get_close_matches(name.upper().removeprefix(PREFIX), plain, 1, _ALIKE)
    meant = f": {plain[like[0]]}?" if like else "; the README lists them"
    return f"{name} is not a setting{meant}"


def _is_of_kubernetes(name: str, value: str) -> bool:
    is_link = name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    return is_link or bool(_OF_KUBERNETES.fullmatch(name))


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"XL3M_{name.upper()}"


def or_file(name: str) -> str:
    """What a message adds to the name of a setting that a file may hold."""
    return f" (or {variable(name)}_FILE)" if name in SECRETS else ""


def with_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """The environment, and in it the secrets whose files it names."""
    read = dict(env)
    for name in map(variable, SECRETS):
        if not (path := env.get(f"{name}_FILE")):
            continue
        if env.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set: unset one of them")
        read[name] = _secret(f"{name}_FILE", path)
    return read


def _secret(name: str, path: str) -> str:
    """The secret that the file holds."""
    try:
        text = private_text(Path(path), "utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{name} must name a file that can be read ({error})") from None
    if not text:
        raise SettingsError(f"{name} names an empty file: write the secret into it")
    return text


def private_text(path: Path, encoding: str) -> str:
    """What the file holds. Raises OSError, which does not show the path: it might be the secret."""
    try:
        return path.read_text(encoding)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not {encoding.upper()}"
        raise OSError(why) from None


def convert(name: str, text: str, default: Any) -> Any:
    """The variable's text as the type of its default."""
    try:
        return type(default)(text)
    except ValueError:
        kind = {int: "a whole number", float: "a number"}[type(default)]
        raise SettingsError(f"{name} must be {kind}, not {text!r}") from None
