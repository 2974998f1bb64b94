"""Every relative link leads to a file and a heading, and every path in backticks exists."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, inline_code, name_of, without_blocks

LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)\s]+)\)")
REPOSITORY_PATH = re.compile(
    r"(?:xl3m_core|stream_app|training|benchmarks|tests|docs|scripts)/[\w./-]*"
)


def anchors(page: Path) -> set[str]:
    """The page's headings, as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.M)
    return {re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-") for text in headings}


def broken(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return not target.exists() or bool(anchor and anchor not in anchors(target))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(without_blocks(page))
    assert not [link for link in links if broken(page, link)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_in_backticks_exists(page: Path) -> None:
    codes = [re.sub(r"::.*", "", code) for code in inline_code(page)]
    paths = [code for code in codes if REPOSITORY_PATH.fullmatch(code)]
    assert not [path for path in paths if not (ROOT / path).exists()]
