"""Log lines and states that the documentation quotes are those that the code writes."""

import ast
from functools import cache

import pytest

from tests.docs.pages import ROOT

QUOTED = [
    ("docs/inputs.md", "does not exist (was it deleted?): this worker waits for it"),
    ("docs/inputs.md", "was recreated: its partitions are assigned again"),
    ("docs/inputs.md", "does not exist: "),
    ("docs/inputs.md", "waits at offset "),
    ("docs/guarantees.md", "a second signal ends it at once"),
    ("docs/guarantees.md", "too old"),
]


@cache
def texts() -> str:
    """All string constants of the code."""
    trees = (ast.parse(path.read_text()) for path in (ROOT / "stream_app").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree))
    strings = (node.value for node in nodes if isinstance(node, ast.Constant))
    return "\n".join(value for value in strings if isinstance(value, str))


@pytest.mark.parametrize(("page", "quoted"), QUOTED)
def test_a_quoted_line_is_one_that_the_code_writes(page: str, quoted: str) -> None:
    assert quoted in " ".join((ROOT / page).read_text().split()) + " "
    assert quoted in texts()
