"""Variables: from the environment to values of the settings, and back to names for messages.

The only module that reads settings from the environment. A secret may come from a file instead:
`XL3M_REDIS_FILE` names the file that holds the value of `XL3M_REDIS`.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic_settings import BaseSettings, EnvSettingsSource

from stream_app.errors import SettingsError

PREFIX = "XL3M_"
SECRETS = ("redis", "kafka_sasl_password", "schema_registry_password")
"""Settings that a file can hold."""
OTHER_VARIABLES = ("XL3M_LOGS", "XL3M_REQUIRE_KAFKA", "XL3M_TEST_BROKER")
"""Variables that docker-compose.yml and the tests read."""
MIN_SIMILARITY = 0.6

# Kubernetes sets these in every container if a service is called xl3m, or xl3m-worker.
_KUBERNETES = re.compile(
    r"XL3M_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"
)


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def variable_or_file(name: str) -> str:
    """The environment variables of a setting, for messages: with the one that names a file."""
    return f"{variable(name)} (or {variable(name)}_FILE)" if name in SECRETS else variable(name)


class VariablesSource(EnvSettingsSource):
    """Values from the variables of an environment and from the files of secrets it names. An empty
    variable counts as not set. Raises SettingsError for a file that cannot be read."""

    def __init__(self, settings: type[BaseSettings], env: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        env = with_secrets(os.environ if env is None else env)
        # The base class looks names up in lower case. Only upper case is a setting, as in a shell.
        self.env_vars = {
            name.lower(): text for name, text in env.items() if text and name == name.upper()
        }


def process_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with other values of these variables, for a child."""
    return os.environ | dict(variables)


def with_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """The environment with the secrets from the files it names. Raises SettingsError."""
    values = dict(env)
    for name in map(variable, SECRETS):
        if not (path := env.get(f"{name}_FILE")):
            continue
        if env.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set: unset one of them")
        values[name] = _read_secret(f"{name}_FILE", path)
    return values


def _read_secret(name: str, path: str) -> str:
    try:
        text = read_private(Path(path), "utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{name} must name a file that can be read ({error})") from None
    if not text:
        raise SettingsError(f"{name} names an empty file: write the secret into it")
    return text


def read_private(path: Path, encoding: str) -> str:
    """The content of a file with a secret. The OSError it raises does not name the path: a user may
    have put the secret itself there."""
    try:
        return path.read_text(encoding)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not {encoding.upper()}"
        raise OSError(why) from None


def unknown(names: Iterable[str], env: Mapping[str, str] | None = None) -> list[str]:
    """A warning for each `XL3M_` variable that is no setting; names: of the settings. The
    variable's value is left out: it may be a secret."""
    env = os.environ if env is None else env
    known = {variable(name) for name in names} | {f"{variable(name)}_FILE" for name in SECRETS}
    return [
        _warning(name, known)
        for name in sorted(name for name in env if name.upper().startswith(PREFIX))
        if name not in known
        and name not in OTHER_VARIABLES
        and not _is_from_kubernetes(name, env[name])
    ]


def _warning(name: str, known: Iterable[str]) -> str:
    suffixes = [each.removeprefix(PREFIX) for each in known]
    typed = name.upper().removeprefix(PREFIX)
    nearest = difflib.get_close_matches(typed, suffixes, 1, MIN_SIMILARITY)
    hint = f": {PREFIX}{nearest[0]}?" if nearest else "; docs/settings.md lists them"
    return f"{name} is not a setting{hint}"


def _is_from_kubernetes(name: str, value: str) -> bool:
    is_link = name.endswith("_PORT") and value.startswith(("tcp://", "udp://", "sctp://"))
    return is_link or bool(_KUBERNETES.fullmatch(name))


def kafka_home(env: Mapping[str, str] | None = None) -> Path | None:
    """The folder of a Kafka distribution to start brokers from, if KAFKA_HOME names one."""
    home = (os.environ if env is None else env).get("KAFKA_HOME")
    return Path(home) if home else None
