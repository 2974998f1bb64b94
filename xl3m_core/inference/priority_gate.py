"""PriorityGate: batches run side by side, and a priority section holds back those not yet begun.

Used by the executor: scoring runs in batches, answers run in sections. Depends on threads only.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class PriorityGate:
    """Decides when a batch or a section may begin.

    Sections run one at a time, in the order in which they were requested. Batches that were held
    back by one section begin before the next section, so neither kind starves the other.
    is_exclusive: a section waits for all batches in progress, however small it is.
    """

    def __init__(self, is_exclusive: bool) -> None:
        self.is_exclusive = is_exclusive
        self.running = list[int]()  # the size of each batch in progress
        self.blocked = 0  # batches that are held back
        self.sections = deque[object]()  # the first is inside, or the next to enter
        self._is_closed = False  # no batch may begin
        self._owner = 0  # id of the thread inside a section
        self._changed = threading.Condition()

    @contextmanager
    def batch(self, size: int) -> Iterator[None]:
        """Run the block as a batch of this size, once no section holds it back."""
        with self._changed:
            self._wait_while_closed()
            self.running.append(size)
        try:
            yield
        finally:
            with self._changed:
                self.running.remove(size)
                self._changed.notify_all()

    def _wait_while_closed(self) -> None:
        if self._is_closed:
            self.blocked += 1
            self._changed.wait_for(lambda: not self._is_closed)
            self.blocked -= 1
            self._changed.notify_all()

    @contextmanager
    def section(self, size: float) -> Iterator[None]:
        """Run the block while no other section runs and no batch begins.

        Batches in progress end first, unless the section has at most half the size of the largest.
        Raises RuntimeError inside another section of the same thread.
        """
        self.check_outside()
        section = object()
        with self._changed:
            self.sections.append(section)
        try:
            self._enter(section, size)
            yield
        finally:
            with self._changed:
                if self.sections[0] is section:
                    self._is_closed, self._owner = False, 0
                self.sections.remove(section)
                self._changed.notify_all()

    def _enter(self, section: object, size: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.sections[0] is section and not self.blocked)
            self._is_closed = True
            if self.is_exclusive or max(self.running, default=0) < 2 * size:
                self._changed.wait_for(lambda: not self.running)
            self._owner = threading.get_ident()

    def check_outside(self) -> None:
        """Raise RuntimeError in a thread that is inside a section: it would wait for itself."""
        if self._owner == threading.get_ident():
            raise RuntimeError(
                "the model was called from inside an answer, for example by its `on_text`: wait "
                "until that answer is complete"
            )
