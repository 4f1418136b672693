"""Writes an entity's frame as one CSV, delivered to every Export Destination of the run."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import polars as pl
from pydantic import Field, PrivateAttr

from m3ter_dagster.config import load_exports, load_m3ter_settings
from m3ter_dagster.entities import find_entity
from m3ter_dagster.exports import Export
from m3ter_dagster.frames.csv import RowsLost, read_csv, write_csv
from m3ter_dagster.resources.delivery_metadata import delivered_objects, delivery_metadata
from m3ter_dagster.resources.destinations import DeliveryFailed, Destinations, UnknownDestination

DUE_TAG = "m3ter/due"
"""Run tag of a scheduled export: when it was due, ISO 8601."""


class NotExported(LookupError):
    def __init__(self, asset: str) -> None:
        super().__init__(f"{asset} was never delivered, so there is no CSV to read; materialise {asset} first.")


class S3CsvIOManager(dg.ConfigurableIOManager):
    """One CSV per entity. Objects are named after the root run, so re-executions complete the same export."""

    destinations: list[str] = Field(description="Codes of the Export Destinations (exports.yaml) to deliver to.")
    _destinations: Destinations = PrivateAttr()
    _folder: tempfile.TemporaryDirectory[str] = PrivateAttr()
    _run: dg.DagsterRun | None = PrivateAttr(None)
    _instance: dg.DagsterInstance | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuses an unknown destination before anything is read."""
        known = {one.code: one for one in load_exports().destinations}
        for code in self.destinations:
            if code not in known:
                raise UnknownDestination(code, list(known))
        self._destinations = Destinations(known)
        self._folder = tempfile.TemporaryDirectory(prefix="m3ter-csv-")
        self._run, self._instance = context.run, context.instance

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        self._folder.cleanup()

    def handle_output(self, context: dg.OutputContext, obj: pl.LazyFrame) -> None:
        entity = find_entity(context.asset_key.path[-1])
        started = time.monotonic()
        file = Path(self._folder.name) / f"{entity.name}.csv"
        try:
            rows = write_csv(obj, entity, file)
            delivered = self._destinations.deliver(file, self._export(), entity.name, to=self.destinations)
        except (DeliveryFailed, RowsLost, OSError) as error:
            raise dg.Failure(str(error)) from error
        finally:
            file.unlink(missing_ok=True)
        seconds = time.monotonic() - started
        context.add_output_metadata(delivery_metadata(obj, rows=rows, delivered=delivered, seconds=seconds))

    def load_input(self, context: dg.InputContext) -> pl.LazyFrame:
        """The last delivered CSV of the asset as a typed frame, for assets of a user's own."""
        entity = find_entity(context.asset_key.path[-1])
        event = context.instance.get_latest_materialization_event(context.asset_key)
        if event is None or event.asset_materialization is None:
            raise NotExported(entity.name)
        last = delivered_objects(event.asset_materialization.metadata)[0]
        file = Path(self._folder.name) / f"{entity.name}-input.csv"
        self._destinations.fetch(last["destination"], last["uri"], file)
        return read_csv(file, entity)

    def _export(self) -> Export:
        """The export of this run: of its root run, when it completes another."""
        assert self._run
        assert self._instance
        root = self._instance.get_run_record_by_id(self._run.root_run_id or self._run.run_id)
        run = root.dagster_run if root else self._run
        started = datetime.fromtimestamp(root.start_time if root and root.start_time else time.time(), UTC)
        due = run.tags.get(DUE_TAG)
        return Export(run.run_id, load_m3ter_settings().org_id, datetime.fromisoformat(due) if due else started)
