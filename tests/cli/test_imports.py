"""Commands that need no model load no model libraries, and no command loads unneeded ones.

Each command runs in a new process, since other tests have loaded libraries here.
"""

import os
import subprocess
import sys

import pytest

NOWHERE = {"XL3M_REDIS": "redis://127.0.0.1:1", "XL3M_BROKER": "kafka://127.0.0.1:1"}
MODEL = {"torch", "transformers", "tokenizers", "numpy"}
KAFKA = {"aiokafka", "confluent_kafka"}

RUN = """
import sys
from stream_app.cli.main import cli
from xl3m_core.errors import XL3MError
try:
    cli(sys.argv[1:], standalone_mode=False)
except (XL3MError, SystemExit):
    pass
print(*sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
"""


def imported(code: str, *words: str) -> set[str]:
    """The packages that are loaded when the code has run."""
    command = [sys.executable, "-c", code, *words]
    env = os.environ | NOWHERE
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (("--help",), MODEL | KAFKA | {"faust", "redis"}),
        (("ask", "s", "q?"), MODEL | KAFKA | {"faust"}),
        (("streams",), MODEL | KAFKA | {"faust"}),
        (("streams", "--memory"), MODEL | KAFKA | {"faust"}),
        (("watch", "s"), MODEL | KAFKA | {"faust"}),
        (("watch", "s", "-q", "q?"), MODEL | {"faust"}),
        (("rebuild", "--all"), MODEL | {"faust"}),
        (("feed", __file__), MODEL | {"faust"}),
        (("worker",), MODEL),
    ],
)
def test_a_command_loads_what_it_uses(words: tuple[str, ...], unused: set[str]) -> None:
    loaded = imported(RUN, *words)
    assert "stream_app" in loaded and not loaded & unused


@pytest.mark.parametrize(
    "module",
    [
        "cli.ask",
        "cli.watch",
        "cli.streams",
        "client.client",
        "cli.rebuild",
        "cli.feed",
        "cli.doctor",
        "store.store",
        "monitoring.memory",
        "scoring.streams",
    ],
)
def test_a_module_of_the_commands_loads_no_model(module: str) -> None:
    """All modules that a command may import later, also those not reached without a Redis."""
    code = f"import sys, stream_app.{module}; print(*sys.modules, file=sys.stderr)"
    assert not imported(code) & (MODEL | {"faust"})


def test_the_doctor_loads_a_model_for_its_last_finding_alone() -> None:
    code = """
import sys
from stream_app.cli import doctor
seen = []
for finding in doctor.examine():
    if finding.subject == "model":
        break
    seen.append("torch" in sys.modules)
print(*["yes" if any(seen) else "no", len(seen)], file=sys.stderr)
"""
    assert imported(code) == {"no", "3"}
