"""Delivered files read back as frames, for checks across entities and for assets of a user's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import dagster as dg
import msgspec
import polars as pl

from m3ter_dagster.dagster_internals import materialized_partitions
from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.frames.references import ExportedRows
from m3ter_dagster.history.log import deliveries_of, last_delivery
from m3ter_dagster.history.record import Delivery
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.names import DEFAULT, Names

ALLOW_MISSING = "allow_missing_partitions"
"""Dagster's own name for this in the metadata of an input."""


class NotExported(LookupError):
    def __init__(self, asset: str, partition: str | None = None) -> None:
        of_day = f" of {partition}" if partition else ""
        super().__init__(
            f"{asset}{of_day} was never delivered, so there is no file to read; materialise {asset}{of_day} first."
        )


class DeliveredFrames:
    """The entities that an export has delivered. Files are kept in `folder`, which the caller owns."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        export_id: str,
        *,
        destinations: Destinations,
        folder: Path,
        names: Names = DEFAULT,
    ) -> None:
        self._instance = instance
        self._export_id = export_id
        self._destinations = destinations
        self._folder = folder
        self._names = names

    def find(self, entity: Entity) -> ExportedRows | None:
        """The delivered rows of an entity, if there are any. FetchFailed when no destination returns the file."""
        delivery = self._deliveries.get(entity.name)
        return ExportedRows(self._frame(entity, delivery), delivery.reading.started) if delivery else None

    @cached_property
    def _deliveries(self) -> Mapping[str, Delivery]:
        return deliveries_of(self._instance, self._export_id, names=self._names)

    def _frame(self, entity: Entity, delivery: Delivery) -> pl.LazyFrame:
        """The delivered file as a frame: downloaded once for all checks, and kept with the columns that they need."""
        kept = self._folder / f"{entity.name}-{delivery.objects[0].sha256}.parquet"
        if not kept.exists():
            columns = [column.name for column in entity.columns if column.name in entity.needed]
            file, part = (kept.with_suffix(suffix) for suffix in (".file", ".part"))
            try:
                _fetch(delivery, self._destinations, file)
                format_of(delivery.objects[0].uri).read(file, delivery.table).select(columns).sink_parquet(part)
                part.rename(kept)
            finally:
                file.unlink(missing_ok=True)
                part.unlink(missing_ok=True)
        return pl.scan_parquet(kept)


def last_delivered(
    context: dg.InputContext, org_id: str | None, destinations: Destinations, folder: Path, names: Names = DEFAULT
) -> pl.LazyFrame:
    """The last file that was delivered for the Organization (None: for any) as a frame.

    Of a partitioned asset, the files of the requested partitions in one frame.

    NotExported if one was never delivered, unless the input's metadata has `allow_missing_partitions: true`.
    FetchFailed if no destination returns a file. The frame is scanned from `folder`.
    """
    name = names.asset(context.asset_key)
    if not context.has_asset_partitions:
        delivery = last_delivery(context.instance, name, org_id, names=names)
        return _read(name, None, delivery, destinations, folder)
    there = materialized_partitions(context.instance, context.asset_key)
    missing = [day for day in context.asset_partition_keys if day not in there]
    if missing and not context.definition_metadata.get(ALLOW_MISSING):
        raise NotExported(name, missing[0])
    wanted = [day for day in context.asset_partition_keys if day in there]
    found = [last_delivery(context.instance, name, org_id, partition=day, names=names) for day in wanted]
    days = [_read(name, day, one, destinations, folder) for day, one in zip(wanted, found, strict=True)]
    if not days:
        raise NotExported(name)
    return pl.concat(days, how="diagonal_relaxed")


def _read(
    name: str, partition: str | None, delivery: Delivery | None, destinations: Destinations, folder: Path
) -> pl.LazyFrame:
    if delivery is None:
        raise NotExported(name, partition)
    file = folder / f"{name}-{partition or 'last'}-input"
    _fetch(delivery, destinations, file)
    return format_of(delivery.objects[0].uri).read(file, delivery.table)


def _fetch(delivery: Delivery, destinations: Destinations, to: Path) -> None:
    destinations.fetch_any([msgspec.structs.asdict(one) for one in delivery.objects], to)
