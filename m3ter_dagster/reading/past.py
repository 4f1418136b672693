"""The exports before this one, as far as reading needs them: what they had, and what is gone since."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.absence import ID, KEY, PARENT, VERSION, absent
from m3ter_dagster.frames.difference import (
    DELETED,
    KEYS_SCHEMA,
    LAST,
    OWNER,
    ROW,
    decoded_cells,
    encoded_cells,
    keys_of,
    row_hash,
)
from m3ter_dagster.frames.schema import DELETED_COLUMN, frame_schema
from m3ter_dagster.frames.times import TIMES, written_since
from m3ter_dagster.model.entity import Entity, Listing
from m3ter_dagster.reading.reading import Completeness, Deleted, Reading
from m3ter_dagster.reading.unchanged import Earlier

_SINCE = "m3ter:deletedSince"


class NoPast(Exception):
    """An earlier export cannot be used; the text says why."""


@dataclass(frozen=True)
class Previous:
    """An entity in an export before this one. Its files are fetched when they are needed, and NoPast says why not."""

    entity: Entity
    export: str
    fetch_keys: Callable[[], pl.LazyFrame]
    """The file of keys, see `frames.difference`."""
    fetch_rows: Callable[[], pl.LazyFrame]
    """The delivered rows."""


@dataclass(frozen=True)
class Past:
    """What is known of earlier exports, and what to do with it."""

    previous: Mapping[str, Previous] = field(default_factory=dict)
    """By the entity's name."""
    reused: Mapping[str, Earlier] = field(default_factory=dict)
    """The entities of which rows are taken over, by name."""
    two_passes: bool | None = None
    """Whether every list is read twice. None: where there is no previous export; False: not even there."""
    keep_deleted: timedelta | None = None
    """How long a row that is gone stands in the exports. None: not at all."""
    excluded: Mapping[str, Collection[str]] = field(default_factory=dict)
    """The columns that are not read, by entity."""

    def read(self, entity: Entity) -> Entity:
        """The entity with the columns that are read."""
        return entity.without(self.excluded.get(entity.name, ()))

    def records(self, listing: Listing) -> pl.LazyFrame | None:
        """The records of the list that were there, as `absence.RECORDS`; None if no export knows them."""
        found = list[pl.LazyFrame]()
        for one in self.previous.values():
            if one.entity.listing != listing:
                continue
            try:
                there = one.fetch_keys().filter(pl.col(DELETED).is_null())
            except NoPast:
                return None
            if one.entity.elements:
                there = there.select(pl.col(OWNER).alias(ID), pl.lit(None, pl.String).alias(OWNER)).unique()
            found.append(_records(there))
        if len(found) < 2:
            return found[0] if found else None
        return pl.concat(found).unique(KEY)

    def completed(self, reading: Reading, found: Completeness, folder: Path) -> Reading:
        """The reading with what became of its completeness, and with the rows that are gone. Files go into `folder`."""
        completeness = replace(found, written_meanwhile=_written_since(reading))
        previous = self.previous.get(reading.entity.name)
        try:
            deleted = _deleted(reading, previous, found.unconfirmed, self.keep_deleted, folder) if previous else None
        except NoPast:
            deleted = None
        requests = reading.requests + found.requests
        return replace(reading, completeness=completeness, deleted=deleted, requests=requests)


def _records(keys: pl.LazyFrame) -> pl.LazyFrame:
    """Keys as `absence.RECORDS`."""
    version = pl.lit(None, pl.Int64).alias(VERSION)
    return keys.select(ID, version, pl.col(OWNER).alias(PARENT), pl.col(ID).hash().alias(KEY))


def _deleted(
    reading: Reading, previous: Previous, unconfirmed: frozenset[str] | None, keep: timedelta | None, folder: Path
) -> Deleted:
    """What the previous export had and this one has not. NoPast if its keys cannot be fetched.

    The last cells of a row are in the file of keys if it was missing before, and else in the previous export.
    """
    entity, now = reading.entity, datetime.now(UTC)
    keys = previous.fetch_keys()
    missing = absent(_records(keys), _records(reading.keys)).select(ID).lazy()
    record = pl.col(OWNER if entity.elements else ID)
    is_doubtful = pl.lit(True) if unconfirmed is None else record.is_in(list(unconfirmed))
    is_doubtful &= pl.col(DELETED).is_null()
    since = pl.when(~is_doubtful).then(pl.coalesce(DELETED, pl.lit(now))).alias(_SINCE)
    gone = keys.join(missing, on=ID, how="semi").with_columns(since)
    states = gone.select(ID, OWNER, DELETED, _SINCE, pl.col(LAST).is_null()).collect(engine="streaming")
    new = states.filter(pl.col(DELETED).is_null(), pl.col(_SINCE).is_not_null())
    doubtful = states.filter(pl.col(_SINCE).is_null())
    parts, note = list[Path](), ""
    if keep is not None:
        is_kept = pl.col(_SINCE).is_null() | (pl.col(_SINCE) + keep > now)
        folder.mkdir(mode=0o700, parents=True)
        known = gone.filter(is_kept, pl.col(LAST).is_not_null()).select(decoded_cells(entity), _SINCE).unnest(LAST)
        wanted = states.filter(is_kept, LAST).select(pl.col(ID).alias(entity.primary_key), _SINCE)
        try:
            if len(wanted) < len(states):
                parts.append(_write(known, entity, folder / "known.parquet"))
            if len(wanted):
                rows = previous.fetch_rows().join(wanted.lazy(), on=entity.primary_key)
                parts.append(_write(rows, entity, folder / "new.parquet"))
        except (NoPast, pl.exceptions.PolarsError) as reason:
            # Polars may quote a cell, which might be personal.
            words = type(reason).__name__ if isinstance(reason, pl.exceptions.PolarsError) else reason
            note = f"the last cells of {len(wanted):,} missing rows are not known: {words}"
    return _split(entity, parts, doubtful, new=len(new), note=note)


def _split(entity: Entity, parts: Sequence[Path], doubtful: pl.DataFrame, *, new: int, note: str) -> Deleted:
    """The rows that are gone stand in the export; those in doubt only among its keys, with their last cells.

    These have no hash: nothing of the export is equal to a row that it has not.
    """
    columns, names = list(frame_schema(entity)), list(KEYS_SCHEMA)
    empty = pl.LazyFrame(schema={**frame_schema(entity), _SINCE: pl.Datetime("us", "UTC")})
    rows = pl.concat([empty, *map(pl.scan_parquet, parts)])
    row = pl.when(pl.col(_SINCE).is_not_null()).then(row_hash(entity)).alias(ROW)
    keys = rows.with_columns(row, encoded_cells(entity), pl.col(_SINCE).alias("since"))
    keys = keys.with_columns(keys_of(entity)[:2]).with_columns(pl.col("since").alias(DELETED)).select(names)
    in_doubt = pl.concat([pl.DataFrame(schema=KEYS_SCHEMA), doubtful.select(ID, OWNER)], how="diagonal")
    unknown = in_doubt.lazy().join(keys.select(ID), on=ID, how="anti")
    there = rows.filter(pl.col(_SINCE).is_not_null()).select(columns)
    return Deleted(
        rows=there,
        keys=pl.concat([keys, unknown.select(names)]),
        count=there.select(pl.len()).collect().item(),
        new=new,
        note=note,
    )


def _write(rows: pl.LazyFrame, entity: Entity, path: Path) -> Path:
    """Rows as they were delivered last, now marked as deleted. A column that they did not have is empty."""
    names = rows.collect_schema().names()
    cells = [
        pl.col(name).cast(type) if name in names else pl.lit(None, type).alias(name)
        for name, type in frame_schema(entity).items()
    ]
    rows.select(*cells, _SINCE).with_columns(pl.lit(True).alias(DELETED_COLUMN)).sink_parquet(path)
    return path


def _written_since(reading: Reading) -> int:
    """Rows whose times are in the reading; those of days before are not parsed."""
    columns = [column.name for column in reading.entity.columns if column.name in TIMES]
    day = (reading.started - timedelta(days=1)).date().isoformat()
    recent = reading.frame.select(columns).filter(pl.any_horizontal(pl.col(name) >= day for name in columns))
    return recent.filter(written_since(reading.started, columns)).select(pl.len()).collect(engine="streaming").item()
