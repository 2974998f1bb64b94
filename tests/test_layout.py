"""The layout is kept: the method knows nothing of the stream, and imports form no circle.

Read off the syntax trees, so that a lazy import inside a function counts as well.
"""

import ast
import importlib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("xl3m_core", "stream_app")
STREAM_ONLY = {"aiokafka", "confluent_kafka", "faust", "mode", "redis", "stream_app"}


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_module(path): path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
TREES = {module: ast.parse(path.read_text()) for module, path in FILES.items()}


def test_the_method_imports_nothing_of_the_stream() -> None:
    for module, tree in TREES.items():
        if module.startswith("xl3m_core"):
            roots = {name.partition(".")[0] for name in _imports(module, tree)}
            assert not roots & STREAM_ONLY, module


def test_only_the_settings_read_the_environment() -> None:
    readers = {module for module, tree in TREES.items() if _reads_environment(tree)}
    assert readers <= {
        "stream_app.settings.variables",
        "stream_app.runtime.malloc",
    }  # others' variables


def test_imports_form_no_circle() -> None:
    graph = {
        module: {name for name in _imports(module, tree) if name in TREES} - {module}
        for module, tree in TREES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError and names the circle


@pytest.mark.parametrize("module", sorted(TREES))
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(TREES[module])


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_offers_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)  # ruff holds their order
    for name in module.__all__:
        assert hasattr(module, name), name


def _imports(module: str, tree: ast.Module) -> Iterator[str]:
    """The modules a file imports, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            members = {f"{base}.{alias.name}" for alias in node.names}
            submodules = members & TREES.keys()
            yield from submodules
            # `from package import module` needs the package's own file only for what is defined
            # there.
            if len(submodules) < len(members):
                yield base


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = FILES[module].name == "__init__.py"
    parts = module.split(".")
    parents = parts[: len(parts) - node.level + is_package]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _reads_environment(tree: ast.Module) -> bool:
    names = {"environ", "environb", "getenv"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & names)
        for node in ast.walk(tree)
    )
