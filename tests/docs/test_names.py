"""Every test that a page of the documentation names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(?=tests/|::)(tests/[\w/]+\.py)?(?:::(test_\w+))?`")
DOCUMENTS = ("docs/inputs.md", "SECURITY.md", "README.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_a_document_names_is_there(document: str) -> None:
    missing, file = list[str](), ""
    for path, name in NAMED.findall((ROOT / document).read_text()):
        file = path or file
        text = (ROOT / file).read_text() if (ROOT / file).is_file() else ""
        if not text or (name and not re.search(rf"^(?:async )?def {name}\(", text, re.M)):
            missing.append(f"{file}::{name}")
    assert not missing
