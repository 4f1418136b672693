"""What changed between two exports of an entity, from a small file of keys. Pure.

Polars' hashes are stable only within one version of polars, so rows of another version's files are not compared. A
row's hash depends on the columns, so rows of other columns are not compared either. Ids always are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.absence import ID, KEY
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.frames.uniqueness import HASHES_AT_ONCE, buckets
from m3ter_dagster.model import changes
from m3ter_dagster.model.entity import Entity

OWNER, ROW, DELETED, LAST = "owner", "row", "deleted", "last"
"""The columns of a file of keys besides the row's `ID`: the id of the record that it is listed with, a hash of its
cells, and for a row that m3ter has no more, when that was noticed, and its last cells as JSON."""
KIND = pl.Enum(list(changes.KINDS))
_THERE = "there"
_POLARS, _COLUMNS, _CELLS = "polars", "columns", "cells"
"""What the file's metadata says: what its hashes depend on, and how the cells were written to the delivered file."""


class NotComparable(Exception):
    """The rows of two exports cannot be compared; the text says why."""


class IdsUnknown(NotComparable):
    """Nor can their ids."""


@dataclass(frozen=True)
class Difference:
    """Numbers of rows, matched by primary key."""

    added: int
    removed: int
    changed: int
    deleted: int = 0
    """Those that are marked as deleted for the first time; they are not among the changed ones."""


def row_hash(entity: Entity) -> pl.Expr:
    return pl.struct([column.name for column in entity.columns]).hash().alias(ROW)


def hashes(entity: Entity) -> tuple[pl.Expr, pl.Expr]:
    """A hash of the primary key, and one of all cells of the row."""
    return pl.col(entity.primary_key).hash().alias(KEY), row_hash(entity)


KEYS_SCHEMA = {ID: pl.String, OWNER: pl.String, ROW: pl.UInt64, DELETED: pl.Datetime("us", "UTC"), LAST: pl.String}


def encoded_cells(entity: Entity) -> pl.Expr:
    """All cells of a row as one text: of the rows of a file of keys few have one, and it costs the others nothing."""
    return pl.struct(list(frame_schema(entity))).struct.json_encode().alias(LAST)


def decoded_cells(entity: Entity) -> pl.Expr:
    """The cells that `encoded_cells` made, as a struct; those of columns that there were not are null."""
    return pl.col(LAST).str.json_decode(pl.Struct(frame_schema(entity)))


def keys_of(entity: Entity) -> list[pl.Expr]:
    """The keys of rows that have a column `ROW`, all of which are there."""
    owner = pl.col(entity.owner_column) if entity.owner_column else pl.lit(None, pl.String)
    nothing = [pl.lit(None, KEYS_SCHEMA[name]).alias(name) for name in (DELETED, LAST)]
    return [pl.col(entity.primary_key).alias(ID), owner.alias(OWNER), pl.col(ROW), *nothing]


def write_keys(keys: pl.LazyFrame, entity: Entity, path: Path, *, cells: str = "") -> None:
    """A Parquet file of the keys of all rows, with the columns of `KEYS_SCHEMA`; `cells` says how cells are written."""
    keys.select(list(KEYS_SCHEMA)).sink_parquet(path, metadata={**_marks(entity), _CELLS: cells})


def read_keys(path: Path) -> pl.LazyFrame:
    """IdsUnknown if the file is of an earlier version, which kept hashes instead of ids."""
    found = pl.scan_parquet(path)
    if ID not in found.collect_schema():
        raise IdsUnknown("the previous export was written by an earlier version of m3ter-dagster")
    return found


def read_hashes(path: Path) -> pl.LazyFrame:
    """The `hashes` of the rows that were there."""
    there = read_keys(path).filter(pl.col(DELETED).is_null())
    return there.select(pl.col(ID).hash().alias(KEY), ROW)


def _marks(entity: Entity) -> dict[str, str]:
    """What hashes depend on: polars, and the names and types of the columns in their order."""
    columns = json.dumps([(column.name, column.type) for column in entity.columns])
    return {_POLARS: pl.__version__, _COLUMNS: hashlib.sha256(columns.encode()).hexdigest()}


def _compare_marks(theirs: Mapping[str, str], ours: Mapping[str, str]) -> None:
    if theirs.get(_POLARS) != ours[_POLARS]:
        written = f"with polars {theirs.get(_POLARS)}, this one with {ours[_POLARS]}"
        raise NotComparable(f"the previous export was written {written}")
    # Files from before the hash of the columns was kept have none.
    if theirs.get(_COLUMNS, ours[_COLUMNS]) != ours[_COLUMNS]:
        raise NotComparable("the columns changed since the previous export, so every row would count as changed")


def check_comparable(previous: Path, entity: Entity) -> None:
    """Raises NotComparable if the file's hashes would differ from today's for equal rows."""
    _compare_marks(pl.read_parquet_metadata(previous), _marks(entity))


def check_same_cells(previous: Path, current: Path) -> None:
    """Raises NotComparable if equal hashes do not mean that the two delivered files have equal cells."""
    theirs, ours = pl.read_parquet_metadata(previous), pl.read_parquet_metadata(current)
    _compare_marks(theirs, ours)
    if theirs.get(_CELLS) != ours[_CELLS]:
        raise NotComparable(f"cells are written as {ours[_CELLS]} now, and were as {theirs.get(_CELLS)} before")


def has_columns(previous: Path, entity: Entity) -> bool:
    """Whether the rows of that export had today's columns."""
    return pl.read_parquet_metadata(previous).get(_COLUMNS) == _marks(entity)[_COLUMNS]


def difference(previous: Path, current: Path) -> Difference:
    """Raises NotComparable if the two files' hashes would differ for equal rows."""
    read_keys(previous)
    _compare_marks(pl.read_parquet_metadata(previous), pl.read_parquet_metadata(current))
    counts = count_kinds(pl.concat(list(kinds(previous, current))))
    return Difference(**counts)


def kinds(
    previous: Path, current: Path, *, is_comparable: bool = True, at_once: int = HASHES_AT_ONCE
) -> Iterator[pl.DataFrame]:
    """What became of each row: the hashes of ids, and the kinds of `model.changes`; equal rows have none.

    Whoever applies them keeps a row that is in doubt now, so nothing became of it. What was in doubt before is added
    if it is there, and removed if it is gone, since nobody knows which of both they have. Unless the hashes of rows are
    comparable, every row that both have is a changed one.
    """
    now, before = (
        read_keys(path).select(
            pl.col(ID).hash().alias(KEY), ROW, pl.col(DELETED).is_not_null(), pl.lit(1).alias(_THERE)
        )
        for path in (current, previous)
    )
    is_there, was_there = pl.col(_THERE).is_not_null(), pl.col(f"{ROW}_before").is_not_null()
    differs = pl.col(ROW) != pl.col(f"{ROW}_before") if is_comparable else pl.lit(True)
    kind = (
        pl.when(~is_there)
        .then(pl.lit(changes.REMOVED))
        .when(pl.col(ROW).is_null())
        .then(None)
        .when(pl.col(DELETED) & ~pl.col(f"{DELETED}_before").fill_null(False))
        .then(pl.lit(changes.DELETED))
        .when(~was_there)
        .then(pl.lit(changes.ADDED))
        .when(differs)
        .then(pl.lit(changes.CHANGED))
    )
    rows = max(one.select(pl.len()).collect().item() for one in (now, before))
    for is_in in buckets(rows, hashes_at_once=at_once):
        some, others = (one.filter(is_in(pl.col(KEY))) for one in (now, before))
        joined = some.join(others, on=KEY, how="full", suffix="_before", coalesce=True)
        found = joined.select(KEY, kind.cast(KIND).alias(changes.CHANGE)).drop_nulls(changes.CHANGE)
        yield found.collect(engine="streaming")


def count_kinds(found: pl.DataFrame) -> dict[str, int]:
    counts = dict(found[changes.CHANGE].value_counts().iter_rows())
    return {kind: counts.get(kind, 0) for kind in changes.KINDS}
