"""What Dagster's log says about exports: which runs belong to one, what they delivered, which export came before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from math import inf

import dagster as dg

from m3ter_dagster.config.usage import AGGREGATED, RAW, USAGE_ASSETS
from m3ter_dagster.dagster_internals import events_of_run, planned_steps, run_ids
from m3ter_dagster.history.record import Delivery, WholeExport, delivery_in, whole_export_in
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.exports import Export
from m3ter_dagster.names import DEFAULT, Names

MANIFEST, USAGE_MANIFEST = "export_manifest", "usage_manifest"
"""The manifests: one per kind of data, so that an export of entities does not wait for measurements."""
EXPORT_JOB, REFERENCES_JOB = "export", "all_and_references"
"""The jobs that export ALL and ALL_AND_REFERENCES; the jobs of schedules are named after the schedules."""
SCHEDULE_TAG = "m3ter/schedule"
DEFINITION_TAG = "m3ter/schedule_definition"
"""Run tag: what the schedule was when the run was launched, for where it is renamed or removed meanwhile."""
DUE_TAG = "m3ter/due"
"""Run tag of a scheduled export: when it was due, ISO 8601."""
DESTINATIONS_TAG = "m3ter/destinations"
"""Run tag for people who search; the run's config has the destinations."""
ORGANIZATION_TAG = "m3ter/organization"
"""Run tag: the id of the Organization that the run reads. One instance may keep the exports of several."""

ROOT_TAG = "dagster/root_run_id"
"""Dagster's tag of re-executions: the run that was executed first."""
EXPORT_TAG = "m3ter/export"
"""Run tag: the export's id, where Dagster does not know that the run belongs to it. Re-executions inherit it."""
_AT_ONCE = 50
"""Materialisations that are read at once. Mostly the first are enough; of 2,000 manifests, all take a second."""
_RUNS_AT_ONCE = 50
_SHOWN = 3


def exported() -> tuple[str, ...]:
    """The assets that are files of exports, by name."""
    return (*entities(), *USAGE_ASSETS)


def listed(manifest: str) -> tuple[str, ...]:
    """The assets that a manifest lists. Measurements by day belong to no export."""
    return tuple(entities()) if manifest == MANIFEST else (RAW, AGGREGATED)


def export_of(run: dg.DagsterRun, instance: dg.DagsterInstance, org_id: str) -> Export:
    """The export that a run belongs to. Its id is that of the root run; it was due when that was due, or started."""
    record = instance.get_run_record_by_id(root_id(run))
    root = record.dagster_run if record else run
    due = root.tags.get(DUE_TAG)
    started = datetime.fromtimestamp(record.start_time, UTC) if record and record.start_time else datetime.now(UTC)
    return Export(root_id(run), org_id, datetime.fromisoformat(due) if due else started)


class NoSuchRun(Exception):
    """What a person called a run is the id of none, or may be that of several."""


def run_named(instance: dg.DagsterInstance, id: str) -> dg.DagsterRun:
    """The run with this id, or with an id that starts so: Dagster's pages show the first eight characters."""
    run = instance.get_run_by_id(id)
    if run:
        return run
    found = [one for one in run_ids(instance) if one.startswith(id)]
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise NoSuchRun(f"the ids of {len(found)} runs start with {id!r} ({shown}); give more of it.")
    run = instance.get_run_by_id(found[0]) if found else None
    if run is None:
        raise NoSuchRun(f"there is no run {id}; `m3ter-dagster jobs` lists the exports.")
    return run


def root_id(run: dg.DagsterRun) -> str:
    return run.tags.get(EXPORT_TAG) or run.root_run_id or run.tags.get(ROOT_TAG) or run.run_id


def is_of(run: dg.DagsterRun, org_id: str | None) -> bool:
    """Whether the run is of this Organization (None: of any). Runs of older versions do not say."""
    return org_id is None or org_id in run.tags.get(ORGANIZATION_TAG, org_id).split(",")


def schedule_of(run: dg.DagsterRun, names: Names = DEFAULT) -> str | None:
    """The code of the schedule that the run exports for, if it does for one of these."""
    return names.code(run.tags[SCHEDULE_TAG]) if SCHEDULE_TAG in run.tags else None


def checked_exports(
    instance: dg.DagsterInstance, run: dg.DagsterRun, org_id: str | None, names: Names = DEFAULT
) -> Callable[[str], str]:
    """Gives the id of the export that a check of an asset is about: the run's own or, if it has none, the last one."""
    own = root_id(run)
    if chosen_entities(instance, instance.get_run_by_id(own) or run, names):
        return lambda _: own
    return cache(lambda asset: last.export if (last := last_delivery(instance, asset, org_id, names=names)) else own)


def run_records(instance: dg.DagsterInstance, filters: dg.RunsFilter) -> Iterator[dg.RunRecord]:
    """The records of runs, newest first, read some at a time."""
    cursor: str | None = None
    while records := instance.get_run_records(filters, limit=_RUNS_AT_ONCE, cursor=cursor):
        yield from records
        cursor = records[-1].dagster_run.run_id


def runs_of(instance: dg.DagsterInstance, export_id: str, last: dg.DagsterRun | None = None) -> Sequence[dg.RunRecord]:
    """The root run and all others of the export, oldest first.

    Dagster tags the re-executions that it launches itself; one that a script executes is found from the `last` run.
    """
    tagged = [instance.get_run_records(dg.RunsFilter(tags={tag: export_id})) for tag in (ROOT_TAG, EXPORT_TAG)]
    found = {record.dagster_run.run_id: record for records in tagged for record in records}
    run_id = last.run_id if last else export_id
    while run_id and run_id not in found and (record := instance.get_run_record_by_id(run_id)):
        found[run_id] = record
        run_id = record.dagster_run.parent_run_id or ""
    if export_id not in found and (root := instance.get_run_record_by_id(export_id)):
        found[export_id] = root
    # The number of their record: the clock may have been set back between them.
    return sorted(found.values(), key=lambda record: record.storage_id)


def planned_assets(instance: dg.DagsterInstance, run: dg.DagsterRun, names: Names = DEFAULT) -> set[str]:
    """The names of the assets that a run was asked for: ours, and those of others by names that are none of ours."""
    return names.of_steps(planned_steps(instance, run))


def chosen_entities(instance: dg.DagsterInstance, run: dg.DagsterRun, names: Names = DEFAULT) -> list[str]:
    """The entities that a run was asked to export."""
    planned = planned_assets(instance, run, names)
    return [name for name in exported() if name in planned]


def deliveries_of(
    instance: dg.DagsterInstance, export_id: str, last: dg.DagsterRun | None = None, names: Names = DEFAULT
) -> dict[str, Delivery]:
    """The last delivery of each asset by the runs of an export."""
    found: dict[str, Delivery] = {}
    for record in runs_of(instance, export_id, last):
        run_id = record.dagster_run.run_id
        for event, _ in events_of_run(instance, run_id, {dg.DagsterEventType.ASSET_MATERIALIZATION}):
            delivery = delivery_in(event.step_materialization_data.materialization, names)
            if delivery:
                found[delivery.asset] = delivery
    return {name: found[name] for name in exported() if name in found}


def last_deliveries(
    instance: dg.DagsterInstance,
    asset: str,
    org_id: str | None,
    *,
    partition: str | None = None,
    names: Names = DEFAULT,
) -> Iterator[Delivery]:
    """The deliveries of an asset for the Organization (None: for any), newest first, read as far as asked for."""
    chosen = dg.AssetRecordsFilter(names.key(asset), asset_partitions=[partition] if partition else None)
    for materialization in _materializations(instance, chosen):
        delivery = delivery_in(materialization, names)
        if delivery and org_id in (None, delivery.org_id):
            yield delivery


def last_delivery(
    instance: dg.DagsterInstance,
    asset: str,
    org_id: str | None,
    *,
    partition: str | None = None,
    names: Names = DEFAULT,
) -> Delivery | None:
    return next(last_deliveries(instance, asset, org_id, partition=partition, names=names), None)


def unlisted(instance: dg.DagsterInstance, run: dg.DagsterRun, names: Names = DEFAULT) -> list[str]:
    """The manifests that list what this run was asked to export, and that it does not make itself."""
    planned = planned_assets(instance, run, names)
    return [one for one in (MANIFEST, USAGE_MANIFEST) if one not in planned and not planned.isdisjoint(listed(one))]


def is_whole(instance: dg.DagsterInstance, export_id: str, manifest: str, names: Names = DEFAULT) -> bool:
    """Whether all that the manifest of an export is to list was delivered."""
    root = instance.get_run_by_id(export_id)
    expected = {name for name in chosen_entities(instance, root, names) if name in listed(manifest)} if root else set()
    return bool(expected) and expected <= deliveries_of(instance, export_id, names=names).keys()


def previous_export(
    instance: dg.DagsterInstance,
    *,
    org_id: str,
    schedule: str | None,
    export_id: str,
    manifest: str = MANIFEST,
    names: Names = DEFAULT,
) -> WholeExport | None:
    """The last whole export of the Organization by the same schedule (None: of those that people started)."""
    before = previous_exports(
        instance, org_id=org_id, schedule=schedule, export_id=export_id, manifest=manifest, names=names
    )
    return next(before, None)


def previous_of_each(
    instance: dg.DagsterInstance,
    chosen: Collection[str],
    *,
    org_id: str,
    schedule: str | None,
    export_id: str,
    names: Names = DEFAULT,
) -> dict[str, WholeExport]:
    """Per entity the last whole export by the same schedule that has it: people export now these, now those."""
    found: dict[str, WholeExport] = {}
    for whole in previous_exports(instance, org_id=org_id, schedule=schedule, export_id=export_id, names=names):
        found = {name: whole for name in whole.entities if name in chosen} | found
        if len(found) == len(chosen):
            break
    return found


def previous_exports(
    instance: dg.DagsterInstance,
    *,
    org_id: str,
    schedule: str | None,
    export_id: str,
    manifest: str = MANIFEST,
    names: Names = DEFAULT,
) -> Iterator[WholeExport]:
    """The whole exports of the Organization by the same schedule, newest first, read as far as they are asked for."""
    until: float | None = None
    if schedule:
        # Dagster finds runs by a tag at once, however many manifests of other schedules came after theirs.
        tags = {SCHEDULE_TAG: names.schedule(schedule)}
        records = instance.get_run_records(dg.RunsFilter(tags=tags), limit=_RUNS_AT_ONCE)
        ends = [record.end_time or inf for record in records if root_id(record.dagster_run) != export_id]
        until = last if (last := max(ends, default=inf)) < inf else None
    found = whole_exports(instance, org_id=org_id, export_id=export_id, manifest=manifest, until=until, names=names)
    yield from (one for one in found if one.schedule == schedule)


def whole_exports(
    instance: dg.DagsterInstance,
    *,
    org_id: str,
    export_id: str,
    manifest: str = MANIFEST,
    until: float | None = None,
    names: Names = DEFAULT,
) -> Iterator[WholeExport]:
    """The whole exports of the Organization but for `export_id`, newest first, read as far as they are asked for."""
    for whole in manifests(instance, manifest, until=until, names=names):
        if whole.org_id == org_id and whole.export != export_id:
            yield whole


def manifests(
    instance: dg.DagsterInstance,
    manifest: str,
    *,
    since: float | None = None,
    until: float | None = None,
    names: Names = DEFAULT,
) -> Iterator[WholeExport]:
    """The whole exports of any Organization, newest first, read as far as they are asked for."""
    chosen = dg.AssetRecordsFilter(names.key(manifest), after_timestamp=since, before_timestamp=until)
    yield from filter(None, (whole_export_in(one, names) for one in _materializations(instance, chosen)))


def _materializations(instance: dg.DagsterInstance, chosen: dg.AssetRecordsFilter) -> Iterator[dg.AssetMaterialization]:
    """Newest first, read some at a time."""
    cursor: str | None = None
    has_more = True
    while has_more:
        found = instance.fetch_materializations(chosen, _AT_ONCE, cursor)
        cursor, has_more = found.cursor, found.has_more
        yield from (one.asset_materialization for one in found.records if one.asset_materialization)
