"""Every guarantee has a test, every mark names a guarantee, and the page of tests is up to date."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = ROOT / "scripts" / "guarantees_tests.py"
    spec = importlib.util.spec_from_file_location("guarantees_tests", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_guarantee_has_a_test_and_every_mark_names_a_guarantee(script: ModuleType) -> None:
    assert {name for name, _ in script.marked()} == set(script.headings())


def test_the_page_of_tests_is_up_to_date(script: ModuleType) -> None:
    stale = "docs/guarantees-tests.md is stale: run make docs"
    assert script.PAGE.read_text() == script.page(), stale


def test_the_table_names_every_guarantee_in_order(script: ModuleType) -> None:
    text = (DOCS / "guarantees.md").read_text()
    assert re.findall(r"^\|.*\| \[(.+?)\]\(#", text, re.M) == script.headings()
