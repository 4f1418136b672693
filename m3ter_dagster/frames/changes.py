"""The rows of an entity's file of changes, from the rows of two exports and their files of keys. Pure but for files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.absence import find
from m3ter_dagster.frames.difference import (
    ID,
    KEY,
    KIND,
    LAST,
    ROW,
    NotComparable,
    check_same_cells,
    count_kinds,
    decoded_cells,
    has_columns,
    kinds,
    read_keys,
)
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.changes import ADDED, CHANGE, KINDS, REMOVED
from m3ter_dagster.model.entity import Entity


@dataclass(frozen=True)
class Changes:
    parts: Sequence[pl.LazyFrame]
    """The rows, one part after the other, with the columns of `model.changes.changes_table`."""
    counts: Mapping[str, int]
    """How many of each kind the files of keys say that there are."""
    not_compared: str | None = None
    """Why the rows were not compared, where they were not."""


def all_added(parts: Sequence[pl.LazyFrame], current: Path) -> Changes:
    """The changes since nothing."""
    there = read_keys(current).select(pl.col(ROW).count()).collect(engine="streaming").item()
    added = pl.lit(ADDED).alias(CHANGE)
    return Changes([part.with_columns(added) for part in parts], {**dict.fromkeys(KINDS, 0), ADDED: there})


def changes_since(
    previous: Path, current: Path, parts: Sequence[pl.LazyFrame], entity: Entity, folder: Path
) -> Changes:
    """The changes of the rows in `parts`, by the files of keys of both exports. IdsUnknown if the previous has no ids.

    The parts are read once, and what changed in them is kept in `folder`: a few bytes a changed row are in memory.
    """
    reason = None
    try:
        check_same_cells(previous, current)
    except NotComparable as why:
        reason = str(why)
    found = pl.concat(list(kinds(previous, current, is_comparable=reason is None))).sort(KEY)
    counts = count_kinds(found)
    kept = list[pl.LazyFrame]()
    if len(found):
        folder.mkdir(mode=0o700)
        changed = [_changed(part, pl.col(entity.primary_key), found) for part in parts]
        gone = found.filter(pl.col(CHANGE) == REMOVED)
        for number, part in enumerate([*changed, *([_removed(previous, entity, gone)] if len(gone) else [])]):
            file = folder / f"{number:06}.parquet"
            part.sink_parquet(file, compression="lz4", statistics=False)
            kept.append(pl.scan_parquet(file))
    return Changes(kept, counts, reason)


def _changed(rows: pl.LazyFrame, key: pl.Expr, found: pl.DataFrame) -> pl.LazyFrame:
    """The rows that something became of, with what that is."""
    keys, changes, none = found[KEY], found[CHANGE], pl.Series([None], dtype=KIND)

    def change_of(asked: pl.Series) -> pl.Series:
        places, is_there = find(keys, asked)
        return changes.gather(places).zip_with(is_there, none)

    change = key.hash().map_batches(change_of, return_dtype=KIND, is_elementwise=True)
    return rows.with_columns(change.alias(CHANGE)).drop_nulls(CHANGE).with_columns(pl.col(CHANGE).cast(pl.String))


def _removed(previous: Path, entity: Entity, found: pl.DataFrame) -> pl.LazyFrame:
    """The rows that are no more: their ids, and the last cells of those that stood in the export as deleted."""
    gone = _changed(read_keys(previous), pl.col(ID), found)
    if has_columns(previous, entity):
        gone = gone.with_columns(decoded_cells(entity))
        cells = {name: pl.col(LAST).struct.field(name) for name in frame_schema(entity)}
    else:
        cells = {name: _cell(name, type) for name, type in frame_schema(entity).items()}
    return gone.select(**{**cells, entity.primary_key: pl.col(ID), CHANGE: pl.col(CHANGE)})


def _cell(name: str, type: type[pl.DataType]) -> pl.Expr:
    """A cell of a row that had other columns, as far as it fits today's."""
    text = pl.col(LAST).str.json_path_match(f"$['{name}']")
    return text == "true" if type == pl.Boolean else text.cast(type, strict=False)
