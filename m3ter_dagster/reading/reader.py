"""Reads entities of an Organization side by side, each list once, however many entities come from its pages."""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from m3ter_dagster import telemetry
from m3ter_dagster.m3ter.client import M3terClient, Page
from m3ter_dagster.m3ter.errors import CursorExpired, M3terError
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity, Listing
from m3ter_dagster.reading.collectors import Collecting, Collector, RecordIds
from m3ter_dagster.reading.completeness import Completing, Recorded
from m3ter_dagster.reading.id_filter import IDS_AT_ONCE, IdFilter, ids_of
from m3ter_dagster.reading.long_list import LongList, ReadAnew
from m3ter_dagster.reading.pages import Pages, ReaderLimits
from m3ter_dagster.reading.past import Past
from m3ter_dagster.reading.reading import EntityUnreadable, Reading
from m3ter_dagster.reading.reuse import Reusing
from m3ter_dagster.reading.spool import Batches, Spool

C = TypeVar("C", bound=Collector)


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
        self._folder = folder
        self._stop = stop
        self._limits = limits
        self._batches = batches
        self._lists = ThreadPoolExecutor(limits.lists_at_once, thread_name_prefix="list")
        self._pages = Pages(client, limits)
        self._readings: dict[str, Future[Reading]] = {}
        self._collected: dict[tuple[Listing, type[Collector]], Future[Any]] = {}
        self._spools: dict[str, Spool] = {}
        self._completings: dict[str, Completing] = {}
        self._past: Past | None = None
        self._numbers = itertools.count(1)
        self._trace = telemetry.here()

    def start(
        self,
        chosen: Iterable[Entity],
        collectors: Iterable[tuple[Listing, type[Collector]]] = (),
        *,
        past: Past | None = None,
    ) -> None:
        """Start reading these entities and collecting from these lists; what was started before goes on.

        A list that is needed for both is read once. With a `past`, which the first call may give, lists are read on
        until nothing of them is missing, and what is gone since then is kept as deleted. An export in it spares
        requests if the entity's parents are chosen too.
        """
        self._past = self._past or past
        lists: dict[Listing, _Wanted] = defaultdict(_Wanted)
        for entity in chosen:
            if entity.name not in self._readings:
                self._readings[entity.name] = lists[entity.listing].readings[entity] = Future()
        for key in collectors:
            self._start_to_collect(key, lists)
        for listing in list(lists):
            if listing.for_each or (listing.per_parent and _ids_for(listing)[0] in lists):
                self._start_to_collect(_ids_for(listing), lists)
        reusing = {listing: self._reusing(listing, wanted) for listing, wanted in lists.items()}
        # A list that waits for the ids of another comes after it: it must not occupy the thread that would read them.
        for listing in sorted(lists, key=lambda one: bool(one.for_each or reusing[one])):
            ids = self._collected[_ids_for(listing)] if listing.for_each else None
            self._lists.submit(self._read_list, listing, lists[listing], ids, reusing[listing])

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
                more = self._completings[entity.name].progress if entity.name in self._completings else ""
                waiting(f"{spool.rows:,} rows in {spool.requests:,} requests so far{more}" if spool else "not started")
        if future.exception():
            del self._readings[entity.name]
            self._forget_ids_for(entity.listing)
        return future.result()

    def so_far(self) -> Mapping[str, tuple[int, int]]:
        """The rows and the requests of each entity, of those that are being read or were."""
        return {name: (spool.rows, spool.requests) for name, spool in self._spools.copy().items()}

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

    def has(self, entity: Entity, ids: Sequence[str]) -> list[str] | None:
        """Which of the records of an entity that was read m3ter has, although its list has not given them.

        None: that is not known. M3terError: m3ter does not say.
        """
        reading, listing = self.already_read(entity), entity.listing
        if not reading or listing.for_each:  # which lists not all that there is by their ids
            return None
        known = reading.frame.select(entity.primary_key).head(IDS_AT_ONCE).collect().to_series().to_list()
        pages = IdFilter(self._pages).find(listing, known, ids)
        return None if pages is None else [one for page in pages for one in ids_of(page)]

    def close(self) -> None:
        """End all reading; returns when no thread is working any more."""
        self._stop.set()
        self._pages.stop()
        self._lists.shutdown(wait=True, cancel_futures=True)
        self._pages.close()

    def _start_to_collect(self, key: tuple[Listing, type[Collector]], lists: Mapping[Listing, _Wanted]) -> None:
        if key not in self._collected:
            listing, kind = key
            self._collected[key] = lists[listing].collected[kind] = Future()

    def _forget_ids_for(self, listing: Listing) -> None:
        """Forget a failed reading, so that the next call reads again: the record that it was due to may be gone."""
        if listing.parent:
            self._collected.pop(_ids_for(listing), None)

    def _reusing(self, listing: Listing, wanted: _Wanted) -> Reusing | None:
        """Where an entity is all that is wanted of a list, an earlier export may spare requests."""
        entity, parents = next(iter(wanted.readings), None), self._readings.get(listing.parent or "")
        is_alone = len(wanted.readings) + len(wanted.collected) == 1
        reused = self._past.reused if self._past else {}
        if not (entity and parents and is_alone and entity.name in reused):
            return None
        folder = self._folder / f"{entity.name}-earlier-{next(self._numbers)}"
        return Reusing(reused[entity.name], entity, parents, self._pages, folder)

    def _read_list(
        self, listing: Listing, wanted: _Wanted, ids: Future[RecordIds] | None, reusing: Reusing | None = None
    ) -> None:
        """Read a list, and settle everything that is wanted from it."""
        long = LongList(listing, self._pages, lambda: self._ids_for(listing)) if listing.per_parent else None
        names = [entity.name for entity in wanted.readings]
        with telemetry.span("m3ter.list", self._trace, path=listing.path, entity=names) as span:
            try:
                if long and reusing:
                    reusing.prepare(long)
                spools, collectors, completing = self._read_to_the_end(listing, wanted, ids, long, reusing)
            except Exception as error:
                span.failed(error)
                for entity, reading in wanted.readings.items():
                    reading.set_exception(_unreadable(entity.name, error))
                for collected in wanted.collected.values():
                    collected.set_exception(error)
                return
            for kind, collected in wanted.collected.items():
                collectors[kind].settle(collected)
            for spool in spools:
                self._settle(wanted.readings[spool.entity], spool, long, reusing, completing)
            # Only now: the last pages are decoded when an entity is settled.
            span.set(rows=sum(one.rows for one in spools), requests=max((one.requests for one in spools), default=0))

    def _read_to_the_end(
        self,
        listing: Listing,
        wanted: _Wanted,
        ids: Future[RecordIds] | None,
        long: LongList | None,
        reusing: Reusing | None,
    ) -> tuple[list[Spool], dict[type[Collector], Collecting], Completing | None]:
        restarts = 0
        while True:
            spools = [self._spool(entity) for entity in wanted.readings]
            collectors = {kind: Collecting(kind()) for kind in wanted.collected}
            try:
                for rows in reusing.spared_rows(long) if long and reusing else ():
                    for spool in spools:
                        spool.add_rows(rows)
                pages = long.pages() if long else self._pages_of(listing, ids)
                recorded = _recorded(spools)
                completing = self._completing(listing, wanted, recorded)
                takers = [*collectors.values(), *spools, *([recorded] if isinstance(recorded, Recorded) else [])]
                for page in completing.read(pages) if completing else pages:
                    for taker in takers:
                        taker.add(page.rows)
                return spools, collectors, completing
            except Exception as error:
                for spool in spools:
                    spool.discard()
                restarts += isinstance(error, CursorExpired)
                if not isinstance(error, CursorExpired | ReadAnew) or restarts > self._limits.restarts:
                    raise

    def _completing(self, listing: Listing, wanted: _Wanted, recorded: Spool | Recorded) -> Completing | None:
        past = self._past
        if past is None:
            return None
        find_earlier = partial(past.records, listing)
        found = Completing(listing, self._pages, recorded.records, find_earlier, two_passes=past.two_passes)
        self._completings |= {entity.name: found for entity in wanted.readings}
        return found

    def _settle(
        self,
        future: Future[Reading],
        spool: Spool,
        long: LongList | None,
        reusing: Reusing | None,
        completing: Completing | None,
    ) -> None:
        try:
            reading = replace(spool.finish(), how=long.how if long else None)
            if long and reusing:
                reading = reusing.completed(reading, long)
            if completing and self._past:
                folder = self._folder / f"{spool.entity.name}-deleted-{next(self._numbers)}"
                reading = self._past.completed(reading, completing.result, folder)
            future.set_result(reading)
        except Exception as error:
            spool.discard()
            future.set_exception(_unreadable(spool.entity.name, error))

    def _spool(self, entity: Entity) -> Spool:
        spool = Spool(entity, self._folder / f"{entity.name}-{next(self._numbers)}", batches=self._batches)
        self._spools[entity.name] = spool
        return spool

    def _pages_of(self, listing: Listing, ids: Future[RecordIds] | None) -> Iterator[Page]:
        """The pages of a list; if it is requested once per record of another, in the order of the records."""
        if not listing.for_each or not ids:
            yield from self._pages.over_cursor(listing)
            return
        parent = listing.for_each.entity
        records = ids.result()
        if records.missing and parent not in self._readings:  # where the parents are read too, they report it
            raise M3terError(
                f"{records.missing} of the {parent} records have no id, so what belongs to them is unknown."
            )
        gone: list[str] = []
        yield from self._pages.side_by_side(listing, records.unique(), gone=gone)
        for one in gone:
            if self._pages.record(entities()[parent].listing, one) is not None:
                raise M3terError(
                    f"m3ter says with status 404 that there is no {listing.path} of {parent} {one}, which is there."
                )

    def _ids_for(self, listing: Listing) -> Future[RecordIds]:
        """The ids that are collected in any case, or are from now on."""
        key = _ids_for(listing)
        if key in self._collected:
            return self._collected[key]
        parents, ids = key[0], Future[RecordIds]()
        assert not parents.for_each
        self._lists.submit(self._read_list, parents, _Wanted(collected={RecordIds: ids}), None)
        return ids


@dataclass(frozen=True)
class _Wanted:
    """Everything that is wanted from the pages of one list."""

    readings: dict[Entity, Future[Reading]] = field(default_factory=dict)
    collected: dict[type[Collector], Future[Any]] = field(default_factory=dict)


def _recorded(spools: Sequence[Spool]) -> Spool | Recorded:
    """What has the records of a list: a spool of the records themselves, or one of their elements, or nothing yet."""
    return min(spools, key=lambda spool: len(spool.entity.elements), default=None) or Recorded()


def _unreadable(entity: str, error: Exception) -> Exception:
    """An error as the entity's: worded if a person can act on it; a fault of this project stays as it is."""
    if not isinstance(error, M3terError | OSError):
        return error
    return EntityUnreadable(entity, error, passes=isinstance(error, M3terError) and error.passes)


def _ids_for(listing: Listing) -> tuple[Listing, type[Collector]]:
    """What is taken from the list of its parents."""
    assert listing.parent
    return entities()[listing.parent].listing, RecordIds
