"""XL3M over streams: Kafka in, segments scored as they complete, answers at any moment.

Asynchronous and thin; the method itself is `xl3m_core`. What is offered here is loaded when
it is first used, so that `xl3m --help` need not wait for PyTorch.
"""

from importlib import import_module
from typing import Any

_HOME = {"Settings": "stream_app.settings", "create_app": "stream_app.app"}

__all__ = ["Settings", "create_app"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
