"""XL3M (arXiv 2405.17755): a causal LM trained on short sequences answers over any length.

Segment, score by certainty, keep the top-k, splice the key context, answer. Synchronous, without
Kafka, Redis, environment variables or an event loop. Names are imported on first use, so that code
which only handles segments does not load PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xl3m_core.answer import Answer, Evidence
    from xl3m_core.context import KeyContext
    from xl3m_core.engine import Engine
    from xl3m_core.errors import MethodError, ModelError, QuestionError, XL3MError
    from xl3m_core.inference.model import LanguageModel
    from xl3m_core.method import Measure, Method
    from xl3m_core.reader import Generated
    from xl3m_core.segment import Segment, Tail, Unit
    from xl3m_core.segmenter import Segmenter
    from xl3m_core.topk import TopK
    from xl3m_core.xl3m import XL3M

_HOME = {
    "answer": ("Answer", "Evidence"),
    "context": ("KeyContext",),
    "engine": ("Engine",),
    "errors": ("MethodError", "ModelError", "QuestionError", "XL3MError"),
    "method": ("Measure", "Method"),
    "inference.model": ("LanguageModel",),
    "reader": ("Generated",),
    "segment": ("Segment", "Tail", "Unit"),
    "segmenter": ("Segmenter",),
    "topk": ("TopK",),
    "xl3m": ("XL3M",),
}

__all__ = [
    "XL3M",
    "Answer",
    "Engine",
    "Evidence",
    "Generated",
    "KeyContext",
    "LanguageModel",
    "Measure",
    "Method",
    "MethodError",
    "ModelError",
    "QuestionError",
    "Segment",
    "Segmenter",
    "Tail",
    "TopK",
    "Unit",
    "XL3MError",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
