"""Asks m3ter for records by their ids: which of them are there, and which are gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice
from typing import Any

import msgspec
import polars as pl

from m3ter_dagster.frames.absence import ID, PARENT
from m3ter_dagster.m3ter.client import Page
from m3ter_dagster.m3ter.errors import CursorExpired, Refused
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Listing
from m3ter_dagster.reading.collectors import records
from m3ter_dagster.reading.id_filter import IDS_AT_ONCE, IdFilter, ids_of, only
from m3ter_dagster.reading.pages import Pages

EMBEDDED_AT_ONCE = 2_000
"""About how many records one answer has that has them embedded in their parents."""
PARENTS_AT_ONCE = 200
FEW_PARENTS = 2
"""So many are asked for their lists at once: asking for them first would take as many requests."""
SIZES = (1.0, 0.97, 0.89, 0.83)
"""The size of the pages each time a list is read: what fell out between two pages is then in the middle of one."""


class Asking:
    """Asks for records of one list. What is not found and not `unconfirmed` is gone.

    Records are asked for by the list's filter by ids; where that cannot be believed, each is asked for by itself. A
    record that is listed with others of one parent is looked for in that parent's list, unless the parent is gone or
    embeds its records, and not this one.
    """

    def __init__(self, listing: Listing, pages: Pages, recorded: Callable[[], pl.LazyFrame]) -> None:
        """`recorded` gives what has been read so far, as `absence.RECORDS`."""
        self._unconfirmed: dict[str, str] = {}
        self.whole_parents: set[str] = set()
        """Parents whose list came in one answer, so that what is not in it is not there."""
        self._listing = listing
        self._pages = pages
        self._recorded = recorded
        self._known: list[str] = []
        self._known_parents: list[str] = []
        self._ids = IdFilter(pages)
        self._requests = 0

    @property
    def requests(self) -> int:
        """Those made so far."""
        return self._requests + self._ids.requests

    def know(self, page: Page) -> None:
        """These records are there, as far as is known."""
        per_parent = self._listing.per_parent
        found = records(page.rows, per_parent.field if per_parent else "")
        self._known = [record.id for record in found if isinstance(record.id, str)]
        self._known_parents = [record.parent for record in found if isinstance(record.parent, str)]

    def find(self, asked: pl.DataFrame) -> Iterator[Page]:
        """Of the records in the columns `ID` and `PARENT`, those that are there."""
        waiting = set(asked[ID])
        try:
            for page in self._of_parents(asked) if self._listing.parent else self._of_ids(asked[ID].to_list()):
                waiting -= set(ids_of(page))
                yield page
        except (Refused, CursorExpired) as refusal:
            self._doubt(waiting, str(refusal))

    def confirm(self, page: Page) -> None:
        """These records are there: they were found in another way."""
        for one in ids_of(page) if self._unconfirmed else ():
            self._unconfirmed.pop(one, None)

    @property
    def unconfirmed(self) -> frozenset[str]:
        """The records of which m3ter did not say whether they are there, or did not give them although they are."""
        return frozenset(self._unconfirmed)

    @property
    def doubts(self) -> list[str]:
        reasons = Counter(self._unconfirmed.values())
        return [f"{number:,} records could not be confirmed: {why}" for why, number in reasons.items()]

    def _doubt(self, ids: Iterable[str], why: str) -> None:
        self._unconfirmed |= dict.fromkeys(ids, why)

    def _of_parents(self, asked: pl.DataFrame) -> Iterator[Page]:
        orphans = asked.filter(pl.col(PARENT).is_null())[ID].to_list()
        self._doubt(orphans, "it is not known to what they belong")
        groups = asked.drop_nulls(PARENT).group_by(PARENT, maintain_order=True).agg(ID).iter_rows()
        by_parent = {parent: set(ids) for parent, ids in groups if parent not in self.whole_parents}
        if len(by_parent) > FEW_PARENTS:
            self._leave_out_what_is_gone(by_parent)
        while some := dict(islice(by_parent.items(), PARENTS_AT_ONCE)):
            for parent in some:
                del by_parent[parent]
            for size in SIZES:
                long = dict[str, set[str]]()
                for page in self._pages.side_by_side(sized(self._listing, size), some, gone=[]):
                    self._requests += 1
                    assert page.parent
                    wanted = some[page.parent]
                    yield from only(page, wanted)
                    wanted -= set(ids_of(page))
                    if not page.is_last:
                        long[page.parent] = wanted
                # What is not in one answer may have fallen out between two.
                if not (some := {parent: ids for parent, ids in long.items() if ids}):
                    break

    def _leave_out_what_is_gone(self, by_parent: dict[str, set[str]]) -> None:
        """Take away the parents that are gone, and those that embed all their records but the ones asked for."""
        per_parent = self._listing.per_parent
        if not per_parent or not per_parent.embedded:
            return
        listing = replace(entities()[per_parent.entity].listing, parameters=())
        decoder = _embedding(per_parent.embedded)
        for some in self._embedded_at_once(list(by_parent)):
            pages = self._ids.find(listing, self._known_parents, list(some))
            if pages is None:
                return
            try:
                there = {one.id: one.embedded for page in pages for one in decoder.decode(page.rows)}
            except msgspec.MsgspecError:  # embedded in another way than documented
                return
            for parent, known in some.items():
                embedded = None if there.get(parent) is None else {one.id for one in there[parent] or ()}
                is_gone = parent not in there
                if is_gone or (embedded is not None and known <= embedded and embedded.isdisjoint(by_parent[parent])):
                    del by_parent[parent]

    def _embedded_at_once(self, parents: Sequence[str]) -> Iterator[dict[str, set[str]]]:
        """The parents with those of their records that were read, some at a time."""
        some, size = dict[str, set[str]](), 0
        for start in range(0, len(parents), IDS_AT_ONCE):
            batch = parents[start : start + IDS_AT_ONCE]
            known = recorded_of(self._recorded(), batch)
            for parent in batch:
                if some and (len(some) == IDS_AT_ONCE or size + len(known[parent]) > EMBEDDED_AT_ONCE):
                    yield some
                    some, size = {}, 0
                some[parent] = known[parent]
                size += len(known[parent])
        yield some

    def _of_ids(self, ids: Sequence[str]) -> Iterator[Page]:
        for start in range(0, len(ids), IDS_AT_ONCE):
            batch = ids[start : start + IDS_AT_ONCE]
            pages = self._ids.find(self._listing, self._known, batch)
            if pages is not None:
                yield from pages
                continue
            for number, one in enumerate(batch):
                self._requests += 1
                try:
                    if self._pages.record(self._listing, one) is not None:
                        self._doubt([one], "m3ter has it, and its list does not give it by its id")
                except Refused as refusal:
                    self._doubt([*batch[number:], *ids[start + IDS_AT_ONCE :]], str(refusal))
                    return


def sized(listing: Listing, size: float) -> Listing:
    return replace(listing, page_size=max(1, round(listing.page_size * size)))


def recorded_of(recorded: pl.LazyFrame, parents: Sequence[str]) -> dict[str, set[str]]:
    """The ids of the records of these parents."""
    found = recorded.filter(pl.col(PARENT).is_in(list(parents))).group_by(PARENT).agg(ID).collect(engine="streaming")
    return {**{parent: set() for parent in parents}, **{parent: set(ids) for parent, ids in found.iter_rows()}}


class _Embedded(msgspec.Struct):
    id: object = None


@cache
def _embedding(field: str) -> msgspec.json.Decoder[Any]:
    fields: list[Any] = [("id", object, None), ("embedded", list[_Embedded] | None, None)]
    record: Any = msgspec.defstruct("Parent", fields, rename={"embedded": field})
    return msgspec.json.Decoder(list.__class_getitem__(record))
