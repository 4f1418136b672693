"""What changed between two exports of an entity, from 16 bytes per row. Pure.

Polars' hashes are stable only within one version of polars, so files of another version are not compared. A row's hash
depends on the columns, so files of other columns are not compared either.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from m3ter_dagster.model.entities import Entity

KEY, ROW = "key", "row"
_POLARS, _COLUMNS = "polars", "columns"
"""What the file's metadata says about the hashes."""


class NotComparable(Exception):
    """Two exports cannot be compared; the text says why."""


@dataclass(frozen=True)
class Difference:
    """Numbers of rows, matched by primary key."""

    added: int
    removed: int
    changed: int


def hashes(entity: Entity) -> tuple[pl.Expr, pl.Expr]:
    """A hash of the primary key, and one of all cells of the row."""
    columns = [column.name for column in entity.columns]
    return pl.col(entity.primary_key).hash().alias(KEY), pl.struct(columns).hash().alias(ROW)


def write_keys(keys: pl.LazyFrame, entity: Entity, path: Path) -> None:
    """A Parquet file of the `hashes` of all rows."""
    keys.select(KEY, ROW).sink_parquet(path, metadata={_POLARS: pl.__version__, _COLUMNS: _columns_hash(entity)})


def _columns_hash(entity: Entity) -> str:
    """A hash of names and types in their order, the same in every version of Python and polars."""
    columns = json.dumps([(column.name, column.type) for column in entity.columns])
    return hashlib.sha256(columns.encode()).hexdigest()


def difference(previous: Path, current: Path) -> Difference:
    """Raises NotComparable if the two files' hashes would differ for equal rows."""
    theirs, ours = pl.read_parquet_metadata(previous), pl.read_parquet_metadata(current)
    if theirs.get(_POLARS) != ours[_POLARS]:
        written = f"with polars {theirs.get(_POLARS)}, this one with {ours[_POLARS]}"
        raise NotComparable(f"the previous export was written {written}")
    # Files from before the hash of the columns was kept have none.
    if theirs.get(_COLUMNS, ours[_COLUMNS]) != ours[_COLUMNS]:
        raise NotComparable("the columns changed since the previous export, so every row would count as changed")
    before, now = pl.scan_parquet(previous), pl.scan_parquet(current)
    return Difference(
        added=_count(now.join(before, on=KEY, how="anti")),
        removed=_count(before.join(now, on=KEY, how="anti")),
        changed=_count(now.join(before, on=KEY, suffix="_before").filter(pl.col(ROW) != pl.col(f"{ROW}_before"))),
    )


def _count(frame: pl.LazyFrame) -> int:
    return frame.select(pl.len()).collect(engine="streaming").item()
