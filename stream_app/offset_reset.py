"""Offset reset: where a partition begins that was never read, as `XL3M_START` says it.

Knows the forms it may be written in; not partitions.
"""

import re
from datetime import UTC, datetime
from typing import Literal

EARLIEST: Literal["earliest"] = "earliest"
LATEST: Literal["latest"] = "latest"

_AGO = re.compile(r"-(\d{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_start(start: str, now: float) -> Literal["earliest", "latest"] | int:
    """`earliest`, `latest`, or milliseconds since the epoch; now: in seconds since then. Raises
    ValueError; a time without a zone is UTC."""
    if start in ("earliest", "latest"):
        return EARLIEST if start == "earliest" else LATEST
    if ago := _AGO.fullmatch(start):
        return max(0, round((now - int(ago[1]) * _SECONDS[ago[2]]) * 1000))
    time = datetime.fromisoformat(start)
    return max(0, round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000))
