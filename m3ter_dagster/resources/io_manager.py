"""Writes an entity's frame as one CSV, delivered to every Export Destination of the run; the manifest likewise."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg
import polars as pl
from pydantic import Field, PrivateAttr

from m3ter_dagster.config import load_exports, load_m3ter_settings
from m3ter_dagster.config.usage import AGGREGATED, RAW, RAW_BY_DAY
from m3ter_dagster.dagster_internals import planned_steps
from m3ter_dagster.delivery.destinations import DeliveryFailed, Destinations, UnknownDestination
from m3ter_dagster.delivery.differences import compare
from m3ter_dagster.frames.csv import RowsLost, write_csv
from m3ter_dagster.history.delivered_frames import DeliveredFrames
from m3ter_dagster.history.delivery_metadata import (
    comparison_metadata,
    delivery_metadata,
    manifest_metadata,
    preview_metadata,
)
from m3ter_dagster.history.last_delivery import last_delivery
from m3ter_dagster.history.log import (
    MANIFEST,
    SCHEDULE_TAG,
    USAGE_MANIFEST,
    export_of,
    previous_export,
    root_id,
    runs_of,
)
from m3ter_dagster.model import manifest
from m3ter_dagster.model.entities import Entity, Table, find_entity
from m3ter_dagster.model.exports import Export
from m3ter_dagster.model.manifest import Manifest
from m3ter_dagster.usage.columns import TYPE
from m3ter_dagster.usage.source import UsageReading

RETRY_AFTER_SECONDS = 5


def _give_up(words: str) -> NoReturn:
    raise dg.Failure(words, allow_retries=False)


def _try_again(words: str) -> NoReturn:
    """Once. A retry policy of the asset would do it too, but Dagster obeys one after a signal to end as well."""
    raise dg.RetryRequested(max_retries=1, seconds_to_wait=RETRY_AFTER_SECONDS) from dg.Failure(words)


class S3CsvIOManager(dg.ConfigurableIOManager):
    """One CSV per entity. Objects are named after the root run, so re-executions complete the same export."""

    destinations: list[str] = Field(description="Codes of the Export Destinations (exports.yaml) to deliver to.")
    _destinations: Destinations = PrivateAttr()
    _escape_formulas: bool = PrivateAttr(False)
    _previews: bool = PrivateAttr(False)
    _folder: tempfile.TemporaryDirectory[str] = PrivateAttr()
    _run: dg.DagsterRun = PrivateAttr()
    _instance: dg.DagsterInstance = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses an unknown destination before anything is read."""
        exports = load_exports()
        known = {one.code: one for one in exports.destinations}
        for code in self.destinations:
            if code not in known:
                raise UnknownDestination(code, list(known))
        self._destinations = Destinations(known)
        self._escape_formulas = exports.escape_formulas
        self._previews = exports.previews
        self._folder = tempfile.TemporaryDirectory(prefix="m3ter-csv-")
        assert context.run
        assert context.instance
        self._run, self._instance = context.run, context.instance

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        self._folder.cleanup()

    def handle_output(self, context: dg.OutputContext, obj: pl.LazyFrame | UsageReading | Manifest) -> None:
        try:
            if isinstance(obj, Manifest):
                metadata = self._deliver_manifest(obj, context.asset_key.path[-1])
            elif isinstance(obj, UsageReading):
                metadata = self._deliver_usage(obj)
            else:
                metadata = self._deliver_entity(obj, find_entity(context.asset_key.path[-1]))
        except DeliveryFailed as failed:
            _give_up(str(failed)) if failed.is_permanent else _try_again(str(failed))
        except (RowsLost, OSError) as error:
            _try_again(f"{context.asset_key.to_user_string()} could not be written: {error}")
        else:
            context.add_output_metadata(metadata)

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        return last_delivery(context, self._destinations, Path(self._folder.name))

    def delivered_frames(self, export_id: str) -> DeliveredFrames:
        """What the runs of an export have delivered so far."""
        folder = Path(self._folder.name)
        return DeliveredFrames(self._instance, export_id, destinations=self._destinations, folder=folder)

    def _deliver_entity(self, frame: pl.LazyFrame, entity: Entity) -> dict[str, Any]:
        metadata = self._deliver(frame, entity, self._export(), entity.name)
        return metadata | (self._compare(frame, entity) if self._has_manifest() else {})

    def _deliver_usage(self, reading: UsageReading) -> dict[str, Any]:
        """A day's file has a key of its own, which the next export of that day writes again."""
        table, export = reading.table, self._export()
        if table.name == RAW_BY_DAY:
            export = Export(RAW_BY_DAY, export.org_id, reading.window.start)
        return self._deliver(reading.usage.frame, table, export, TYPE, name=self._usage_file(table.name))

    def _usage_file(self, asset: str) -> str:
        """Raw and aggregated measurements of one export must not have one key."""
        return f"{TYPE}_aggregated" if asset == AGGREGATED and self._goes_with(RAW) else TYPE

    def _manifest_file(self, asset: str) -> str:
        """Nor its manifests."""
        return USAGE_MANIFEST if asset == USAGE_MANIFEST and self._goes_with(MANIFEST) else manifest.TYPE

    def _goes_with(self, asset: str) -> bool:
        """Whether the export has this asset, too."""
        root = runs_of(self._instance, root_id(self._run))[0].dagster_run
        return asset in planned_steps(self._instance, root)

    def _deliver(
        self, frame: pl.LazyFrame, table: Table, export: Export, type: str, *, name: str | None = None
    ) -> dict[str, Any]:
        started = time.monotonic()
        file = self._file(f"{table.name}.csv")
        try:
            rows = write_csv(frame, table, file, escape_formulas=self._escape_formulas)
            delivered = self._destinations.deliver(file, export, type, to=self.destinations, name=name)
        finally:
            file.unlink(missing_ok=True)
        seconds = time.monotonic() - started
        previews = preview_metadata(frame, table) if self._previews else {}
        return delivery_metadata(rows=rows, delivered=delivered, seconds=seconds) | previews

    def _compare(self, frame: pl.LazyFrame, entity: Entity) -> dict[str, Any]:
        export = self._export()
        schedule = self._run.tags.get(SCHEDULE_TAG)
        return comparison_metadata(
            compare(
                frame,
                entity,
                previous=previous_export(self._instance, schedule=schedule, export_id=export.id),
                destinations=self._destinations,
                export=export,
                to=self.destinations,
                folder=Path(self._folder.name),
            )
        )

    def _deliver_manifest(self, whole: Manifest, asset: str) -> dict[str, Any]:
        delivered, name = [], self._manifest_file(asset)
        for code in whole.destinations:
            file = self._file("manifest.json")
            file.write_text(json.dumps(whole.data_package(code), indent=2, ensure_ascii=False), encoding="utf-8")
            delivered += self._destinations.deliver(
                file, whole.export, manifest.TYPE, to=[code], suffix="json", name=name
            )
        return manifest_metadata(whole, delivered)

    def _has_manifest(self) -> bool:
        """Only an export that gets a manifest can be compared with, and is compared."""
        return MANIFEST in planned_steps(self._instance, self._run)

    def _export(self) -> Export:
        return export_of(self._run, self._instance, load_m3ter_settings().org_id)

    def _file(self, name: str) -> Path:
        return Path(self._folder.name) / name
