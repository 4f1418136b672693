"""The pages of lists: over a cursor, or of many lists side by side, read ahead of whoever takes them."""

from __future__ import annotations

import itertools
import json
import threading
from collections import deque
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from urllib.parse import quote

from m3ter_dagster.frames import raw_json
from m3ter_dagster.frames.raw_rows import raw_elements
from m3ter_dagster.m3ter.client import M3terClient, Page, record_answer
from m3ter_dagster.m3ter.errors import CursorExpired, M3terError, Refused
from m3ter_dagster.model.entity import Listing
from m3ter_dagster.reading.ahead import Room, Share, read_ahead


@dataclass(frozen=True)
class ReaderLimits:
    """How much is read side by side, and how often a list is read again."""

    lists_at_once: int = 16
    requests_at_once: int = 16
    """Threads for lists that are requested once per record of another; all share one pace."""
    bytes_ahead: int = 32 << 20
    """How many bytes of pages may wait to be decoded, over all lists together; of each list one page always may."""
    restarts: int = 3
    """How often a list whose cursor expired is read again."""
    pages_before_choice: int = 10
    """How many pages of a list come over its cursor before it is worth asking whether there is a faster way."""
    least_seconds_per_request: float = 0.005
    """What one more request takes on this machine, whatever the pace and however soon m3ter answers."""
    advantage: float = 1.1
    """How many times faster the other way must be, as far as can be estimated."""


class Pages:
    """Thread-safe, and so is each of its iterators for one thread at a time."""

    def __init__(self, client: M3terClient, limits: ReaderLimits) -> None:
        self.limits = limits
        self._client = client
        self._cursors = ThreadPoolExecutor(limits.lists_at_once, thread_name_prefix="cursor")
        self._requests = ThreadPoolExecutor(limits.requests_at_once, thread_name_prefix="request")
        self._room = Room(limits.bytes_ahead)
        self._to_come = 0
        self._counting = threading.Lock()

    @property
    def to_come(self) -> int:
        """How many lists are still to be read side by side."""
        return self._to_come

    @property
    def seconds_per_request(self) -> float:
        """Of those that are made side by side, at the pace that all requests share."""
        return max(1 / self._client.limits.requests_per_second, self.limits.least_seconds_per_request)

    def over_cursor(self, listing: Listing) -> Generator[Page]:
        """Every page of the list. CursorExpired: what was read must be dropped and the list read again."""
        return read_ahead(self._client.pages(listing), self._room, self._cursors)

    def newest(self, listing: Listing) -> Iterator[Page]:
        """The pages of a list from its first on, none of them read ahead: for whoever needs only a few."""
        return self._client.pages(listing)

    def record(self, listing: Listing, record_id: str) -> Mapping[str, bytes] | None:
        """The JSON of each field of a record, asked for by itself; None if there is none (404).

        M3terError: m3ter does not say.
        """
        try:
            answer = self._client.get(f"{listing.path}/{quote(record_id, safe='')}", record_answer)
            return dict(raw_json.members(answer))
        except Refused as refusal:
            if refusal.status != 404:
                raise
            return None

    def side_by_side(
        self,
        listing: Listing,
        parents: Collection[str],
        *,
        gone: list[str] | None = None,
        at_most: int | None = None,
    ) -> Iterator[Page]:
        """Every page (or `at_most` so many) of the lists of these parents, in their order.

        Parents whose list does not exist (404) are added to `gone`, if it is given.
        """
        number = len(parents)
        share, waiting = Share(), deque[Future[Sequence[Page]]]()
        self._count(number)

        def taken() -> Iterator[Page]:
            for page in waiting.popleft().result():
                self._room.free(share, len(page.rows))
                yield page
            self._room.advance(share)
            self._count(-1)

        try:
            for place, parent in enumerate(parents):
                waiting.append(self._requests.submit(self._list, listing, parent, share, place, gone, at_most))
                if len(waiting) > 2 * self.limits.requests_at_once:  # more would not be any faster
                    yield from taken()
            while waiting:
                yield from taken()
        finally:
            self._room.close(share)
            self._count(share.first - number)

    def stop(self) -> None:
        """Let nobody wait for room any more."""
        self._room.stop()

    def close(self) -> None:
        """Returns when no thread is working any more; nobody may be taking pages."""
        self._cursors.shutdown(wait=True, cancel_futures=True)
        self._requests.shutdown(wait=True, cancel_futures=True)

    def _count(self, lists: int) -> None:
        with self._counting:
            self._to_come += lists

    def _list(
        self, listing: Listing, parent: str, share: Share, place: int, gone: list[str] | None, at_most: int | None
    ) -> Sequence[Page]:
        of_parent = listing.of_parent(parent)
        for restarts in itertools.count():
            read: list[Page] = []
            try:
                self._room.wait(lambda: share.first == place)
                for page in itertools.islice(self._client.pages(of_parent, gives_way=True), at_most):
                    rows = _belonging(page.rows, parent, listing)
                    self._room.fill(share, len(rows))
                    read.append(replace(page, rows=rows, parent=parent))
                    self._room.wait(lambda: share.first == place)
                return read
            except CursorExpired as expired:
                self._room.free(share, sum(len(page.rows) for page in read))
                if restarts == self.limits.restarts:
                    raise M3terError(str(expired)) from None
            except Refused as refusal:
                if gone is None or refusal.status != 404:
                    raise
                gone.append(parent)
                return []
        raise AssertionError


def _belonging(rows: bytes, parent: str, listing: Listing) -> bytes:
    """The records of a page with the id of their parent, which m3ter's do not have if there is a field for it."""
    if not listing.for_each or not listing.for_each.field:
        return rows
    field = listing.for_each.field
    told = f"{json.dumps(field)}:{json.dumps(parent)}".encode()
    return b"[%b]" % b",".join(_with_parent(record.strip(), field, told) for record in raw_elements(rows))


def _with_parent(record: bytes, field: str, told: bytes) -> bytes:
    if not record.startswith(b"{"):
        return record
    others = record[1:-1].strip()
    if field.encode() in record:  # m3ter may tell it one day, and then it must not be there twice
        members = [(name, value) for name, value in raw_json.members(record) if name != field]
        others = b",".join(b"%b:%b" % (json.dumps(name).encode(), value) for name, value in members)
    return b"{%b}" % b",".join(filter(None, (others, told)))
