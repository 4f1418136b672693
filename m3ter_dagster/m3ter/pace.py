"""How fast m3ter is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """At most `per_second` requests, evenly spaced, over all threads."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next = 0.0
        self._held_until = 0.0
        self._row = threading.Lock()

    def take_turn(self, wait: Callable[[float], None]) -> None:
        """Returns when the caller may send. Those behind wait in the row, so a late one brings nobody closer."""
        with self._row:
            wait(0)
            while (left := max(self._next, self._held_until) - time.monotonic()) > 0:
                wait(left)
            self._next = time.monotonic() + self._interval

    def hold(self, seconds: float) -> None:
        """Nobody sends for so long."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)
