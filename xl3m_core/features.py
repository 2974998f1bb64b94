"""Features: the raw numbers of one (segment, question) pair, from which every measure is computed.

They are what is stored, so that another measure needs no model. All values are exact in float32.
"""

import math
import struct
from typing import NamedTuple

_FORMAT = struct.Struct("<5f")
FEATURE_BYTES = _FORMAT.size


class Features(NamedTuple):
    """Raw numbers of a segment and a question; NaN stands for one that was not computed.

    entropy: of the next token after the question, in nats; nucleus: that of its most likely tokens
    only; likelihood: log p of the question after the segment, in nats; tokens: how many tokens that
    is the sum of; lexical: the weighted share of the question's words that the segment has, 0 to 1.
    """

    entropy: float
    nucleus: float = math.nan
    likelihood: float = math.nan
    tokens: float = math.nan
    lexical: float = math.nan


def pack(features: Features) -> bytes:
    """The features as float32, `FEATURE_BYTES` bytes."""
    return _FORMAT.pack(*features)


def unpack(data: bytes) -> Features:
    """Features from what `pack` returned."""
    return Features(*_FORMAT.unpack(data))


def exact(features: Features) -> Features:
    """The features as they are after `pack` and `unpack`."""
    return unpack(pack(features))
