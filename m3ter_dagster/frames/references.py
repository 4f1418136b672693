"""Finds rows that refer to rows which are not there. Pure.

Only keys are streamed, and only distinct ones kept, so memory does not grow with the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from m3ter_dagster.frames.times import written_since

SHOWN_ROWS = 10
NAMED_KEYS = 50

_ID, _KEY, _RECENT, _THERE = "row id", "key", "is recent", "is there"


@dataclass(frozen=True)
class ExportedRows:
    """The rows of an entity in one export."""

    frame: pl.LazyFrame
    read_from: datetime
    """When their reading started; every row written before is among them."""


@dataclass(frozen=True)
class Dangling:
    """The references of one column that lead nowhere."""

    references: int
    """The number of rows with a value in that column."""
    rows: int
    """The number of rows that refer to nothing and were not written since the reading of the parents started."""
    parents: int
    """The number of distinct keys in those rows."""
    recent: int
    """The number of rows that refer to nothing but were written later: what they refer to may be just as new."""
    examples: Sequence[tuple[str, str]]
    """Id and key of the first rows that refer to nothing."""
    keys: Sequence[str] = field(default=(), compare=False)
    """The first of those distinct keys."""


def dangling(children: pl.LazyFrame, column: str, parents: ExportedRows, *, row_id: str, key: str) -> Dangling:
    """The values of `column` that are no `key` of the parents, where each is unique; rows are named by `row_id`."""
    used = children.select(pl.col(column).alias(_KEY)).drop_nulls().group_by(_KEY).len()
    there = parents.frame.select(pl.col(key).alias(_KEY), pl.lit(True).alias(_THERE))
    absent = pl.col(_KEY).filter(pl.col(_THERE).is_null()).implode()
    found = used.join(there, on=_KEY, how="left").select(pl.col("len").sum(), absent).collect(engine="streaming")
    references, missing = int(found.item(0, "len")), found.item(0, _KEY)
    if not len(missing):
        return Dangling(references, 0, 0, 0, ())
    rows = children.select(
        pl.col(row_id).alias(_ID), pl.col(column).alias(_KEY), written_since(parents.read_from).alias(_RECENT)
    ).filter(pl.col(_KEY).is_in(missing.implode()))
    recent = pl.col(_RECENT)
    counts = rows.select(rows=(~recent).sum(), parents=pl.col(_KEY).filter(~recent).n_unique(), recent=recent.sum())
    first = rows.filter(~recent).select(_ID, _KEY).sort(_ID).head(SHOWN_ROWS)
    distinct = rows.filter(~recent).select(pl.col(_KEY).unique().sort().head(NAMED_KEYS))
    counted, examples, keys = pl.collect_all([counts, first, distinct], engine="streaming")
    return Dangling(references, **counted.row(0, named=True), examples=examples.rows(), keys=keys[_KEY].to_list())
