"""What changed between two exports of an entity, from 16 bytes per row. Pure.

Polars' hashes are stable only within one version of polars, so files of another version are not compared. A row's hash
depends on the columns, so files of other columns are not compared either.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
    keys.select(KEY, ROW).sink_parquet(path, metadata=_marks(entity))


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


def difference(previous: Path, current: Path) -> Difference:
    """Raises NotComparable if the two files' hashes would differ for equal rows."""
    _compare_marks(pl.read_parquet_metadata(previous), pl.read_parquet_metadata(current))
    before, now = pl.scan_parquet(previous), pl.scan_parquet(current)
    return Difference(
        added=_count(now.join(before, on=KEY, how="anti")),
        removed=_count(before.join(now, on=KEY, how="anti")),
        changed=_count(now.join(before, on=KEY, suffix="_before").filter(pl.col(ROW) != pl.col(f"{ROW}_before"))),
    )


def _count(frame: pl.LazyFrame) -> int:
    return frame.select(pl.len()).collect(engine="streaming").item()
