"""Reads entities of an organization side by side, each list once, however many entities come from its pages."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from m3ter_dagster.m3ter.client import M3terClient, Page
from m3ter_dagster.m3ter.errors import CursorExpired, M3terError
from m3ter_dagster.model.entities import Entity, Listing, entities
from m3ter_dagster.reading.reading import Reading
from m3ter_dagster.reading.record_ids import RecordIds
from m3ter_dagster.reading.spool import Batches, Spool

LISTS_AT_ONCE = 16
REQUESTS_AT_ONCE = 16
"""For lists that are asked for once per record of another; the pace is common to all."""
RESTARTS = 3
"""How often a list whose cursor expired is read anew."""


class EntityUnreadable(Exception):
    """The list of an entity could not be read to its end."""

    def __init__(self, entity: str, cause: Exception) -> None:
        super().__init__(f"{entity} is not exported because its list could not be read: {cause}")


class OrganizationReader:
    """Gives each entity's Reading. Rows are kept under `folder`, which the caller owns.

    `start` and `read` are for one thread; the reading itself happens in others.
    """

    def __init__(
        self, client: M3terClient, folder: Path, *, stop: threading.Event, batches: Batches = Batches()
    ) -> None:
        self._client = client
        self._folder = folder
        self._stop = stop
        self._batches = batches
        self._lists = ThreadPoolExecutor(LISTS_AT_ONCE, thread_name_prefix="list")
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="request")
        self._readings: dict[str, Future[Reading]] = {}
        self._ids: dict[str, Future[RecordIds]] = {}
        self._spools: dict[str, Spool] = {}
        self._numbers = itertools.count(1)

    def start(self, chosen: Iterable[Entity]) -> None:
        """Begin to read these entities; what has begun already goes on."""
        lists: dict[Listing, list[Entity]] = {}
        for entity in chosen:
            if entity.name not in self._readings:
                self._readings[entity.name] = Future()
                lists.setdefault(entity.listing, []).append(entity)
        parents = {listing.for_each[0] for listing in lists if listing.for_each} - self._ids.keys()
        for parent in parents:
            self._ids[parent] = Future()
            lists.setdefault(entities()[parent].listing, [])
        for listing, members in lists.items():
            wanted = [parent for parent in parents if entities()[parent].listing == listing]
            self._lists.submit(self._read_list, listing, members, wanted)

    def read(self, entity: Entity, *, waiting: Callable[[str], None], every: float = 5.0) -> Reading:
        """The entity's Reading, once it is whole; `waiting` is told how far it is every few seconds.

        SchemaBreached, EntityUnreadable: after one of them the next call reads anew.
        """
        self.start([entity])
        future = self._readings[entity.name]
        while not future.done():
            try:
                future.exception(timeout=every)
            except TimeoutError:
                waiting(self._progress(entity))
        if future.exception():
            self._forget(entity)
        return future.result()

    def already_read(self, entity: Entity) -> Reading | None:
        """The entity's Reading if it is whole by now; begins none."""
        future = self._readings.get(entity.name)
        return future.result() if future and future.done() and not future.exception() else None

    def close(self) -> None:
        """End all reading; returns when no thread does anything any more."""
        self._stop.set()
        self._lists.shutdown(wait=True, cancel_futures=True)
        self._requests.shutdown(wait=True, cancel_futures=True)

    def _forget(self, entity: Entity) -> None:
        del self._readings[entity.name]
        if entity.listing.for_each:
            self._ids.pop(entity.listing.for_each[0], None)

    def _progress(self, entity: Entity) -> str:
        spool = self._spools.get(entity.name)
        return f"{spool.rows:,} rows in {spool.requests:,} requests so far" if spool else "not begun yet"

    def _read_list(self, listing: Listing, members: Sequence[Entity], wanted_ids: Sequence[str]) -> None:
        """Settles the future of everything that comes from this list."""
        try:
            spools, ids = self._read_to_the_end(listing, members, wants_ids=bool(wanted_ids))
        except Exception as error:
            for entity in members:
                self._readings[entity.name].set_exception(_unreadable(entity, error))
            for name in wanted_ids:
                self._ids[name].set_exception(error)
            return
        for name in wanted_ids:
            self._ids[name].set_result(ids)
        for spool in spools:
            _settle(self._readings[spool.entity.name], spool)

    def _read_to_the_end(
        self, listing: Listing, members: Sequence[Entity], *, wants_ids: bool
    ) -> tuple[list[Spool], RecordIds]:
        for restarts in itertools.count():
            spools, ids = [self._spool(entity) for entity in members], RecordIds()
            try:
                for page in self._pages(listing):
                    if wants_ids:
                        ids.add(page.rows)
                    for spool in spools:
                        spool.add(page.rows)
            except Exception as error:
                for spool in spools:
                    spool.discard()
                if not isinstance(error, CursorExpired) or restarts == RESTARTS:
                    raise
            else:
                break
        return spools, ids

    def _spool(self, entity: Entity) -> Spool:
        spool = Spool(entity, self._folder / f"{entity.name}-{next(self._numbers)}", batches=self._batches)
        self._spools[entity.name] = spool
        return spool

    def _pages(self, listing: Listing) -> Iterator[Page]:
        if not listing.for_each:
            yield from self._client.pages(listing)
            return
        parent, parameter = listing.for_each
        waiting: deque[Future[list[Page]]] = deque()
        for record_id in self._ids_of(parent):
            waiting.append(self._requests.submit(self._list_of_one, listing, {parameter: record_id}))
            if len(waiting) > 2 * REQUESTS_AT_ONCE:
                yield from waiting.popleft().result()
        for future in waiting:
            yield from future.result()

    def _ids_of(self, parent: str) -> Sequence[str]:
        ids = self._ids[parent].result()
        if ids.missing and parent not in self._readings:
            raise M3terError(f"{ids.missing} of the {parent} records have no id, so what belongs to them is unknown.")
        return ids.unique()

    def _list_of_one(self, listing: Listing, parameters: dict[str, str]) -> list[Page]:
        for restarts in itertools.count():
            try:
                return list(self._client.pages(listing, **parameters))
            except CursorExpired as expired:
                if restarts == RESTARTS:
                    raise M3terError(str(expired)) from None
        raise AssertionError


def _settle(future: Future[Reading], spool: Spool) -> None:
    try:
        future.set_result(spool.finish())
    except Exception as error:
        spool.discard()
        future.set_exception(_unreadable(spool.entity, error))


def _unreadable(entity: Entity, error: Exception) -> Exception:
    """What a person can act on is worded; anything else is a fault of this project and stays as it is."""
    return EntityUnreadable(entity.name, error) if isinstance(error, M3terError | OSError) else error
