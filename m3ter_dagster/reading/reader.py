"""Reads entities of an Organization side by side, each list once, however many entities come from its pages."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from m3ter_dagster.m3ter.client import M3terClient, Page
from m3ter_dagster.m3ter.errors import CursorExpired, M3terError
from m3ter_dagster.model.entities import Entity, Listing, entities
from m3ter_dagster.reading.ahead import Room, Share, read_ahead
from m3ter_dagster.reading.collectors import Collector, RecordIds
from m3ter_dagster.reading.reading import EntityUnreadable, Reading
from m3ter_dagster.reading.spool import Batches, Spool

C = TypeVar("C", bound=Collector)


@dataclass(frozen=True)
class ReaderLimits:
    """How much is read side by side, and how often a list is read again."""

    lists_at_once: int = 16
    requests_at_once: int = 16
    """Threads for lists that are requested once per record of another; all share one pace."""
    bytes_ahead: int = 8 << 20
    """How many bytes of pages may wait to be decoded, over all lists together; of each list one page always may."""
    restarts: int = 3
    """How often a list whose cursor expired is read again."""


class OrganizationReader:
    """Reads entities, and whatever others collect from the same pages. Rows are kept under `folder`, which the caller
    owns.

    `start`, `read` and `collected` are for one thread; the reading itself happens in others.
    """

    def __init__(
        self,
        client: M3terClient,
        folder: Path,
        *,
        stop: threading.Event,
        limits: ReaderLimits = ReaderLimits(),
        batches: Batches = Batches(),
    ) -> None:
        self._client = client
        self._folder = folder
        self._stop = stop
        self._limits = limits
        self._batches = batches
        self._lists = ThreadPoolExecutor(limits.lists_at_once, thread_name_prefix="list")
        self._cursors = ThreadPoolExecutor(limits.lists_at_once, thread_name_prefix="cursor")
        self._requests = ThreadPoolExecutor(limits.requests_at_once, thread_name_prefix="request")
        self._room = Room(limits.bytes_ahead)
        self._readings: dict[str, Future[Reading]] = {}
        self._collected: dict[tuple[Listing, type[Collector]], Future[Any]] = {}
        self._spools: dict[str, Spool] = {}
        self._numbers = itertools.count(1)

    def start(self, chosen: Iterable[Entity], collectors: Iterable[tuple[Listing, type[Collector]]] = ()) -> None:
        """Start reading these entities and collecting from these lists; what was started before goes on.

        A list that is needed for both is read once.
        """
        lists: dict[Listing, _Wanted] = defaultdict(_Wanted)
        for entity in chosen:
            if entity.name not in self._readings:
                self._readings[entity.name] = lists[entity.listing].readings[entity] = Future()
        for key in collectors:
            self._start_to_collect(key, lists)
        for listing in list(lists):
            if listing.for_each:
                self._start_to_collect(_ids_for(listing), lists)
        # A list that waits for the ids of another comes after it: it must not occupy the thread that would read them.
        for listing in sorted(lists, key=lambda one: one.for_each is not None):
            ids = self._collected[_ids_for(listing)] if listing.for_each else None
            self._lists.submit(self._read_list, listing, lists[listing], ids)

    def read(self, entity: Entity, *, waiting: Callable[[str], None], every: float = 5.0) -> Reading:
        """The entity's Reading, once it is whole; `waiting` is told how far it is every few seconds.

        SchemaBreached, EntityUnreadable: after one of them the next call reads again.
        """
        self.start([entity])
        future = self._readings[entity.name]
        while not future.done():
            try:
                future.exception(timeout=every)
            except TimeoutError:
                spool = self._spools.get(entity.name)
                waiting(f"{spool.rows:,} rows in {spool.requests:,} requests so far" if spool else "not started")
        if future.exception():
            del self._readings[entity.name]
            self._forget_ids_for(entity.listing)
        return future.result()

    def collected(self, listing: Listing, kind: type[C]) -> C:
        """The collector, once it has seen the whole list.

        M3terError, or what the collector raised: after one of them the next call reads again.
        """
        self.start((), [(listing, kind)])
        future = self._collected[listing, kind]
        if future.exception():
            del self._collected[listing, kind]
            self._forget_ids_for(listing)
        return future.result()

    def already_read(self, entity: Entity) -> Reading | None:
        """The entity's Reading if it is whole by now; starts no reading."""
        future = self._readings.get(entity.name)
        return future.result() if future and future.done() and not future.exception() else None

    def close(self) -> None:
        """End all reading; returns when no thread is working any more."""
        self._stop.set()
        self._room.stop()
        self._lists.shutdown(wait=True, cancel_futures=True)  # first: what its threads wait for comes from the others
        self._cursors.shutdown(wait=True, cancel_futures=True)
        self._requests.shutdown(wait=True, cancel_futures=True)

    def _start_to_collect(self, key: tuple[Listing, type[Collector]], lists: Mapping[Listing, _Wanted]) -> None:
        if key not in self._collected:
            listing, kind = key
            self._collected[key] = lists[listing].collected[kind] = Future()

    def _forget_ids_for(self, listing: Listing) -> None:
        """Forget a failed reading, so that the next call reads again: the record that it was due to may be gone."""
        if listing.for_each:
            self._collected.pop(_ids_for(listing), None)

    def _read_list(self, listing: Listing, wanted: _Wanted, ids: Future[RecordIds] | None) -> None:
        """Read a list, and settle everything that is wanted from it."""
        try:
            spools, collectors = self._read_to_the_end(listing, wanted, ids)
        except Exception as error:
            for entity, reading in wanted.readings.items():
                reading.set_exception(_unreadable(entity.name, error))
            for collected in wanted.collected.values():
                collected.set_exception(error)
            return
        for kind, collected in wanted.collected.items():
            collectors[kind].settle(collected)
        for spool in spools:
            _settle(wanted.readings[spool.entity], spool)

    def _read_to_the_end(
        self, listing: Listing, wanted: _Wanted, ids: Future[RecordIds] | None
    ) -> tuple[list[Spool], dict[type[Collector], _Collecting]]:
        for restarts in itertools.count():
            spools = [self._spool(entity) for entity in wanted.readings]
            collectors = {kind: _Collecting(kind()) for kind in wanted.collected}
            try:
                for page in self._pages(listing, ids):
                    for taker in (*collectors.values(), *spools):
                        taker.add(page.rows)
            except Exception as error:
                for spool in spools:
                    spool.discard()
                if not isinstance(error, CursorExpired) or restarts == self._limits.restarts:
                    raise
            else:
                break
        return spools, collectors

    def _spool(self, entity: Entity) -> Spool:
        spool = Spool(entity, self._folder / f"{entity.name}-{next(self._numbers)}", batches=self._batches)
        self._spools[entity.name] = spool
        return spool

    def _pages(self, listing: Listing, ids: Future[RecordIds] | None) -> Iterator[Page]:
        """The pages of a list; if it is requested once per record of another, in the order of the records."""
        if not listing.for_each or not ids:
            yield from read_ahead(self._client.pages(listing), self._room, self._cursors)
            return
        parent, parameter = listing.for_each
        records = ids.result()
        if records.missing and parent not in self._readings:  # where the parents are read too, they report it
            raise M3terError(
                f"{records.missing} of the {parent} records have no id, so what belongs to them is unknown."
            )
        yield from self._side_by_side(listing, [{parameter: record_id} for record_id in records.unique()])

    def _side_by_side(self, listing: Listing, lists: Sequence[dict[str, str]]) -> Iterator[Page]:
        """The pages of a list with each of these parameters, in their order."""
        share, waiting = Share(), deque[Future[Sequence[Page]]]()

        def first() -> Iterator[Page]:
            for page in waiting.popleft().result():
                self._room.free(share, len(page.rows))
                yield page
            self._room.advance(share)

        try:
            for number, parameters in enumerate(lists):
                waiting.append(self._requests.submit(self._list_of_one, listing, parameters, share, number))
                if len(waiting) > 2 * self._limits.requests_at_once:  # more would not be any faster
                    yield from first()
            while waiting:
                yield from first()
        finally:
            self._room.close(share)

    def _list_of_one(self, listing: Listing, parameters: dict[str, str], share: Share, number: int) -> Sequence[Page]:
        for restarts in itertools.count():
            read: list[Page] = []
            try:
                self._room.wait(lambda: share.first == number)
                for page in self._client.pages(listing, gives_way=True, **parameters):
                    self._room.fill(share, len(page.rows))
                    read.append(page)
                    self._room.wait(lambda: share.first == number)
                return read
            except CursorExpired as expired:
                self._room.free(share, sum(len(page.rows) for page in read))
                if restarts == self._limits.restarts:
                    raise M3terError(str(expired)) from None
        raise AssertionError


@dataclass(frozen=True)
class _Wanted:
    """Everything that is wanted from the pages of one list."""

    readings: dict[Entity, Future[Reading]] = field(default_factory=dict)
    collected: dict[type[Collector], Future[Any]] = field(default_factory=dict)


class _Collecting:
    """A collector whose failure does not fail the list."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._failure: Exception | None = None

    def add(self, page: bytes) -> None:
        try:
            if not self._failure:
                self._collector.add(page)
        except Exception as failure:
            self._failure = failure

    def settle(self, future: Future[Any]) -> None:
        if self._failure:
            future.set_exception(self._failure)
        else:
            future.set_result(self._collector)


def _settle(future: Future[Reading], spool: Spool) -> None:
    try:
        future.set_result(spool.finish())
    except Exception as error:
        spool.discard()
        future.set_exception(_unreadable(spool.entity.name, error))


def _unreadable(entity: str, error: Exception) -> Exception:
    """An error as the entity's: worded if a person can act on it; a fault of this project stays as it is."""
    return EntityUnreadable(entity, error) if isinstance(error, M3terError | OSError) else error


def _ids_for(listing: Listing) -> tuple[Listing, type[Collector]]:
    """The list that this one waits for, if it is requested once per record of another."""
    assert listing.for_each
    return entities()[listing.for_each[0]].listing, RecordIds
