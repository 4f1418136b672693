"""The exports before this one, as far as reading needs their files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec
import polars as pl

from m3ter_dagster.config import ExportSchedule
from m3ter_dagster.delivery.destinations import Destinations, FetchFailed, UnknownDestination
from m3ter_dagster.frames.difference import (
    NotComparable,
    check_comparable,
    has_columns,
    hashes,
    read_hashes,
    read_keys,
)
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.frames.schema import there
from m3ter_dagster.history.log import deliveries_of, whole_exports
from m3ter_dagster.history.record import Delivery, StoredObject, WholeExport
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.model.exports import Export
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.reading.past import NoPast, Past, Previous
from m3ter_dagster.reading.unchanged import BATCH_ROWS, CannotReuse, Earlier, EarlierRows


def past_of(
    instance: dg.DagsterInstance,
    export: Export,
    chosen: Collection[str],
    own: Mapping[str, WholeExport],
    schedule: ExportSchedule | None,
    destinations: Destinations,
    folder: Path,
    names: Names = DEFAULT,
) -> Past:
    """What the exports before `export` had: per entity the schedule's `own` last one, else the last of any.

    The `chosen` entities are exported. Without a schedule, `own` are the last that people started. The files that are
    needed are put into `folder`.
    """
    last: dict[str, str] = {}
    for whole in whole_exports(instance, org_id=export.org_id, export_id=export.id, names=names):
        last = {name: whole.export for name, part in whole.entities.items() if part.keys} | last
        if last.keys() >= {*operational_entities(), *chosen}:  # an entity may be read that is not exported
            break
    last |= {name: whole.export for name, whole in own.items()}
    deliveries = {one: deliveries_of(instance, one, names=names) for one in {*last.values()}}
    previous = {name: deliveries[one].get(name) for name, one in last.items() if name in entities()}
    excluded = schedule.excluded if schedule else {}
    now = {name: entity.without(excluded.get(name, ())) for name, entity in entities().items()}
    return Past(
        previous={name: _previous(now[name], one, destinations, folder) for name, one in previous.items() if one},
        reused={
            entity.name: _earlier(
                now[entity.name], schedule, deliveries.get(last.get(entity.name, ""), {}), destinations, folder
            )
            for entity in schedule.reused
        }
        if schedule
        else {},
        keep_deleted=schedule.kept_deleted if schedule else None,
        excluded=excluded,
    )


def _previous(entity: Entity, delivery: Delivery, destinations: Destinations, folder: Path) -> Previous:
    def fetched(objects: tuple[StoredObject, ...]) -> Path:
        try:
            return destinations.fetch_once(_dicts(objects), folder)
        except (FetchFailed, UnknownDestination, OSError) as reason:
            raise NoPast(str(reason)) from None

    def fetch_keys() -> pl.LazyFrame:
        try:
            return read_keys(fetched(delivery.keys))
        except (NotComparable, pl.exceptions.PolarsError) as reason:
            raise NoPast(str(reason)) from None

    def fetch_rows() -> pl.LazyFrame:
        if not has_columns(fetched(delivery.keys), entity):
            raise NoPast("the columns changed since the previous export")
        return format_of(delivery.objects[0].uri).read(fetched(delivery.objects), entity)

    return Previous(entity, delivery.export, fetch_keys, fetch_rows)


def _earlier(
    entity: Entity,
    schedule: ExportSchedule,
    delivered: Mapping[str, Delivery],
    destinations: Destinations,
    folder: Path,
) -> Earlier:
    """What can be reused of an export that `delivered` these."""
    return Earlier(
        fetch=partial(_fetch, entity, delivered, destinations, folder)
        if {entity.listing.parent or "", entity.name} <= delivered.keys()
        else None,
        full_every=schedule.full_every,
        reused_in_a_row=delivered[entity.name].reading.reused_in_a_row if entity.name in delivered else 0,
    )


def _fetch(
    entity: Entity, delivered: Mapping[str, Delivery], destinations: Destinations, shared: Path, folder: Path
) -> EarlierRows:
    """The files, each byte for byte as it was delivered. CannotReuse says why not."""
    parents, rows = delivered[entity.listing.parent or ""], delivered[entity.name]
    try:
        keys = destinations.fetch_once(_dicts(rows.keys), shared)
        check_comparable(keys, entity)
        return EarlierRows(
            export=rows.export,
            parents=_kept(parents, destinations, folder),
            rows=_kept(rows, destinations, folder, *hashes(entity)),
            hashes=read_hashes(keys),
            read_from=min(parents.reading.started, rows.reading.started),
        )
    except (FetchFailed, UnknownDestination, NotComparable) as reason:
        raise CannotReuse(str(reason)) from None


def _kept(delivery: Delivery, destinations: Destinations, folder: Path, *more: pl.Expr) -> pl.LazyFrame:
    """The rows of a delivery, read once from its file."""
    file, kept = (folder / f"{delivery.asset}.{suffix}" for suffix in ("file", "parquet"))
    destinations.fetch_any(_dicts(delivery.objects), file, verified=True)
    frame = format_of(delivery.objects[0].uri).read(file, delivery.table).pipe(there)
    frame.with_columns(more).sink_parquet(kept, compression="lz4", statistics=False, row_group_size=BATCH_ROWS)
    file.unlink()
    return pl.scan_parquet(kept)


def _dicts(objects: tuple[StoredObject, ...]) -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(one) for one in objects]
