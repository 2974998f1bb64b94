"""The layout: imports go down through the layers, none form a circle, and private names of the
Kafka libraries stay in `stream_app/kafka/`.
"""

import ast
import importlib
from pathlib import Path

import pytest

from tests.support.layout import (
    Sources,
    circle,
    layer_faults,
    library_names,
    private_uses,
    units,
)

PACKAGES = ("xl3m_core", "stream_app")
STREAM_ONLY = {"aiokafka", "confluent_kafka", "faust", "mode", "redis", "stream_app"}
SOURCES = Sources.read(Path(__file__).parents[1], *PACKAGES)
GRAPH = SOURCES.graph()

# From top to bottom. A module may import from its own package and from the layers below.
STREAM_LAYERS = (
    ("__main__",),
    ("cli",),
    ("app",),
    ("monitoring",),
    ("queries", "ingest", "feeding"),
    ("client",),
    ("scoring", "kafka"),
    ("store",),
    ("requests",),
    ("events", "engine", "testing"),
    ("settings",),
    ("formats", "embedded"),
    ("runtime",),
    ("machine_log",),
    ("errors", "sample_log"),
)
CORE_LAYERS = (
    ("xl3m",),
    ("engine",),
    ("reader",),
    ("scoring", "extraction"),
    ("inference",),
    ("measure", "spans", "second_look"),
    ("question", "smoothing"),
    ("relevance", "lexical"),
    ("answer", "context", "segmenter", "features"),
    ("method", "segment", "topk", "grounding"),
    ("records", "errors"),
)
LAYERS = {"stream_app": STREAM_LAYERS, "xl3m_core": CORE_LAYERS}


def test_the_method_imports_nothing_of_the_stream() -> None:
    for module in SOURCES.trees:
        if module.startswith("xl3m_core"):
            roots = {name.partition(".")[0] for name in SOURCES.imports(module)}
            assert not roots & STREAM_ONLY, module


def test_only_the_store_imports_redis() -> None:
    importers = {
        m for m in SOURCES.trees if "redis" in {n.split(".")[0] for n in SOURCES.imports(m)}
    }
    outside = {m for m in importers if m.split(".")[1] not in ("store", "embedded")}
    # Which of redis-py's errors are transient is decided below the store, for all that retry.
    assert outside == {"stream_app.runtime.retry"}


def test_only_the_settings_read_the_environment() -> None:
    readers = {module for module, tree in SOURCES.trees.items() if _reads_environment(tree)}
    # malloc reads variables of glibc, not of this project.
    assert readers <= {"stream_app.settings.variables", "stream_app.runtime.malloc"}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_down_through_the_layers(package: str) -> None:
    assert faults(package, SOURCES) == []


@pytest.mark.parametrize(
    ("module", "source", "way"),
    [
        ("store.store", "from stream_app.kafka.consumer import Consumer", "up"),
        ("ingest.tokens", "from stream_app.queries import answering", "sideways"),
        ("runtime.watchdog", "def bark():\n    from stream_app.cli.output import echo", "up"),
        ("queries.kafka", "from ..ingest.partitions import Assignment", "sideways"),
    ],
)
def test_an_import_up_or_sideways_is_found(module: str, source: str, way: str) -> None:
    found = faults("stream_app", planted({f"stream_app.{module}": source}))
    assert len(found) == 1 and found[0].startswith(f"stream_app.{module} imports ")
    assert found[0].endswith(way)


def test_an_import_down_or_within_a_package_is_no_fault() -> None:
    source = "from stream_app.store import keys\nfrom . import partitions\nimport json"
    assert faults("stream_app", planted({"stream_app.ingest.tokens": source})) == []


def test_a_module_without_a_layer_is_found() -> None:
    found = faults("stream_app", planted({"stream_app.misc": ""}))
    assert found == ["stream_app.misc has no layer"]


def test_imports_form_no_circle() -> None:
    assert circle(GRAPH) == []
    assert circle(units(GRAPH)) == []


@pytest.mark.parametrize(
    "sources",
    [
        {"p.a": "import p.b", "p.b": "from p import a"},
        {"p.a": "from p.b import x", "p.b": "def f():\n    from p.a import y"},
        {"p.a.one": "import p.b.one", "p.b.two": "import p.a.two", "p.b.one": "", "p.a.two": ""},
    ],
)
def test_a_circle_is_found(sources: dict[str, str]) -> None:
    graph = planted(sources).graph()
    assert circle(units(graph))


def test_private_names_of_kafka_libraries_stay_in_one_package() -> None:
    for module, tree in SOURCES.trees.items():
        if not module.startswith("stream_app.kafka."):
            assert not private_uses(tree, library_names()), module


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("from faust.streams import _CStreamIterator", "_CStreamIterator"),
        ("def f(consumer):\n    return consumer._fetcher", "_fetcher"),
        ("import faust\nclass App(faust.App):\n    def _new_consumer(self): ...", "_new_consumer"),
        (
            "from stream_app.kafka.consumer import Consumer\n"
            "class Other(Consumer):\n    def run(self): return self._getmany",
            "_getmany",
        ),
        ("def f(app):\n    getattr(app, '_create_directories')()", "_create_directories"),
        ("def f(app):\n    return app.topics._update_indices()", "_update_indices"),
    ],
)
def test_a_private_name_of_a_kafka_library_is_found(source: str, name: str) -> None:
    assert private_uses(ast.parse(source), library_names()) == {name}


@pytest.mark.parametrize(
    "source",
    [
        "class A:\n    def _send(self): ...\n    def run(self): self._send()",
        "def f(row):\n    return row._replace(a=1)",
        "import os\ndef f():\n    os._exit(1)",
        "class A:\n    def __init__(self): self._client = None\n    def f(self): self._client",
    ],
)
def test_a_private_name_of_our_own_is_no_fault(source: str) -> None:
    assert private_uses(ast.parse(source), library_names()) == set()


@pytest.mark.parametrize("module", sorted(SOURCES.trees))
def test_every_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(SOURCES.trees[module])


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_offers_is_there(package: str) -> None:
    module = importlib.import_module(package)
    assert len(set(module.__all__)) == len(module.__all__)  # ruff checks their order
    for name in module.__all__:
        assert hasattr(module, name), name


def faults(package: str, sources: Sources) -> list[str]:
    """What is wrong with the imports of a package, beside those of its own `__init__.py`."""
    layers = [[f"{package}.{name}" for name in layer] for layer in LAYERS[package]]
    graph = {
        module: {name for name in imported if name.startswith(f"{package}.")}
        for module, imported in sources.graph().items()
        if module.startswith(f"{package}.")
    }
    return layer_faults(graph, layers)


def planted(sources: dict[str, str]) -> Sources:
    """The real modules, of which some are replaced or added; their imports count alone."""
    trees = {module: ast.parse("") for module in SOURCES.trees}
    return Sources(
        trees | {module: ast.parse(source) for module, source in sources.items()},
        SOURCES.packages,
    )


def _reads_environment(tree: ast.Module) -> bool:
    names = {"environ", "environb", "getenv"}
    return any(
        (isinstance(node, ast.Attribute) and node.attr in names)
        or (isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} & names)
        for node in ast.walk(tree)
    )
