"""Pages that are read ahead of whoever takes them, with one limit to their bytes over all lists together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import SimpleQueue

from m3ter_dagster.m3ter.client import Page

AT_ONCE = 1 << 20
"""How many bytes of pages are handed over at once, or a tenth of those before if that is less: no page waits long."""


@dataclass
class Share:
    """What one list has in the room."""

    bytes: int = 0
    first: int = 0
    """Of lists that are read side by side and taken in their order: the number of the one that is taken now."""
    is_closed: bool = False


class Room:
    """Room for `most` bytes of pages that were read and not yet taken. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._is_stopped = False
        self._changed = threading.Condition()

    def wait(self, is_needed: Callable[[], bool]) -> None:
        """Wait for room, unless this very page is what its taker waits for: then it comes whatever its size."""
        with self._changed:
            self._changed.wait_for(lambda: self._bytes < self._most or self._is_stopped or is_needed())

    def fill(self, share: Share, size: int) -> bool:
        """Returns whether it is full now."""
        with self._changed:
            if not share.is_closed:
                share.bytes += size
                self._bytes += size
            return self._bytes >= self._most

    def free(self, share: Share, size: int) -> None:
        self.fill(share, -size)
        with self._changed:
            self._changed.notify_all()

    def advance(self, share: Share) -> None:
        """The next of the lists that are read side by side is taken now."""
        with self._changed:
            share.first += 1
            self._changed.notify_all()

    def close(self, share: Share) -> None:
        """Nobody takes any more of these pages."""
        with self._changed:
            self.free(share, share.bytes)
            share.is_closed = True

    def stop(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()


def read_ahead(pages: Iterator[Page], room: Room, threads: Executor) -> Generator[Page]:
    """The same pages and the same error, read by another thread while the caller is busy with those before.

    The caller is not woken for each page: of a long list it gets some at once.
    """
    share, arrived = Share(), SimpleQueue[list[Page] | Exception | None]()

    def read() -> None:
        some, size, before = list[Page](), 0, 0
        try:
            for page in pages:
                some.append(page)
                size += len(page.rows)
                is_full = room.fill(share, len(page.rows))
                if is_full or size >= min(before / 10, AT_ONCE):
                    arrived.put(some)
                    some, size, before = [], 0, before + size
                room.wait(lambda: share.bytes == 0)
                if share.is_closed:
                    return
            arrived.put(some)
            arrived.put(None)
        except Exception as error:
            arrived.put(some)
            arrived.put(error)

    threads.submit(read)
    try:
        while (some := arrived.get()) is not None:
            if isinstance(some, Exception):
                raise some
            for page in some:
                room.free(share, len(page.rows))
                yield page
    finally:
        room.close(share)
