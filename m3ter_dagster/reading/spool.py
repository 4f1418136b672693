"""One entity's rows on disk, in batches, so that memory does not grow with the organization."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.absence import ID, KEY, PARENT, VERSION
from m3ter_dagster.frames.decoding import Decoder
from m3ter_dagster.frames.difference import ROW, hashes, keys_of
from m3ter_dagster.frames.schema import (
    RECORD,
    RECORD_ID,
    RECORD_VERSION,
    Breach,
    SchemaBreached,
    frame_schema,
    repeated_ids,
    spool_schema,
    validate,
)
from m3ter_dagster.frames.uniqueness import repeated_hashes
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.reading.reading import Reading

KEPT_BREACHES = 100
"""The breaches kept of each column, so that one column cannot hide another."""

_ROW_GROUP = 4_000
"""Rows that are in memory at once when they are read again."""


@dataclass(frozen=True)
class Batches:
    """How much is decoded and written at once: a batch ends with the page or row that reaches a limit."""

    decode_bytes: int = 1 << 20
    """Pages are decoded together: a page of 100 rows alone costs more in overhead than in rows."""
    rows: int = 20_000
    bytes: int = 8 << 20


class Spool:
    """Takes the pages of one listing for one entity; `finish` gives the whole as a frame."""

    def __init__(self, entity: Entity, folder: Path, *, batches: Batches = Batches()) -> None:
        self.entity = entity
        self.rows = 0
        self.requests = 0
        self._folder = folder
        self._batches = batches
        self._folder.mkdir(mode=0o700, parents=True)
        self._started = datetime.now(UTC)
        self._decoder = Decoder(entity)
        self._pages: list[bytes] = []
        self._batch: list[pl.DataFrame] = []
        self._batches_written = 0
        self._filled: set[str] = set()
        self._breaches: list[Breach] = []
        self._breached: Counter[str] = Counter()

    def add(self, page: bytes) -> None:
        self.requests += 1
        self._pages.append(page)
        if sum(map(len, self._pages)) >= self._batches.decode_bytes:
            self._decode()

    def add_rows(self, rows: pl.DataFrame) -> None:
        """Takes rows of an earlier export. They keep the same rules as those that are read."""
        self._decode()
        self._add(self._decoder.numbered(rows))

    def records(self) -> pl.LazyFrame:
        """The records read so far, as `absence.RECORDS`; SchemaBreached if one of them breaks the schema."""
        self._write_all()
        owner, nobody = self.entity.owner_column, pl.lit(None, pl.String).alias(PARENT)
        if self.entity.elements:
            id, version, parent = pl.col(RECORD_ID), pl.col(RECORD_VERSION), nobody
            found = self._decoder.enclosing_records().lazy().with_columns(id.hash().alias(KEY))
        else:
            id, version, parent = pl.col(self.entity.primary_key), pl.col("version"), pl.col(owner) if owner else nobody
            found = self._frame()
        return found.select(id.alias(ID), version.alias(VERSION), parent.alias(PARENT), KEY)

    def finish(self) -> Reading:
        """The whole entity; SchemaBreached if any row breaks the schema, and then nothing of it may be used."""
        self._write_all()
        frame, parts = self._frame(), [pl.scan_parquet(part) for part in sorted(self._folder.iterdir())]
        stale = self._stale_records(frame)
        if len(stale):
            frame, *parts = (one.filter(~pl.col(RECORD).is_in(stale.implode())) for one in (frame, *parts))
        rows = frame.select(pl.len()).collect().item() if len(stale) else self.rows
        self._check_primary_key(frame)
        columns = list(frame_schema(self.entity))
        return Reading(
            entity=self.entity,
            frame=frame.select(columns),
            parts=[part.select(columns) for part in parts],
            keys=frame.select(keys_of(self.entity)),
            rows=rows,
            duplicates=self.rows - rows,
            unknown_fields=dict(self._decoder.unknown_fields),
            empty_columns=self._empty_columns(rows),
            requests=self.requests,
            started=self._started,
            finished=datetime.now(UTC),
        )

    def discard(self) -> None:
        """Free the disk: none of this is of any use."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _decode(self) -> None:
        pages, self._pages = self._pages, []
        frame, breaches = self._decoder.decode(*pages)
        self._breach(breaches)
        self._add(frame)

    def _add(self, frame: pl.DataFrame) -> None:
        self.rows += len(frame)
        self._batch.append(frame)
        rows, size = sum(map(len, self._batch)), sum(frame.estimated_size() for frame in self._batch)
        if rows >= self._batches.rows or size >= self._batches.bytes:
            self._write_batch()

    def _write_batch(self) -> None:
        batch, self._batch = pl.concat(self._batch), []
        if not len(batch):
            return
        self._breach(validate(batch, self.entity))
        if self._breached:
            return
        self._filled.update(name for name in batch.columns if batch[name].null_count() < len(batch))
        self._batches_written += 1
        # Parquet keeps a text that many rows have once: a third of the bytes and of the time of Arrow's own format.
        part = self._folder / f"{self._batches_written:06}.parquet"
        hashed = batch.with_columns(hashes(self.entity))
        hashed.write_parquet(part, compression="lz4", statistics=False, row_group_size=_ROW_GROUP)

    def _breach(self, breaches: list[Breach]) -> None:
        for breach in breaches:
            self._breached[breach.column] += 1
            if self._breached[breach.column] <= KEPT_BREACHES:
                self._breaches.append(breach)

    def _write_all(self) -> None:
        self._decode()
        if self._batch:  # the last pages may have filled a batch to its limit, which is written by now
            self._write_batch()
        if self._breached:
            raise SchemaBreached(self.entity.name, self._breaches, self._breached.total())

    def _frame(self) -> pl.LazyFrame:
        """All that is written."""
        if self._batches_written:
            return pl.scan_parquet(self._folder / "*.parquet")
        return pl.LazyFrame(schema={**spool_schema(self.entity), KEY: pl.UInt64, ROW: pl.UInt64})

    def _stale_records(self, frame: pl.LazyFrame) -> pl.Series:
        """The records of which there is a newer copy: one of a higher version, or among equals one read later."""
        if not self._batches_written:
            return pl.Series([], dtype=pl.UInt32)
        copies = self._decoder.enclosing_records() if self.entity.elements else self._suspects(frame)
        newest_first = copies.sort([RECORD_VERSION, RECORD], descending=True, nulls_last=True)
        return newest_first.filter(~pl.col(RECORD_ID).is_first_distinct())[RECORD]

    def _suspects(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """The records whose ids have equal hashes: almost always none, so that no id is kept in memory."""
        suspects = pl.concat(list(repeated_hashes(frame.select(KEY), rows=self.rows)))
        identity = {RECORD_ID: pl.col(self.entity.primary_key), RECORD_VERSION: pl.col("version")}
        found = frame.filter(pl.col(KEY).is_in(suspects.implode())) if len(suspects) else frame.clear()
        return found.select(RECORD, **identity).collect()

    def _check_primary_key(self, frame: pl.LazyFrame) -> None:
        """Note ids that repeat: records are unique by now, but elements of one record may repeat an id of another."""
        if not self.entity.elements:
            return
        key = pl.col(self.entity.primary_key)
        repeated = frame.group_by(key).len().filter(pl.col("len") > 1).head(KEPT_BREACHES).collect(engine="streaming")
        if len(repeated):
            breaches = repeated_ids(self.entity, repeated[self.entity.primary_key])
            raise SchemaBreached(self.entity.name, breaches, len(breaches))

    def _empty_columns(self, rows: int) -> tuple[str, ...]:
        expected = [column.name for column in self.entity.columns if column.api_field]
        return tuple(name for name in expected if name not in self._filled) if rows else ()
