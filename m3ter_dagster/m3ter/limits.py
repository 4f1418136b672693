"""How fast, how broadly and how patiently m3ter is asked."""

from __future__ import annotations

import bisect
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import urllib3


@dataclass(frozen=True)
class Limits:
    """The limits of one client of m3ter. The defaults are those of an export."""

    requests_per_second: float = 40.0
    connections: int = 64
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    """The seconds without a single byte after which a request has failed."""
    request_seconds: float = 300.0
    """How long one request may take, however steadily its bytes come."""
    page_seconds: float = 900.0
    """How long all tries of one request may take together, without the waits between them."""
    stop_seconds: float = 1.0
    """How long requests may still take once the run is being stopped."""
    patience_seconds: float = 60.0
    """How long the waits between tries of one request may take in total, while m3ter answers others."""
    outage_patience_seconds: float = 900.0
    """How long m3ter may be down as a whole, answering nobody."""
    rate_limit_patience_seconds: float = 360.0
    """The total after a 429: m3ter's limit per address is counted over five minutes (guide "Config API Limits")."""
    longest_pause_seconds: float = 15.0
    """The longest pause between two tries, unless m3ter asks for a longer one."""
    download_seconds: float = 6 * 3600.0
    """How long a file may take, all tries together."""
    download_tries: int = 6
    """How many tries of a download in a row may bring no new byte."""
    job_pause_seconds: float = 1.0
    """Before an export job is asked about for the first time; later pauses grow up to `longest_job_pause_seconds`."""
    longest_job_pause_seconds: float = 20.0
    again_after: tuple[float, ...] = (2.0, 10.0, 30.0)
    """The pauses, in job pauses, before an empty file is asked for again: at a new address, of a new job, and so on."""
    job_patience_seconds: float = 6 * 3600.0
    """m3ter says nothing about how long a job takes; its file can be had for 24 hours."""
    renew_before_seconds: float = 300.0
    """How long before a token expires it is renewed; a tenth of its lifetime if that is shorter."""

    times_unpacked: int = 200
    """The most bytes that a byte of gzip may stand for: lists have 5 to 50, and what has 1,000 is made to harm."""
    unpacked_anyway: int = 16 << 20
    """So many bytes may always come of a piece of gzip."""

    def most_unpacked(self, packed: int) -> int:
        return max(self.times_unpacked * packed, self.unpacked_anyway)

    @property
    def timeout(self) -> urllib3.Timeout:
        return urllib3.Timeout(connect=self.connect_timeout_seconds, read=self.read_timeout_seconds)


_MARGIN = 1.05
"""A limit is kept with a twentieth to spare: on its way to m3ter a request may be held up longer than the next one."""


class _Place(NamedTuple):
    """A place in the row, in the order of the turns."""

    gives_way: bool
    number: int
    since: float


class Pace:
    """Spaces requests evenly over all threads, and lets at most `per_second` of them be sent in any second.

    Whoever gives way takes a turn only when nobody else waits for one. That costs no time, however long it lasts: all
    turns are used, and what is to be asked for once per record can be asked for side by side later, whereas each page
    of a cursor waits for the one before. Nor can it last for ever, since cursors end.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        most = math.ceil(per_second)
        self._interval = _MARGIN / per_second
        self._clock = clock
        self._next = 0.0
        self._held_until = 0.0
        self._row: list[_Place] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._sent: deque[float] = deque(maxlen=most)
        self._sending = threading.Lock()

    def take_turn(self, wait: Callable[[float], None], *, gives_way: bool = False) -> None:
        """Returns when the caller may send."""
        wait(0)
        place = _Place(gives_way, next(self._numbers), self._clock())
        with self._lock:
            bisect.insort(self._row, place)
        try:
            while (left := self._seconds_left(place)) > 0:
                wait(left)
        except BaseException:
            with self._lock:
                self._row.remove(place)
            raise

    @contextmanager
    def sending(self, wait: Callable[[float], None]) -> Generator[None]:
        """Held while a request is written. Waits if others that took their turns before were sent late."""
        with self._sending:
            while len(self._sent) == self._sent.maxlen and (left := self._may_follow() - self._clock()) > 0:
                wait(left)
            try:
                yield
            finally:
                self._sent.append(self._clock())

    def hold(self, seconds: float) -> None:
        """Let nobody send for this many seconds."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def _seconds_left(self, place: _Place) -> float:
        """How long to wait before asking again; the turn is taken when there is nothing left."""
        with self._lock:
            now, ahead = self._clock(), self._row.index(place)
            due = max(self._next, self._held_until, place.since)
            if ahead or due > now:
                return max(due - now, 0) + ahead * self._interval
            self._row.remove(place)
            self._next = due + self._interval  # so that those after one who woke up late make up for it
            return 0

    def _may_follow(self) -> float:
        """When the oldest of the requests that are remembered is out of the second (of the period, for a fraction)."""
        return self._sent[0] + len(self._sent) * self._interval
