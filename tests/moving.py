"""Lists of m3ter's API in memory, whose records are inserted, changed and deleted while their pages are read."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from m3ter_dagster.m3ter.client import Page
from m3ter_dagster.m3ter.errors import Refused
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.model.entity import Listing

Record = dict[str, Any]


def record(record_id: str, place: int) -> Record:
    """A product; `place` rises with each that is made."""
    return {"id": record_id, "version": 1, "name": f"product {place}", "place": place}


@dataclass
class MovingList:
    """The records of one list, newest first."""

    records: list[Record]
    chance: random.Random
    rate: float
    """How many changes there are for each page, on average."""
    counts_rows: bool = True
    """What a cursor points to: a number of rows, or the last record that was given."""
    change_of: Callable[[MovingList], None] | None = None
    made: int = 0
    deleted: dict[str, Record] = field(default_factory=dict)
    is_quiet: bool = False

    def move(self) -> None:
        """Whatever happens between two answers."""
        if not self.is_quiet and self.chance.random() < self.rate:
            (self.change_of or MovingList.change)(self)

    def change(self) -> None:
        kind = self.chance.choice(["insert", "update", "delete"])
        if kind == "insert" or not self.records:
            self.insert()
        elif kind == "update":
            self.chance.choice(self.records)["version"] += 1
        else:
            self.delete(self.chance.randrange(len(self.records)))

    def insert(self) -> None:
        self.made += 1
        self.records.insert(0, record(f"new-{self.made}", 1_000_000 + self.made))

    def delete(self, place: int) -> None:
        record = self.records.pop(place)
        self.deleted[record["id"]] = dict(record)

    def ids(self) -> set[str]:
        return {record["id"] for record in self.records}


class MovingApi:
    """What a reader needs of a client: the pages of lists by their path, and single records."""

    limits = Limits(requests_per_second=1_000_000)

    def __init__(self, lists: dict[str, MovingList]) -> None:
        self.lists = lists
        self.asked: list[Listing | str] = []
        self.refused: set[str] = set()
        """`ids`, `single`, `again`: what is answered with 403."""
        self.hidden: set[str] = set()
        """Records that only a filter by ids gives."""
        self.filters_by: str = "any"
        """How a filter by ids is understood: `repeated`, `commas`, `any`, only the `first` or `last`, or not at all."""

    def pages(self, listing: Listing, *, gives_way: bool = False, **_: str) -> Iterator[Page]:  # noqa: ARG002
        found = self.lists[listing.path]
        wanted = self._wanted(listing)
        cursor: Any = 0 if found.counts_rows else None
        while True:
            self.asked.append(listing)
            found.move()
            if wanted is not None and "ids" in self.refused:
                raise Refused(f"GET {listing.path}", status=403, message="Forbidden")
            chosen = [one for one in found.records if (one["id"] in wanted if wanted else one["id"] not in self.hidden)]
            if found.counts_rows:
                first = cursor
            else:
                behind = (place for place, one in enumerate(chosen) if cursor is None or one["place"] < cursor)
                first = next(behind, len(chosen))
            rows = chosen[first : first + listing.page_size]
            is_last = first + listing.page_size >= len(chosen)
            yield Page(json.dumps(rows).encode(), is_last=is_last)
            if is_last:
                return
            cursor = first + listing.page_size if found.counts_rows else rows[-1]["place"]

    def get(self, path: str, check: Callable[[bytes], Any], **_: Any) -> Any:
        self.asked.append(path)
        place, _, record_id = path.rpartition("/")
        there = {one["id"]: one for one in self.lists[place].records}
        if "single" in self.refused:
            raise Refused(f"GET {path}", status=403, message="Forbidden")
        if unquote(record_id) not in there:
            raise Refused(f"GET {path}", status=404, message="Not found")
        return check(json.dumps(there[unquote(record_id)]).encode())

    def _wanted(self, listing: Listing) -> set[str] | None:
        values = [value for name, value in listing.parameters if name == "ids"]
        if not values or self.filters_by == "ignored":
            return None
        if self.filters_by == "repeated":
            return set(values)
        if self.filters_by in ("first", "last"):
            return {values[0 if self.filters_by == "first" else -1]}
        if self.filters_by == "commas":
            return set(values[-1].split(","))
        return {one for value in values for one in value.split(",")}
