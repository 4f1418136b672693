"""Pages come from another thread as they would without it, and no more of them wait than there is room for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from m3ter_dagster.m3ter.client import Page
from m3ter_dagster.m3ter.errors import CursorStuck
from m3ter_dagster.reading.ahead import Room, read_ahead

LONG = 10.0
SIZE = 100


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Source:
    """Pages of `SIZE` bytes, and how many were asked for."""

    def __init__(self, number: int, *, failure: Exception | None = None) -> None:
        self.read = 0
        self.is_enough = threading.Event()
        """Set when a page after the first is asked for."""
        self._number = number
        self._failure = failure

    def __iter__(self) -> Iterator[Page]:
        for number in range(self._number):
            self.read += 1
            if number:
                self.is_enough.set()
            yield Page(b"%*d" % (SIZE, number))
        if self._failure:
            raise self._failure


def test_the_same_pages_come_in_the_same_order(threads: ThreadPoolExecutor) -> None:
    assert list(read_ahead(iter(Source(300)), Room(5 * SIZE), threads)) == list(Source(300))
    assert list(read_ahead(iter(Source(0)), Room(5 * SIZE), threads)) == []


def test_the_first_pages_come_one_by_one(threads: ThreadPoolExecutor) -> None:
    is_taken = threading.Event()

    def two_pages() -> Iterator[Page]:
        yield Page(b"[1]")
        assert is_taken.wait(LONG)
        yield Page(b"[2]")

    pages = read_ahead(two_pages(), Room(1 << 20), threads)
    assert next(pages) == Page(b"[1]")
    is_taken.set()
    assert list(pages) == [Page(b"[2]")]


def test_an_error_comes_after_the_pages_before_it(threads: ThreadPoolExecutor) -> None:
    pages = read_ahead(iter(Source(3, failure=CursorStuck("GET /meters"))), Room(1 << 20), threads)
    assert [next(pages) for _ in range(3)] == list(Source(3))
    with pytest.raises(CursorStuck, match="GET /meters"):
        next(pages)


def test_the_next_page_is_asked_for_while_one_is_taken(threads: ThreadPoolExecutor) -> None:
    source = Source(9)
    pages = read_ahead(iter(source), Room(1), threads)
    next(pages)
    assert source.is_enough.wait(LONG)
    pages.close()


def test_two_lists_share_one_room_and_each_gets_on(threads: ThreadPoolExecutor) -> None:
    """One of them is not taken at all while the other is."""
    room, idle, taken = Room(5 * SIZE), Source(500), Source(500)
    left = read_ahead(iter(idle), room, threads)
    next(left)
    for number, _ in enumerate(read_ahead(iter(taken), room, threads), start=1):
        assert (idle.read - 1) + (taken.read - number) <= 5 + 2
    assert len(list(left)) == 499


def test_pages_that_nobody_takes_any_more_make_room(threads: ThreadPoolExecutor) -> None:
    room, source = Room(2 * SIZE), Source(500)
    pages = read_ahead(iter(source), room, threads)
    next(pages)
    assert source.is_enough.wait(LONG)
    pages.close()
    threads.shutdown()
    assert source.read <= 5
    room.wait(lambda: False)


def test_whoever_waits_for_room_is_let_go_at_the_end(threads: ThreadPoolExecutor) -> None:
    room = Room(0)
    waiting = threads.submit(room.wait, lambda: False)
    room.stop()
    waiting.result(LONG)
