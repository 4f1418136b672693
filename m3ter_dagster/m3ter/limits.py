"""How fast, how broadly and how patiently m3ter is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import urllib3


@dataclass(frozen=True)
class Limits:
    """The limits of one client of m3ter. The defaults are those of an export."""

    requests_per_second: float = 40.0
    connections: int = 64
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    """The seconds without a single byte after which a request has failed."""
    patience_seconds: float = 60.0
    """How long the waits between tries of one request may take in total."""
    rate_limit_patience_seconds: float = 360.0
    """The total after a 429: m3ter's limit per address is counted over five minutes (guide "Config API Limits")."""
    longest_pause_seconds: float = 15.0
    """The longest pause between two tries, unless m3ter asks for a longer one."""
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

    @property
    def timeout(self) -> urllib3.Timeout:
        return urllib3.Timeout(connect=self.connect_timeout_seconds, read=self.read_timeout_seconds)


class Pace:
    """Spaces requests evenly, at most `per_second` over all threads."""

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._next = 0.0
        self._held_until = 0.0
        self._row = threading.Lock()

    def take_turn(self, wait: Callable[[float], None]) -> None:
        """Returns when the caller may send. Callers queue, so one that is late does not let others send sooner."""
        with self._row:
            wait(0)
            while (left := max(self._next, self._held_until) - time.monotonic()) > 0:
                wait(left)
            self._next = time.monotonic() + self._interval

    def hold(self, seconds: float) -> None:
        """Let nobody send for this many seconds."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)
