"""Reads from syntax trees what modules import, and which private names of libraries they use.

Lazy imports inside functions count like those at the top of a module.
"""

import ast
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

KAFKA_LIBRARIES = ("faust", "mode", "aiokafka")
_PRIVATE = re.compile(r"(?<!\w)_[A-Za-z]\w*")
_NAMED_TUPLE = {"_replace", "_asdict", "_fields", "_make"}

Graph = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Sources:
    """Modules by their full names. packages: those that are an `__init__.py`."""

    trees: Mapping[str, ast.Module]
    packages: frozenset[str] = frozenset()

    @classmethod
    def read(cls, root: Path, *packages: str) -> "Sources":
        """All modules of packages that lie in a folder."""
        trees, inits = dict[str, ast.Module](), set[str]()
        for path in (path for package in packages for path in (root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if path.name == "__init__.py":
                parts = parts[:-1]
                inits.add(".".join(parts))
            trees[".".join(parts)] = ast.parse(path.read_text())
        return cls(trees, frozenset(inits))

    def imports(self, module: str) -> Iterator[str]:
        """The modules that a module imports, ours and others', by their full names."""
        for node in ast.walk(self.trees[module]):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(module, node)
                members = {f"{base}.{alias.name}" for alias in node.names}
                submodules = members & self.trees.keys()
                yield from submodules
                # `from package import module` uses the package's own file only for names that
                # are defined there.
                if len(submodules) < len(members):
                    yield base

    def graph(self) -> dict[str, set[str]]:
        """The modules of ours that each module imports."""
        return {
            module: {name for name in self.imports(module) if name in self.trees} - {module}
            for module in self.trees
        }

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = module.split(".")
        parents = parts[: len(parts) - node.level + (module in self.packages)]
        return ".".join([*parents, *([node.module] if node.module else [])])


def unit(module: str) -> str:
    """The package or module directly below the top package that a module belongs to."""
    return ".".join(module.split(".")[:2])


def units(graph: Graph) -> dict[str, set[str]]:
    """The same graph between units."""
    result: dict[str, set[str]] = {}
    for module, imported in graph.items():
        result.setdefault(unit(module), set()).update(map(unit, imported))
    return {name: imported - {name} for name, imported in result.items()}


def layer_faults(graph: Graph, layers: Sequence[Collection[str]]) -> list[str]:
    """Imports that go up or sideways, and units without a layer; layers come from top to bottom."""
    level = {name: depth for depth, layer in enumerate(layers) for name in layer}
    faults = [f"{name} has no layer" for name in {*map(unit, graph)} - level.keys()]
    for module, imported in graph.items():
        for other in imported:
            above, below = level.get(unit(module)), level.get(unit(other))
            if unit(module) == unit(other) or above is None or below is None or above < below:
                continue
            way = "sideways" if above == below else "up"
            faults.append(f"{module} imports {other}: {way}")
    return sorted(faults)


def circle(graph: Graph) -> list[str]:
    """The names along a circle of imports; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


@cache
def library_names() -> frozenset[str]:
    """Every private identifier in the sources of Faust, mode and aiokafka."""
    names = set[str]()
    for library in KAFKA_LIBRARIES:
        (folder,) = import_module(library).__path__
        for path in Path(folder).rglob("*.py"):
            names.update(_PRIVATE.findall(path.read_text()))
    return frozenset(names - _NAMED_TUPLE)


def private_uses(tree: ast.Module, library: Collection[str]) -> set[str]:
    """Private names of libraries that a module uses: imported, overridden, inherited, read off an
    object, or given to getattr and setattr as a string. `library` are the names that count."""
    origin = _origins(tree)
    own = _defined(tree)
    found = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and _is_library(node.module or "")
        for alias in node.names
        if alias.name in library
    }
    derived = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        and any(_is_library(origin.get(_root(base), "")) for base in node.bases)
    ]
    for each in derived:
        found |= {name for name in _names_of_class(each) if name in library}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in library and node.attr not in own:
            module = origin.get(_root(node.value), "")
            if _root(node.value) not in ("self", "cls") or not isinstance(node.value, ast.Name):
                found |= {node.attr} if not module or _is_library(module) else set()
        elif isinstance(node, ast.Call) and _root(node.func) in ("getattr", "setattr", "hasattr"):
            found |= {name for name in _strings(node) if name in library}
    return found


def _is_library(module: str) -> bool:
    """Whether what is imported from there may be a class of a library, or one derived from it."""
    return module.split(".")[0] in KAFKA_LIBRARIES or module.startswith("stream_app.kafka")


def _origins(tree: ast.Module) -> dict[str, str]:
    """The modules that imported names come from."""
    origin = dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.split(".")[0]
                origin[name] = alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                origin[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return origin


def _root(node: ast.expr) -> str:
    """The name at the start of an expression, such as `a` of `a.b(c).d`."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return ""
    return node.id


def _defined(tree: ast.Module) -> set[str]:
    """Names that a module defines: functions, classes, variables and attributes of `self`."""
    names = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if ast.unparse(node.value) == "self" else set()
    return names


def _names_of_class(node: ast.ClassDef) -> set[str]:
    """Names of a class: what it defines, and what it uses of `self`, `cls` and `super()`."""
    names = {
        each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return names | {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and _root(each.value) in ("self", "cls", "super")
    }


def _strings(call: ast.Call) -> Iterator[str]:
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
