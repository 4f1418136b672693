"""Rows of parents that did not change since an earlier export are taken from its files instead of being read again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from m3ter_dagster.m3ter.errors import M3terError
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.reading.long_list import LongList
from m3ter_dagster.reading.pages import Pages
from m3ter_dagster.reading.reading import Reading
from m3ter_dagster.reading.unchanged import CannotReuse, Earlier, Unchanged, unchanged_since

LOOKS = 2
"""Requests for the newest records of the whole list, at the beginning and at the end."""
ENOUGH = 20
"""So many parents that did not change and have other rows say that reuse is not safe: no more of them are asked for."""


class Reusing:
    """What one reading of an entity does with an earlier export."""

    def __init__(self, earlier: Earlier, entity: Entity, parents: Future[Reading], pages: Pages, folder: Path) -> None:
        """`folder` is for the files of the earlier export, and nobody else's."""
        self._earlier = earlier
        self._entity = entity
        self._parents = parents
        self._pages = pages
        self._folder = folder
        self._unchanged: Unchanged | None = None
        self._how = ""

    def prepare(self, long: LongList) -> None:
        """Find out whose rows can be taken over, once the parents are read, and let `long` spare them."""
        try:
            if not self._earlier.fetch:
                raise CannotReuse(f"there is none with {self._entity.listing.parent} and {self._entity.name}")
            if not self._earlier.is_full:
                long.see_newest()
            if self._parents.exception():
                raise CannotReuse("their parents could not be read")
            parents = self._parents.result()
            self._folder.mkdir(mode=0o700, parents=True)
            earlier = self._earlier.fetch(self._folder)
            self._unchanged = unchanged_since(earlier, parents, self._entity)
            if self._earlier.is_full:
                self._how = f"all, as every {self._earlier.full_every} exports, to compare with {earlier.export}; "
                return
            ids = parents.frame.select(parents.entity.primary_key).collect().to_series().to_list()
            rows = earlier.rows.select(pl.len()).collect().item()
            changed, pages = len(ids) - len(self._unchanged.ids), -(-rows // self._entity.listing.page_size)
            if changed + LOOKS > pages:
                raise CannotReuse(f"{changed:,} changed or are new, which is more requests than the whole list")
        except (CannotReuse, M3terError, OSError, pl.exceptions.PolarsError) as reason:
            self._unchanged = None
            # Polars may quote a cell, which might be personal.
            words = type(reason).__name__ if isinstance(reason, pl.exceptions.PolarsError) else reason
            self._how = f"all, since nothing can be taken from the schedule's previous export: {words}; "
            return
        name = parents.entity.name.replace("_", " ")
        long.spare(
            self._unchanged.ids,
            ids,
            f"{name} by {name}, {changed:,} of {len(ids):,}: the others have not changed, so their "
            f"{self._unchanged.count:,} rows are taken from export {earlier.export}",
        )

    def spared_rows(self, long: LongList) -> Iterator[pl.DataFrame]:
        """The rows that `long` does not request."""
        if self._unchanged and long.is_sparing:
            yield from self._unchanged.batches()

    def completed(self, reading: Reading, long: LongList) -> Reading:
        """The reading with what became of the wish to reuse, and how."""
        how = f"{self._how}{long.how or 'over one cursor'}"
        if not self._unchanged:
            return replace(reading, how=how)
        if self._how:
            reuse = self._unchanged.compared_with(reading)
            differing = list(self._still_unchanged(reuse.differing or ()))
            return replace(reading, how=how, reuse=replace(reuse, differing=differing))
        if not long.is_sparing:  # it fell back to its cursor
            return replace(reading, how=how)
        # That nothing has changed holds for the time when the parents were read, and not for any later one.
        started = min(reading.started, self._unchanged.parents_read_from)
        reuse = self._unchanged.reuse(self._earlier.reused_in_a_row + 1)
        return replace(reading, how=how, started=started, reuse=reuse)

    def _still_unchanged(self, differing: Sequence[str]) -> Iterator[str]:
        """Of these parents, those that are as they were read: a row that is gone does not say when it went."""
        parents, found = self._parents.result(), 0
        key = parents.entity.primary_key
        for parent in parents.frame.filter(pl.col(key).is_in(differing)).sort(key).collect().iter_rows(named=True):
            if found >= ENOUGH or self._is_as_read(parent, parent[key]):
                found += 1
                yield parent[key]

    def _is_as_read(self, parent: Mapping[str, Any], parent_id: str) -> bool:
        """Also where m3ter does not say."""
        listing, per_parent = self._parents.result().entity.listing, self._entity.listing.per_parent
        assert per_parent
        try:
            now = self._pages.record(listing, parent_id)
        except M3terError:
            return True
        return now is not None and all(
            json.loads(now.get(name, b"null")) == parent[name] for name in per_parent.unchanged_by
        )
