"""Looks up names of libraries and describes them by their signatures."""

import importlib
import inspect
from types import ModuleType
from typing import Any

EMPTY = inspect.Parameter.empty


def owner(path: str) -> Any:
    """A module, or a class of a module, by its full name."""
    try:
        return importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
        return getattr(importlib.import_module(module), name)


def describe(where: Any, name: str) -> str:
    """The signature of a function without its types, `property`, `attribute`, `class`, or
    `missing`. An attribute is one that the class or its bases assign to `self`."""
    try:
        found = inspect.getattr_static(where, name)
    except AttributeError:
        return "attribute" if _is_assigned(where, name) else "missing"
    if inspect.isclass(found):
        return "class"
    if inspect.isroutine(found):
        return _signature(found)
    return "property" if isinstance(found, property) else "attribute"


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    parameters = [each.replace(annotation=EMPTY) for each in signature.parameters.values()]
    signature = signature.replace(parameters=parameters, return_annotation=EMPTY)
    return f"{'async ' * inspect.iscoroutinefunction(function)}{signature}"


def _is_assigned(where: Any, name: str) -> bool:
    if isinstance(where, ModuleType):
        return False
    bases = [base for base in where.__mro__ if base is not object]
    return any(f"self.{name}" in inspect.getsource(base) for base in bases)
