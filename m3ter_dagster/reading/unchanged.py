"""Which parents did not change since an earlier export, and the rows they had in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.bill_totals import wrong_bills
from m3ter_dagster.frames.difference import KEY, ROW, hashes
from m3ter_dagster.frames.times import TIMES, moment, written_since
from m3ter_dagster.model.entity import Column, Entity
from m3ter_dagster.reading.reading import Reading, Reuse

CLOCKS = timedelta(hours=1)
"""What was written within this time of a reading may have been written during it: clocks differ."""
BATCH_ROWS = 20_000
"""How many rows are taken over at once, best from a file that has as many in a group."""
_ID = "id"


class CannotReuse(Exception):
    """No row of an earlier export can be taken over; the text says why and completes "all is read, since"."""


@dataclass(frozen=True)
class EarlierRows:
    """What an earlier export delivered of an entity and of its parents, in frames that are scanned from disk."""

    export: str
    parents: pl.LazyFrame
    rows: pl.LazyFrame
    """With the `hashes` of the rows as they are in the file."""
    hashes: pl.LazyFrame
    """The `hashes` of the rows as they were read from m3ter: a row without its equal here did not survive the file."""
    read_from: datetime
    """Before this, neither of the two was read."""


@dataclass(frozen=True)
class Earlier:
    """The export before this one, which can spare requests."""

    fetch: Callable[[Path], EarlierRows] | None
    """Puts its files into a folder. CannotReuse says why there are none; None: there is no such export."""
    full_every: int
    reused_in_a_row: int
    """How many exports in a row have taken rows over, up to that one."""

    @property
    def is_full(self) -> bool:
        """Whether all is to be read and compared."""
        return self.reused_in_a_row + 1 >= self.full_every


@dataclass(frozen=True)
class Unchanged:
    """The parents that did not change since an earlier export, and the rows they had in it."""

    entity: Entity
    earlier: EarlierRows
    ids: pl.Series
    count: int
    """The number of the rows."""
    parents_read_from: datetime

    @property
    def rows(self) -> pl.LazyFrame:
        return self.earlier.rows.filter(self._is_theirs)

    def batches(self) -> Iterator[pl.DataFrame]:
        """The rows, so many at a time: polars would keep all that wait, also of a frame that it collects in batches."""
        place = 0
        while len(batch := self.earlier.rows.slice(place, BATCH_ROWS).collect()):
            yield batch.filter(self._is_theirs)
            place += len(batch)

    @property
    def _is_theirs(self) -> pl.Expr:
        return _owner(self.entity).is_in(self.ids.implode())

    def reuse(self, in_a_row: int) -> Reuse:
        return Reuse(self.earlier.export, len(self.ids), self.count, in_a_row)

    def compared_with(self, reading: Reading) -> Reuse:
        """What would have been other than it was read now; what says that it was written since is not judged."""
        owner = _owner(self.entity)
        read = reading.frame.filter(self._is_theirs).with_columns(hashes(self.entity))
        only = [one.join(other, on=[KEY, ROW], how="anti") for one, other in ((self.rows, read), (read, self.rows))]
        other = pl.concat([one.select(owner) for one in only]).unique()
        since = self.parents_read_from - CLOCKS
        recent = read.filter(written_since(since, _times(self.entity.columns))).select(owner)
        differing = other.join(recent, on=_ID, how="anti").sort(_ID).collect(engine="streaming")[_ID]
        return replace(self.reuse(0), differing=differing.to_list())


def unchanged_since(earlier: EarlierRows, parents: Reading, entity: Entity) -> Unchanged:
    """Whose rows can be taken over. CannotReuse if rows of the earlier export belong to no parent.

    A parent that may have been written while the earlier export read it, or its rows, counts as changed, since one may
    be older than the other. So does one that nobody knows the time of, one whose rows do not add up to its total, and
    one whose rows are not in the file as they were read.
    """
    per_parent, owner = entity.listing.per_parent, _owner(entity)
    assert per_parent
    by, times = list(per_parent.unchanged_by), _times(parents.entity.columns, *per_parent.unchanged_by)
    key = pl.col(parents.entity.primary_key).alias(_ID)
    since = earlier.read_from - CLOCKS
    _check_owners(earlier, parents.frame.select(key), owner, key)
    is_dated = pl.any_horizontal(moment(name).is_not_null() for name in times if name in by)
    before = earlier.parents.filter(~written_since(since, times), is_dated)
    same = parents.frame.select(key, *by).join(before.select(key, *by), on=[_ID, *by], how="semi", nulls_equal=True)
    doubtful = pl.concat(
        [
            earlier.rows.filter(written_since(since, _times(entity.columns))).select(owner),
            earlier.rows.join(earlier.hashes, on=[KEY, ROW], how="anti").select(owner),
            wrong_bills(parents.frame, earlier.rows),
        ]
    )
    ids = same.select(_ID).join(doubtful, on=_ID, how="anti").collect(engine="streaming")[_ID]
    count = earlier.rows.select(owner.is_in(ids.implode()).sum()).collect(engine="streaming").item()
    return Unchanged(entity, earlier, ids, count, parents.started)


def _check_owners(earlier: EarlierRows, now: pl.LazyFrame, owner: pl.Expr, key: pl.Expr) -> None:
    known = pl.concat([now, earlier.parents.select(key)])
    lost = earlier.rows.select(owner).join(known, on=_ID, how="anti").select(pl.len()).collect(engine="streaming")
    if lost.item():
        raise CannotReuse(f"{lost.item():,} of the rows of export {earlier.export} belong to nothing that it has")


def _owner(entity: Entity) -> pl.Expr:
    assert entity.listing.per_parent
    return pl.col(entity.listing.per_parent.field).alias(_ID)


def _times(columns: tuple[Column, ...], *more: str) -> list[str]:
    return [one.name for one in columns if one.type == "string" and one.name in (*TIMES, *more)]
