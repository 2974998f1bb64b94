"""Variables: a setting's name and text in the environment, and secrets that lie in files.

Knows no setting but the secret ones, and does not read the environment itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stream_app.errors import SettingsError

SECRETS = ("redis", "kafka_password", "schema_registry_password")
"""Settings that may lie in a file, named by their variable and `_FILE`."""


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
