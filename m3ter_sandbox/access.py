"""Who may ask, and how often: bearer tokens that expire, and the organization's request limit."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from threading import Lock

Clock = Callable[[], float]
"""Seconds since the epoch."""


class Tokens:
    def __init__(self, clock: Clock, *, lifetime: float) -> None:
        self._clock = clock
        self.lifetime = lifetime
        self._expiries: dict[str, float] = {}

    def issue(self) -> str:
        token = secrets.token_urlsafe(24)
        self._expiries[token] = self._clock() + self.lifetime
        return token

    def is_valid(self, token: str) -> bool:
        return self._clock() < self._expiries.get(token, 0)

    def revoke_all(self) -> None:
        self._expiries.clear()


class RequestLimit:
    """At most `per_second` requests in any second; a refused request does not count. None: no limit."""

    def __init__(self, clock: Clock, *, per_second: int | None) -> None:
        self._clock = clock
        self._per_second = per_second
        self._admitted: deque[float] = deque()
        self._lock = Lock()

    def admits(self) -> bool:
        if self._per_second is None:
            return True
        with self._lock:
            now = self._clock()
            while self._admitted and self._admitted[0] <= now - 1:
                self._admitted.popleft()
            if len(self._admitted) >= self._per_second:
                return False
            self._admitted.append(now)
            return True
