"""Stopwatch: the timings of an answer, step by step."""

import time
from collections.abc import Iterable


class Stopwatch:
    """Seconds by step; 0 for a step that was left out. started: by `time.perf_counter()`, None for
    now."""

    def __init__(self, steps: Iterable[str], started: float | None = None) -> None:
        self.laps = dict.fromkeys(steps, 0.0)
        self._last = time.perf_counter() if started is None else started

    def lap(self, step: str) -> None:
        """The step ends now; it began when the last one ended."""
        now = time.perf_counter()
        self.laps[step] = round(now - self._last, 6)
        self._last = now
