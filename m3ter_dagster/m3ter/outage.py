"""Whether m3ter is down as a whole: then one request at a time asks whether it is back, whoever else waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_LOOK_EVERY = 0.25
_FIRST_PAUSE = 0.5


class Outage:
    """Begins when a request fails and none was answered since it was sent; ends with the next answer. Thread-safe."""

    def __init__(self, *, longest_pause: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_pause = longest_pause
        self._clock = clock
        self._lock = threading.Lock()
        self._answered_at = -1.0
        self._since: float | None = None
        self._next = 0.0
        self._pause = 0.0
        self._asking: int | None = None

    @property
    def seconds(self) -> float | None:
        """How long it has lasted; None: there is none."""
        with self._lock:
            return None if self._since is None else self._clock() - self._since

    def enter(self, wait: Callable[[float], None]) -> float:
        """Returns when the calling thread may send: at once, or in an outage when it is the one that asks.

        The moment that it returns is for `failed`.
        """
        me = threading.get_ident()
        while True:
            with self._lock:
                now = self._clock()
                if self._since is None or self._asking == me:
                    return now
                left = self._next - now if self._asking is None else _LOOK_EVERY
                if left <= 0:
                    self._asking = me
                    return now
            wait(min(left, _LOOK_EVERY))

    def answered(self) -> None:
        with self._lock:
            self._answered_at, self._since, self._asking, self._pause = self._clock(), None, None, 0.0

    def failed(self, entered: float) -> None:
        """The request that was sent after `entered` was not answered, or only by something before m3ter."""
        with self._lock:
            if self._answered_at >= entered:
                return
            # Others, which were on their way when it began, say nothing new.
            if self._since is None or self._asking == threading.get_ident():
                self._since = entered if self._since is None else self._since
                self._pause = min(2 * self._pause or _FIRST_PAUSE, self._longest_pause)
                self._asking, self._next = None, self._clock() + self._pause
