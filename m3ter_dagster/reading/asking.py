"""Asks m3ter for records by their ids: which of them are there, and which are gone."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import polars as pl

from m3ter_dagster.frames.absence import ID, PARENT
from m3ter_dagster.frames.raw_rows import raw_elements
from m3ter_dagster.m3ter.client import Page
from m3ter_dagster.m3ter.errors import CursorExpired, Refused
from m3ter_dagster.model.entities import Listing
from m3ter_dagster.reading.collectors import records
from m3ter_dagster.reading.pages import Pages

IDS_AT_ONCE = 98
"""How many records are asked for in one request, with two more that are known to be there."""
PARENTS_AT_ONCE = 200
TRIES = 4
"""How often a filter by ids is tried, each time with other records that are known to be there."""
SIZES = (1.0, 0.97, 0.89, 0.83)
"""The size of the pages each time a list is read: what fell out between two pages is then in the middle of one."""


class Asking:
    """Asks for records of one list. What is not found and not `unconfirmed` is gone.

    A record that is listed with others of one parent is looked for in that parent's list. Any other is asked for by
    the list's filter by ids, which is believed only if the answer has what is known to be there, and nothing else;
    where it is not, each record is asked for by itself.
    """

    def __init__(self, listing: Listing, pages: Pages) -> None:
        self.requests = 0
        self.unconfirmed: set[str] = set()
        self.doubts: dict[str, None] = {}
        self.whole_parents: set[str] = set()
        """Parents whose list came in one answer, so that what is not in it is not there."""
        self._listing = listing
        self._pages = pages
        self._known: list[str] = []
        self._is_repeated = True

    def know(self, ids: Sequence[str]) -> None:
        """These records are there, as far as is known."""
        self._known = list(ids)

    def find(self, asked: pl.DataFrame) -> Iterator[Page]:
        """Of the records in the columns `ID` and `PARENT`, those that are there."""
        waiting = set(asked[ID])
        try:
            for page in self._of_parents(asked) if self._listing.parent else self._of_ids(asked[ID].to_list()):
                waiting -= {str(record.id) for record in records(page.rows)}
                yield page
        except (Refused, CursorExpired) as refusal:
            self.doubt(waiting, str(refusal))

    def doubt(self, ids: Collection[str], why: str) -> None:
        self.unconfirmed.update(ids)
        if ids:
            self.doubts[f"{len(ids):,} missing records could not be confirmed as deleted: {why}"] = None

    def _of_parents(self, asked: pl.DataFrame) -> Iterator[Page]:
        orphans = asked.filter(pl.col(PARENT).is_null())[ID].to_list()
        self.doubt(orphans, "it is not known to what they belong")
        groups = asked.drop_nulls(PARENT).group_by(PARENT, maintain_order=True).agg(ID).iter_rows()
        by_parent = {parent: set(ids) for parent, ids in groups if parent not in self.whole_parents}
        while some := dict(islice(by_parent.items(), PARENTS_AT_ONCE)):
            for parent in some:
                del by_parent[parent]
            for size in SIZES:
                long = dict[str, set[str]]()
                for page in self._pages.side_by_side(sized(self._listing, size), some, gone=[]):
                    self.requests += 1
                    assert page.parent
                    wanted = some[page.parent]
                    yield from only(page, wanted)
                    wanted -= set(ids_of(page))
                    if not page.is_last:
                        long[page.parent] = wanted
                # What is not in one answer may have fallen out between two.
                if not (some := {parent: ids for parent, ids in long.items() if ids}):
                    break

    def _of_ids(self, ids: Sequence[str]) -> Iterator[Page]:
        for start in range(0, len(ids), IDS_AT_ONCE):
            batch = ids[start : start + IDS_AT_ONCE]
            pages = self._filtered(batch)
            if pages is not None:
                yield from pages
                continue
            for number, one in enumerate(batch):
                self.requests += 1
                try:
                    if self._pages.exists(self._listing, one):
                        self.doubt([one], "m3ter has it, and its list does not give it by its id")
                except Refused as refusal:
                    self.doubt([*batch[number:], *ids[start + IDS_AT_ONCE :]], str(refusal))
                    return

    def _filtered(self, ids: Sequence[str]) -> list[Page] | None:
        """Those of the records that the filter finds; None if it cannot be believed."""
        if not self._listing.id_filter or not self._known:
            return None
        for _ in range(TRIES):
            known = [random.choice(self._known) for _ in range(2)]
            listing = self._listing.of_ids([known[0], *ids, known[1]], is_repeated=self._is_repeated)
            try:
                pages = list(islice(self._pages.newest(listing), 3))
            except (Refused, CursorExpired):
                pages = []
            self.requests += max(1, len(pages))
            found = {one for page in pages for one in ids_of(page)}
            if set(known) <= found <= {*known, *ids} and pages[-1].is_last:
                return [part for page in pages for part in only(page, set(ids))]
            self._is_repeated = not self._is_repeated
        return None


def sized(listing: Listing, size: float) -> Listing:
    return replace(listing, page_size=max(1, round(listing.page_size * size)))


def ids_of(page: Page) -> list[str]:
    return [record.id for record in records(page.rows) if isinstance(record.id, str)]


def only(page: Page, wanted: Collection[str]) -> Iterator[Page]:
    """The page with only those of its records whose ids are wanted, if there are any."""
    pairs = zip(records(page.rows), raw_elements(page.rows), strict=True)
    kept = [raw for record, raw in pairs if record.id in wanted]
    if kept:
        yield replace(page, rows=b"[" + b",".join(kept) + b"]")
