"""What Dagster's records say of exports: which runs make one up, what they delivered, which one came before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from m3ter_dagster.config.usage import USAGE_ASSETS
from m3ter_dagster.dagster_internals import events_of_run, planned_steps
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.exports import Export

MANIFEST, USAGE_MANIFEST = "export_manifest", "usage_manifest"
"""One per kind of data, so that an export of entities waits for no measurements."""
EXPORT_JOB = "export"
"""The job that exports every entity; those of schedules are called after them."""
SCHEDULE_TAG = "m3ter/schedule"
DUE_TAG = "m3ter/due"
"""Run tag of a scheduled export: when it was due, ISO 8601."""
SUMMARY = "m3ter/manifest"
"""Metadata of a manifest's materialisation: what the next export of the same schedule compares itself with."""

ROOT_TAG = "dagster/root_run_id"
"""Dagster's tag of re-executions: the run that was executed first."""
_LOOK_BACK = 100


def exported() -> tuple[str, ...]:
    """The assets that are files of exports, by name."""
    return (*entities(), *USAGE_ASSETS)


def export_of(run: dg.DagsterRun, instance: dg.DagsterInstance, org_id: str) -> Export:
    """The export that a run belongs to: named after its root run, due when that was due or else when it started."""
    record = instance.get_run_record_by_id(root_id(run))
    root = record.dagster_run if record else run
    due = root.tags.get(DUE_TAG)
    started = datetime.fromtimestamp(record.start_time, UTC) if record and record.start_time else datetime.now(UTC)
    return Export(root_id(run), org_id, datetime.fromisoformat(due) if due else started)


def root_id(run: dg.DagsterRun) -> str:
    return run.root_run_id or run.run_id


def checked_export(instance: dg.DagsterInstance, run: dg.DagsterRun, asset: str) -> str:
    """The id of the export that a check of `asset` is about: the run's own or, where that has none, the last one."""
    root = instance.get_run_by_id(root_id(run)) or run
    last = [] if chosen_entities(instance, root) else instance.fetch_materializations(dg.AssetKey(asset), 1).records
    exporting = instance.get_run_by_id(last[0].run_id) if last else None
    return root_id(exporting or run)


def runs_of(instance: dg.DagsterInstance, export_id: str, last: dg.DagsterRun | None = None) -> Sequence[dg.RunRecord]:
    """The root run and all its re-executions, oldest first.

    Dagster tags the re-executions that it launches itself; one that a script executes is found from the `last` run.
    """
    tagged = instance.get_run_records(dg.RunsFilter(tags={ROOT_TAG: export_id}))
    found = {record.dagster_run.run_id: record for record in tagged}
    run_id = last.run_id if last else export_id
    while run_id and run_id not in found and (record := instance.get_run_record_by_id(run_id)):
        found[run_id] = record
        run_id = record.dagster_run.parent_run_id or ""
    if export_id not in found and (root := instance.get_run_record_by_id(export_id)):
        found[export_id] = root
    # The number of their record: the clock may have been set back between them.
    return sorted(found.values(), key=lambda record: record.storage_id)


def chosen_entities(instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[str]:
    """The entities that a run is to export."""
    steps = planned_steps(instance, run)
    return [name for name in exported() if name in steps]


def deliveries_of(
    instance: dg.DagsterInstance, export_id: str, last: dg.DagsterRun | None = None
) -> dict[str, dg.AssetMaterialization]:
    """The last materialisation of each entity in the runs of an export."""
    found: dict[str, dg.AssetMaterialization] = {}
    for record in runs_of(instance, export_id, last):
        events = events_of_run(instance, record.dagster_run.run_id, {dg.DagsterEventType.ASSET_MATERIALIZATION})
        for event, _ in events:
            materialization = event.step_materialization_data.materialization
            found[materialization.asset_key.path[-1]] = materialization
    return {name: found[name] for name in exported() if name in found}


def previous_export(
    instance: dg.DagsterInstance, *, schedule: str | None, export_id: str, manifest: str = MANIFEST
) -> Mapping[str, Any] | None:
    """The summary of the last whole export of the same schedule (None: of those that people started)."""
    events = instance.fetch_materializations(dg.AssetKey(manifest), limit=_LOOK_BACK)
    for record in events.records:
        if record.asset_materialization and SUMMARY in record.asset_materialization.metadata:
            summary = record.asset_materialization.metadata[SUMMARY].value
            if isinstance(summary, dict) and summary["schedule"] == schedule and summary["id"] != export_id:
                return summary
    return None
