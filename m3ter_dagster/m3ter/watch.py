"""Ends requests that take too long. A timeout of a socket begins anew with every byte, and a drip never ends."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

_LOOK_EVERY = 1.0


@dataclass(eq=False)
class Watched:
    """A request on its way."""

    until: float
    connection: socket.socket | None = None
    """What it was sent over, once it was."""
    is_over: bool = False
    """Whether it was ended: whatever has arrived by then may look whole, and is not."""


class Watch:
    """Ends each request after so many seconds, and all of them `stop_seconds` after `stop`. Thread-safe."""

    def __init__(self, stop: threading.Event, *, seconds: float, stop_seconds: float) -> None:
        self._stop = stop
        self._seconds = seconds
        self._stop_seconds = stop_seconds
        self._look_every = min(_LOOK_EVERY, seconds / 10)
        self._lock = threading.Lock()
        self._watched: set[Watched] = set()
        self._looks = False
        self._of_thread = threading.local()

    @contextmanager
    def over(self) -> Generator[Watched]:
        """While the calling thread sends a request and reads its answer."""
        watched = self._of_thread.watched = Watched(time.monotonic() + self._seconds)
        with self._lock:
            self._watched.add(watched)
            if not self._looks:
                self._looks = True
                threading.Thread(target=self._look, name="watch", daemon=True).start()
        try:
            yield watched
        finally:
            # Under the lock, so that the connection is not cut when others use it.
            with self._lock:
                self._watched.remove(watched)

    def sending(self, connection: socket.socket) -> None:
        """The calling thread's request is sent over this."""
        self._of_thread.watched.connection = connection

    def _look(self) -> None:
        """Runs as long as there are requests."""
        while True:
            if is_stopped := self._stop.wait(self._look_every):
                time.sleep(self._stop_seconds)
            with self._lock:
                for one in self._watched:
                    if is_stopped or time.monotonic() > one.until:
                        _cut(one)
                self._looks = bool(self._watched)
                if not self._looks:
                    return


def _cut(request: Watched) -> None:
    """Let the thread that reads find the end of the stream."""
    request.is_over = True
    if request.connection is not None:
        with suppress(OSError):
            # That of TLS sockets would take the TLS away from under the thread that reads.
            socket.socket.shutdown(request.connection, socket.SHUT_RDWR)
