"""docs/architecture.md shows the layers and folders that the code has."""

import re

from tests.docs.pages import ROOT, blocks, table
from tests.test_layout import STREAM_LAYERS

PAGE = ROOT / "docs" / "architecture.md"


def test_the_layers_are_those_that_imports_keep_to() -> None:
    picture = blocks(PAGE, "text")[-1].split("─")[0]
    shown = [set(re.findall(r"\w+", line.split("#")[0])) for line in picture.splitlines()]
    assert [layer for layer in shown if layer] == [set(layer) for layer in STREAM_LAYERS[1:]]


def test_every_folder_of_code_is_described() -> None:
    described = {re.findall(r"`([^`]+)`", row[0])[0] for row in table(PAGE, "Folders")}
    folders = {
        path.parent.relative_to(ROOT)
        for top in ("xl3m_core", "stream_app")
        for path in (ROOT / top).glob("*/__init__.py")
    }
    assert {f"{folder}/" for folder in folders} <= described
