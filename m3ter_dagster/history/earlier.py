"""The previous export of a schedule, as far as rows can be taken from its files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import dagster as dg
import msgspec
import polars as pl

from m3ter_dagster.config import ExportSchedule
from m3ter_dagster.delivery.destinations import Destinations, FetchFailed, UnknownDestination
from m3ter_dagster.frames.difference import KEY, ROW, NotComparable, check_comparable, hashes
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.history.log import deliveries_of, previous_export
from m3ter_dagster.history.record import Delivery, StoredObject
from m3ter_dagster.model.entities import Entity
from m3ter_dagster.model.exports import Export
from m3ter_dagster.reading.unchanged import BATCH_ROWS, CannotReuse, Earlier, EarlierRows


def earlier_exports(
    instance: dg.DagsterInstance, export: Export, schedule: ExportSchedule, destinations: Destinations
) -> Mapping[str, Earlier]:
    """The whole export before `export` by the same schedule, for each entity of which rows are reused."""
    whole = previous_export(instance, org_id=export.org_id, schedule=schedule.code, export_id=export.id)
    delivered = deliveries_of(instance, whole.export) if whole else {}
    return {
        entity.name: Earlier(
            fetch=partial(_fetch, entity, delivered, destinations) if _names(entity) <= delivered.keys() else None,
            full_every=schedule.full_every,
            reused_in_a_row=delivered[entity.name].reading.reused_in_a_row if entity.name in delivered else 0,
        )
        for entity in schedule.reused
    }


def _names(entity: Entity) -> set[str]:
    return {entity.listing.parent or "", entity.name}


def _fetch(entity: Entity, delivered: Mapping[str, Delivery], destinations: Destinations, folder: Path) -> EarlierRows:
    """The files, each byte for byte as it was delivered. CannotReuse says why not."""
    parents, rows = delivered[entity.listing.parent or ""], delivered[entity.name]
    keys = folder / "keys.parquet"
    try:
        _download(rows.keys, destinations, keys)
        check_comparable(keys, entity)
        return EarlierRows(
            export=rows.export,
            parents=_kept(parents, destinations, folder),
            rows=_kept(rows, destinations, folder, *hashes(entity)),
            hashes=pl.scan_parquet(keys).select(KEY, ROW),
            read_from=min(parents.reading.started, rows.reading.started),
        )
    except (FetchFailed, UnknownDestination, NotComparable) as reason:
        raise CannotReuse(str(reason)) from None


def _kept(delivery: Delivery, destinations: Destinations, folder: Path, *more: pl.Expr) -> pl.LazyFrame:
    """The rows of a delivery, read once from its file."""
    file, kept = (folder / f"{delivery.asset}.{suffix}" for suffix in ("file", "parquet"))
    _download(delivery.objects, destinations, file)
    frame = format_of(delivery.objects[0].uri).read(file, delivery.table)
    frame.with_columns(more).sink_parquet(kept, compression="lz4", statistics=False, row_group_size=BATCH_ROWS)
    file.unlink()
    return pl.scan_parquet(kept)


def _download(objects: tuple[StoredObject, ...], destinations: Destinations, to: Path) -> None:
    destinations.fetch_any([msgspec.structs.asdict(one) for one in objects], to, verified=True)
