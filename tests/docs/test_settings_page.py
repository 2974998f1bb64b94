"""docs/settings.md is what the settings' model says."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "settings_table.py"


def test_the_page_of_settings_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("settings_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    stale = "docs/settings.md is stale: run python scripts/settings_table.py"
    assert script.PAGE.read_text() == script.page(), stale
