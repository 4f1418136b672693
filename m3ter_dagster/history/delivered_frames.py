"""What the runs of an export have delivered, read back: only the columns that checks across entities look at."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.frames.bill_totals import AMOUNTS
from m3ter_dagster.frames.csv import read_csv
from m3ter_dagster.frames.references import TIMES, ExportedRows
from m3ter_dagster.history.delivery_metadata import delivered_objects
from m3ter_dagster.history.log import deliveries_of
from m3ter_dagster.history.reading_metadata import recorded_reading
from m3ter_dagster.model.entities import Entity


class DeliveredFrames:
    """The entities that stand in an export's destinations. Files are kept in `folder`, which the caller owns."""

    def __init__(
        self, instance: dg.DagsterInstance, export_id: str, *, destinations: Destinations, folder: Path
    ) -> None:
        self._instance = instance
        self._export_id = export_id
        self._destinations = destinations
        self._folder = folder

    def find(self, entity: Entity) -> ExportedRows | None:
        """FetchFailed when no destination gives the CSV back."""
        materialization = self._deliveries.get(entity.name)
        if materialization is None:
            return None
        started = datetime.fromisoformat(recorded_reading(materialization.metadata)["from"])
        return ExportedRows(self._frame(entity, materialization.metadata), started)

    @cached_property
    def _deliveries(self) -> Mapping[str, dg.AssetMaterialization]:
        return deliveries_of(self._instance, self._export_id)

    def _frame(self, entity: Entity, metadata: Mapping[str, dg.MetadataValue[Any]]) -> pl.LazyFrame:
        """Downloaded once, however many checks ask."""
        objects = delivered_objects(metadata)
        kept = self._folder / f"{entity.name}-{objects[0]['sha256']}.parquet"
        if not kept.exists():
            csv, part = (kept.with_suffix(suffix) for suffix in (".csv", ".part"))
            try:
                self._destinations.fetch_any(objects, csv)
                read_csv(csv, entity).select(_checked_columns(entity)).sink_parquet(part)
                part.rename(kept)
            finally:
                csv.unlink(missing_ok=True)
                part.unlink(missing_ok=True)
        return pl.scan_parquet(kept)


def _checked_columns(entity: Entity) -> list[str]:
    keys = {entity.primary_key, *(key.column for key in entity.foreign_keys)}
    return [column.name for column in entity.columns if column.name in keys or column.name in (*TIMES, *AMOUNTS)]
