"""Finds values that occur in more than one row, in bounded memory however many rows there are. Pure.

Values are compared by their hashes, a bucket of these at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

HASHES_AT_ONCE = 500_000
"""The number of hashes in memory at a time, 8 bytes each."""
NAMED = 1000
_HASH, _ROW = "m3ter:hash", "m3ter:row"


class RepeatedValue(NamedTuple):
    value: str
    count: int
    """The number of rows that have the value."""
    first_row: int
    """The number of its first row in the frame, counted from 0."""


@dataclass(frozen=True)
class Repeated:
    """Values that occur in more than one row, sorted, and how many such values there are in all."""

    values: Sequence[RepeatedValue]
    total: int


def buckets(rows: int, *, hashes_at_once: int = HASHES_AT_ONCE) -> Iterator[Callable[[pl.Expr], pl.Expr]]:
    """Conditions on a hash, of which each row meets one: each is met by about so many of the rows."""
    number = rows // hashes_at_once + 1
    for bucket in range(number):
        yield lambda hash, bucket=bucket: hash % number == bucket


def repeated_values(
    frame: pl.LazyFrame, column: str, *, rows: int, at_most: int = NAMED, hashes_at_once: int = HASHES_AT_ONCE
) -> Repeated:
    """The values that occur more than once in a column of a frame of `rows` rows; nulls do not count.

    They are found by hashes, some of these at a time, and then by the values themselves, of which at most `at_most`
    are looked up. A frame of many rows is read several times, so it should be scanned from disk.
    """
    present = frame.select(column).with_row_index(_ROW).filter(pl.col(column).is_not_null())
    hashes = present.select(pl.col(column).hash().alias(_HASH))
    suspects: list[int] = []
    total = 0
    for twice in repeated_hashes(hashes, rows=rows, hashes_at_once=hashes_at_once):
        total += len(twice)
        suspects += twice.head(at_most - len(suspects)).to_list()
    if not suspects:
        return Repeated([], 0)
    looked_up = present.filter(pl.col(column).hash().is_in(pl.Series(suspects, dtype=pl.UInt64).implode()))
    counted = looked_up.group_by(column).agg(pl.len(), pl.col(_ROW).min()).filter(pl.col("len") > 1).sort(column)
    values = [RepeatedValue(*row) for row in counted.collect(engine="streaming").iter_rows()]
    # Two values can have one hash, though hardly ever do: then a hash that came twice stands for no repeated value.
    return Repeated(values, total if total > len(suspects) else len(values))


def repeated_hashes(hashes: pl.LazyFrame, *, rows: int, hashes_at_once: int = HASHES_AT_ONCE) -> Iterator[pl.Series]:
    """The values that stand more than once in a frame of `rows` hashes, in one column."""
    (column,) = hashes.collect_schema()
    for is_in in buckets(rows, hashes_at_once=hashes_at_once):
        some = hashes.filter(is_in(pl.col(column))).collect(engine="streaming")[column].sort()
        yield some.filter(some == some.shift(1)).unique()
