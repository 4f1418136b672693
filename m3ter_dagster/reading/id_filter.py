"""The filter by ids of m3ter's lists, as far as it can be believed; and records of a page by their ids."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from random import SystemRandom

from m3ter_dagster.frames.raw_rows import raw_elements
from m3ter_dagster.m3ter.client import Page
from m3ter_dagster.m3ter.errors import CursorExpired, Refused
from m3ter_dagster.model.entity import Listing
from m3ter_dagster.reading.collectors import records
from m3ter_dagster.reading.pages import Pages

IDS_AT_ONCE = 98
"""How many records are asked for in one request, with two more that are known to be there."""
TRIES = 4
"""How often the filter is tried, each time with other records that are known to be there."""


class IdFilter:
    """m3ter documents it as a parameter that is repeated, and its own clients send the ids with commas between.

    What is not in an answer counts as gone, so an answer is believed only if it has two records that are known to be
    there, at both ends of what was asked for, and nothing that was not.
    """

    def __init__(self, pages: Pages) -> None:
        self.requests = 0
        self._pages = pages
        self._is_repeated = True

    def find(self, listing: Listing, known_ids: Sequence[str], ids: Sequence[str]) -> list[Page] | None:
        """Those of the records, at most `IDS_AT_ONCE`, that are there; None if no answer can be believed."""
        distinct = list(dict.fromkeys(known_ids))
        if not listing.id_filter or len(distinct) < 2:
            return None
        for _ in range(TRIES):
            known = SystemRandom().sample(distinct, 2)
            filtered = listing.of_ids([known[0], *ids, known[1]], is_repeated=self._is_repeated)
            try:
                pages = list(islice(self._pages.newest(filtered), 3))
            except (Refused, CursorExpired):
                pages = []
            self.requests += max(1, len(pages))
            found = {one for page in pages for one in ids_of(page)}
            if set(known) <= found <= {*known, *ids} and pages[-1].is_last:
                return [part for page in pages for part in only(page, set(ids))]
            self._is_repeated = not self._is_repeated
        return None


def ids_of(page: Page) -> list[str]:
    return [record.id for record in records(page.rows) if isinstance(record.id, str)]


def only(page: Page, wanted: Collection[str]) -> Iterator[Page]:
    """The page with only those of its records whose ids are wanted, if there are any."""
    pairs = zip(records(page.rows), raw_elements(page.rows), strict=True)
    kept = [raw for record, raw in pairs if record.id in wanted]
    if kept:
        yield replace(page, rows=b"[" + b",".join(kept) + b"]")
