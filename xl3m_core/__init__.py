"""XL3M (arXiv 2405.17755): a causal LM trained on short sequences answers over any length.

Segment, score by certainty, keep the top-k, splice the key context, answer. Synchronous;
knows nothing of Kafka, Redis, the environment or an event loop.
"""

from xl3m_core.answer import Answer, Evidence
from xl3m_core.context import KeyContext
from xl3m_core.engine import XL3M, Engine, Generated
from xl3m_core.errors import MethodError, ModelError, QuestionError, XL3MError
from xl3m_core.measure import Measure
from xl3m_core.method import Method
from xl3m_core.model import LanguageModel
from xl3m_core.segment import Segment, Segmenter, Tail, Unit
from xl3m_core.topk import TopK

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
