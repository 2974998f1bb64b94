"""Options that several commands share, and the settings made from them.

Imports nothing heavy: `--help` reads this module.
"""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from stream_app.settings import Settings

OPTIONS = {"query_deadline_seconds": "--deadline"}
"""Options whose name differs from their setting's."""


class Text(click.ParamType):
    """Text that is valid UTF-8; a shell may also pass other bytes."""

    name = "text"

    def convert(self, value: str, param: Any, ctx: Any) -> str:
        """The text, unchanged."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail("it is not UTF-8", param, ctx)
        return value


TEXT = Text()


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that adds the named shared options to a command."""
    known = {
        "broker": click.option(
            "--broker", help="Kafka address, kafka://host:port  [XL3M_BROKER]"
        ),
        "redis": click.option("--redis", help="Redis URL, redis://host:port/db  [XL3M_REDIS]"),
        "model": click.option(
            "--model", help="Folder, hub id, GGUF file, `smollm2` or `small`  [XL3M_MODEL]"
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="One JSON object a line."),
    }  # fmt: skip

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for name in reversed(names):
            command = known[name](command)
        return command

    return add


def load_settings(**given: Any) -> "Settings":
    """The settings of the options and the environment; prints warnings on standard error.

    Raises SettingsError, which names the option that a wrong value came from.
    """
    from stream_app.errors import SettingsError
    from stream_app.settings import Settings, unknown_variables
    from stream_app.settings.variables import variable

    warnings = unknown_variables()
    try:
        settings = Settings.from_env(**given)
    except SettingsError as error:
        _warn(warnings)
        message = str(error)
        for name in (name for name, value in given.items() if value is not None):
            option = OPTIONS.get(name, f"--{name}")
            message = re.sub(rf"\b{variable(name)}\b", f"{option} ({variable(name)})", message)
        raise SettingsError(message) from None
    if not _logs_json(settings):
        _warn(warnings)
    return settings


def _logs_json(settings: "Settings") -> bool:
    """Whether this is a worker with a JSON log; it logs the warnings itself."""
    return settings.log_format == "json" and click.get_current_context().info_name == "worker"


def _warn(lines: list[str]) -> None:
    from stream_app.cli.output import echo

    for line in lines:
        echo(f"xl3m: warning: {line}", err=True)
