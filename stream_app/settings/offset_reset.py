"""Offset reset: where to begin in a partition without a stored position, as `XL3M_START` says."""

import re
from datetime import UTC, datetime
from typing import Literal

EARLIEST: Literal["earliest"] = "earliest"
LATEST: Literal["latest"] = "latest"

_AGO = re.compile(r"-(\d{1,9})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_start(start: str, now: float) -> Literal["earliest", "latest"] | int:
    """`earliest`, `latest`, or milliseconds since the epoch; now: seconds since the epoch. A time
    without a zone is UTC. Raises ValueError or OverflowError."""
    if start in ("earliest", "latest"):
        return EARLIEST if start == "earliest" else LATEST
    if ago := _AGO.fullmatch(start):
        return max(0, round((now - int(ago[1]) * _SECONDS[ago[2]]) * 1000))
    time = datetime.fromisoformat(start)
    return max(0, round((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000))
