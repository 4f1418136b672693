"""How fast m3ter is asked: evenly, by all threads and, through a locked file, by all processes of this machine."""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import itertools
import logging
import os
import platform
import struct
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import NamedTuple

_MARGIN = 1.05
"""A limit is kept with a twentieth to spare: on its way to m3ter a request may be held up longer than the next one."""
_SLACK_SECONDS = 0.025
"""How late a request may be sent before those after it are sent later, too: half of what a second has to spare."""
_LOOK_AGAIN_SECONDS = 0.001
_LONGEST_LOCK_SECONDS = 10.0
"""A lock is held while a request is written, which takes milliseconds; a process that was stopped holds it for ever."""
_FURTHEST_SECONDS = 86_400.0
_FORMAT = struct.Struct("3d")
_LOG = logging.getLogger(__name__)

Wait = Callable[[float], None]
Clock = Callable[[], float]


@dataclass
class Times:
    """What all that share a pace agree upon, in seconds of the monotonic clock, which processes have in common."""

    next_turn: float = 0.0
    held_until: float = 0.0
    next_sent: float = 0.0
    """When the next request is sent if none is late."""


class SharedTimes:
    """The times of one client or, with a file, of all that have the same file; they may ask at different paces.

    The kernel gives the lock of a dead process back. Where the file cannot be used, or another process keeps the lock,
    the log says so once, and the times are this client's own.
    """

    def __init__(self, path: Path | None = None, *, clock: Clock = time.monotonic) -> None:
        self._times, self._clock, self._lock = Times(), clock, threading.Lock()
        self._path = path
        self._file: FileIO | None = None
        if path:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = FileIO(path, "r+", opener=_opened)
                weakref.finalize(self, self._file.close)
            except OSError as error:
                self._have_own(error)

    @contextmanager
    def locked(self, wait: Wait = time.sleep) -> Generator[Times]:
        """The times, for this thread of this process alone. `wait` may raise while another process has them."""
        with self._lock:
            if self._file:
                self._read(self._file, wait)
            try:
                yield self._times
            finally:
                if self._file:
                    self._write(self._file)

    def _read(self, file: FileIO, wait: Wait) -> None:
        latest = self._clock() + _LONGEST_LOCK_SECONDS
        try:
            while not _is_locked(file):
                if self._clock() > latest:
                    held = f"another process has had its lock for {_LONGEST_LOCK_SECONDS:g} seconds; it may be stopped"
                    raise TimeoutError(held)
                wait(_LOOK_AGAIN_SECONDS)
            content = os.pread(file.fileno(), _FORMAT.size, 0)
        except OSError as error:
            self._have_own(error)
            return
        found = _FORMAT.unpack(content) if len(content) == _FORMAT.size else ()
        furthest = self._clock() + _FURTHEST_SECONDS
        # What is no time of now could keep all waiting for ever.
        self._times = Times(*found) if found and all(0 <= one < furthest for one in found) else Times()

    def _write(self, file: FileIO) -> None:
        try:
            os.pwrite(
                file.fileno(), _FORMAT.pack(self._times.next_turn, self._times.held_until, self._times.next_sent), 0
            )
            fcntl.flock(file, fcntl.LOCK_UN)
        except OSError as error:
            self._have_own(error)

    def _have_own(self, error: OSError) -> None:
        if self._file:
            self._file.close()  # and with it the lock
            self._file = None
        _LOG.warning(
            "The pace of requests to m3ter is not shared with the other processes of this machine: %s: %s. Exports at "
            "the same time each ask M3TER_REQUESTS_PER_SECOND times a second.",
            self._path,
            error.strerror or error,
        )


def times_file(folder: Path, *, base_url: str, org_id: str) -> Path:
    """The file in `folder` of all that ask this Organization at this address, until the machine is started anew.

    Clocks of other machines, which may have the folder as well, and of before have nothing to do with this one's.
    """
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # no Linux
        machine = f"{platform.node()} since {(time.time() - time.monotonic()) // 600}"
    return folder / hashlib.sha256(f"{base_url.rstrip('/')} {org_id} {machine}".encode()).hexdigest()[:32]


class _Place(NamedTuple):
    """A place in the row, in the order of the turns."""

    gives_way: bool
    number: int
    since: float


class Pace:
    """Spaces requests evenly over all threads that share `times`, at most `per_second` of them sent in any second.

    While anybody waits, one turn is reserved for whoever is first in the row when it comes: processes take turns, so
    that none is served only because it wakes up faster. A turn lasts as long as its process's pace says.

    Whoever gives way takes a turn only when nobody else of this process waits for one. That costs no time, however long
    it lasts: all turns are used, and what is to be asked for once per record can be asked for side by side later,
    whereas each page of a cursor waits for the one before. Nor can it last for ever, since cursors end.
    """

    def __init__(self, per_second: float, *, clock: Clock = time.monotonic, times: SharedTimes | None = None) -> None:
        self._interval = _MARGIN / per_second
        self._clock = clock
        self._times = times or SharedTimes(clock=clock)
        self._row: list[_Place] = []
        self._numbers = itertools.count()
        self._turn: float | None = None
        self._lock = threading.Lock()

    def take_turn(self, wait: Wait, *, gives_way: bool = False) -> float:
        """Returns when the caller may send, and how many seconds it has waited."""
        wait(0)
        place = _Place(gives_way, next(self._numbers), self._clock())
        with self._lock:
            bisect.insort(self._row, place)
        try:
            while (left := self._seconds_left(place, wait)) > 0:
                wait(left)
        except BaseException:
            with self._lock:
                self._row.remove(place)
                self._turn = self._turn if self._row else None
            raise
        return self._clock() - place.since

    @contextmanager
    def sending(self, wait: Wait) -> Generator[None]:
        """Held while a request is written. Waits if others that took their turns before were sent late."""
        while True:
            with self._times.locked(wait) as times:
                left = times.next_sent - _SLACK_SECONDS - self._clock()
                if left <= 0:
                    try:
                        yield
                    finally:
                        times.next_sent = max(times.next_sent, self._clock()) + self._interval
                    return
            wait(left)

    def hold(self, seconds: float) -> None:
        """Let nobody send for this many seconds."""
        with self._times.locked() as times:
            times.held_until = max(times.held_until, self._clock() + seconds)

    def _seconds_left(self, place: _Place, wait: Wait) -> float:
        """How long to wait before asking again; the turn is taken when there is nothing left."""
        with self._lock:
            ahead = self._row.index(place)
            if ahead:
                return ahead * self._interval + max((self._turn or 0.0) - self._clock(), 0.0)
            with self._times.locked(wait) as times:
                if self._turn is None or self._turn < times.held_until:
                    # May have come already: those after one who woke up late make up for it.
                    self._turn = max(times.next_turn, times.held_until, place.since)
                    times.next_turn = self._turn + self._interval
            left = self._turn - self._clock()
            if left <= 0:
                self._row.remove(place)
                self._turn = None
            return left


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _is_locked(file: FileIO) -> bool:
    """Whether this process has got the lock; another has it for as long as it writes a request."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
