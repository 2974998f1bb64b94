"""The pages of this project's documentation, and the code in them."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md")]
    + list((ROOT / "docs").glob("*.md"))
    + [ROOT / "xl3m_core/small/README.md"]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_INDENTED = re.compile(r"^ {4}(?! *[-*] )(.*)$", re.M)
_INLINE = re.compile(r"`([^`\n]+)`")


def name_of(page: Path) -> str:
    """The page's path, for the name of a test."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks in that language."""
    return [code for name, code in _FENCE.findall(page.read_text()) if name == language]


def without_blocks(page: Path) -> str:
    """The page's prose."""
    return _FENCE.sub("", page.read_text())


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks."""
    return _INLINE.findall(without_blocks(page))


def commands(page: Path) -> Iterator[str]:
    """What a reader may type: lines of code blocks and inline code, without comments."""
    lines = [line[2:] for code in blocks(page, "console") for line in code.splitlines()]
    lines += _INDENTED.findall(without_blocks(page)) + inline_code(page)
    yield from (line.split(" #")[0] for line in lines)


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table below the heading, without its head."""
    part = re.split(rf"^## {re.escape(heading)}$", page.read_text(), flags=re.M)[1]
    lines = re.split(r"^## ", part, flags=re.M)[0].splitlines()
    rows = [line.strip("|").split(" | ") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]
