"""Export jobs, read from Dagster's run records and event logs: one per export, however many runs it took."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Literal

import dagster as dg
import msgspec
from dagster import DagsterEventType as Type
from dagster import DagsterRunStatus as RunStatus

from m3ter_dagster.dagster_internals import events_of_run, runs_by_tag
from m3ter_dagster.history.failures import failure_text
from m3ter_dagster.history.log import (
    DESTINATIONS_TAG,
    DUE_TAG,
    MANIFEST,
    ORGANIZATION_TAG,
    SCHEDULE_TAG,
    USAGE_MANIFEST,
    chosen_entities,
    deliveries_of,
    exported,
    is_of,
    manifests,
    root_id,
    run_records,
    runs_of,
    schedule_of,
)
from m3ter_dagster.history.record import WholeExport
from m3ter_dagster.names import DEFAULT, Names

Status = Literal["PENDING", "RUNNING", "SUCCEEDED", "FAILED"]
_STATUSES: Mapping[RunStatus, Status] = {
    RunStatus.STARTED: "RUNNING",
    RunStatus.CANCELING: "RUNNING",
    RunStatus.SUCCESS: "SUCCEEDED",
    RunStatus.FAILURE: "FAILED",
    RunStatus.CANCELED: "FAILED",
}
"""The status of an export by that of its last run; with any other, the run has not started."""
_STATES = {
    Type.ASSET_MATERIALIZATION_PLANNED: "waiting",
    Type.STEP_START: "running",
    Type.STEP_RESTARTED: "running",
    Type.STEP_FAILURE: "failed",
    Type.ASSET_MATERIALIZATION: "delivered",
}
"""The state of an entity by the last event about it."""
_MANIFESTS_PER_LOG = 20
"""The most manifests that are read for each log that may stay closed: a log takes as long as a hundred of them."""

_ENDS = {Type.RUN_FAILURE, Type.RUN_CANCELED}


class ExportJob(msgspec.Struct, frozen=True, rename="camel"):
    """What became of one export so far."""

    id: str
    """The export id, which is in the names of its objects: the id of the first run."""
    schedule: str | None
    due: datetime | None
    """None for an export that a person started outside any schedule."""
    started: datetime | None
    finished: datetime | None
    status: Status
    delivered: tuple[str, ...]
    """Entities that are in every destination, whichever run of the export delivered them."""
    failed: tuple[str, ...]
    """Entities that failed and, once the export has ended, all others that are missing."""
    destinations: tuple[str, ...]
    error: str
    """Why the export failed: the first failure of its last run that has any, with the name of the entity."""
    runs: int
    """How many runs it took so far."""
    rows: int | None = None
    """The rows of what was delivered; None where they were not counted."""

    @property
    def seconds(self) -> float | None:
        """From the start of the first run to the end of the last."""
        return (self.finished - self.started).total_seconds() if self.started and self.finished else None


def read_export_jobs(
    instance: dg.DagsterInstance,
    *,
    org_id: str | None = None,
    schedule: str | None = None,
    status: Status | None = None,
    limit: int,
    names: Names = DEFAULT,
) -> list[ExportJob]:
    """The last exports of the Organization (None: of any); the one that ran last comes first."""
    found = (job for job in _jobs(instance, org_id, schedule, status, names) if status in (None, job.status))
    return list(islice(found, limit))


def export_job(instance: dg.DagsterInstance, run: dg.DagsterRun, names: Names = DEFAULT) -> ExportJob | None:
    """The export that a run belongs to, if it exports anything."""
    return _job(instance, root_id(run), names)


def with_rows(instance: dg.DagsterInstance, jobs: Sequence[ExportJob], names: Names = DEFAULT) -> list[ExportJob]:
    """The same with their rows. Of exports that a single run made whole the manifests say them, else the runs' logs."""
    listed = _manifests_of(instance, [job for job in jobs if job.runs == 1 and job.status == "SUCCEEDED"], names)
    return [_with_rows(instance, job, listed.get(job.id, ()), names) for job in jobs]


def _with_rows(instance: dg.DagsterInstance, job: ExportJob, listed: Sequence[WholeExport], names: Names) -> ExportJob:
    rows = {name: part.rows for whole in listed for name, part in whole.entities.items()}
    files = [file for whole in listed for file in whole.objects]
    if not rows.keys() >= {*job.delivered}:
        delivered = deliveries_of(instance, job.id, names=names)
        rows = {name: one.rows for name, one in delivered.items()}
        files = [file for one in delivered.values() for file in one.objects]
    where = job.destinations or tuple(sorted({file.destination for file in files}))
    return msgspec.structs.replace(job, rows=sum(rows.values()), destinations=where)


def _manifests_of(
    instance: dg.DagsterInstance, jobs: Sequence[ExportJob], names: Names
) -> Mapping[str, Sequence[WholeExport]]:
    """The manifests of these exports by export, as far as they are worth looking for."""
    found = defaultdict[str, list[WholeExport]](list)
    since = min((job.started.timestamp() for job in jobs if job.started), default=None)
    for manifest in (MANIFEST, USAGE_MANIFEST) if since else ():
        newest_first = manifests(instance, manifest, since=since, names=names)
        for whole in islice(newest_first, _MANIFESTS_PER_LOG * len(jobs)):
            found[whole.export].append(whole)
    return found


def last_export(
    instance: dg.DagsterInstance, schedule: str, org_id: str | None = None, names: Names = DEFAULT
) -> ExportJob | None:
    return next(iter(read_export_jobs(instance, org_id=org_id, schedule=schedule, limit=1, names=names)), None)


def runs_of_others(instance: dg.DagsterInstance, org_id: str | None) -> int:
    """The number of runs that other Organizations have in the same records."""
    counts = runs_by_tag(instance, ORGANIZATION_TAG) if org_id else {}
    return sum(count for one, count in counts.items() if org_id not in one.split(","))


def _jobs(
    instance: dg.DagsterInstance, org_id: str | None, schedule: str | None, status: Status | None, names: Names
) -> Iterator[ExportJob]:
    """The exports that may have the status: it is that of a run of theirs, even where an earlier one left a gap."""
    statuses = [one for one in RunStatus if status in (None, _STATUSES.get(one, "PENDING"))]
    tags = {SCHEDULE_TAG: names.schedule(schedule)} if schedule else None
    seen: set[str] = set()
    for record in run_records(instance, dg.RunsFilter(tags=tags, statuses=statuses)):
        id = root_id(record.dagster_run)
        if id not in seen and is_of(record.dagster_run, org_id):
            seen.add(id)
            job = _job(instance, id, names)
            if job is not None:
                yield job


def _job(instance: dg.DagsterInstance, id: str, names: Names) -> ExportJob | None:
    """The export with this id, or None where the run exports nothing."""
    runs = runs_of(instance, id)
    states, error = _entity_states(instance, runs, names)
    if not states:
        return None
    first, last = runs[0], runs[-1]
    status = _status(runs, states)
    has_ended = status in ("SUCCEEDED", "FAILED")
    due, destinations = (first.dagster_run.tags.get(tag) for tag in (DUE_TAG, DESTINATIONS_TAG))
    return ExportJob(
        id=id,
        schedule=schedule_of(first.dagster_run, names),
        due=datetime.fromisoformat(due) if due else None,
        started=_moment(next((run.start_time for run in runs if run.start_time), None)),
        finished=_moment(last.end_time) if has_ended else None,
        status=status,
        delivered=_in_state(states, "delivered"),
        failed=_in_state(states, "failed", *(("waiting", "running") if has_ended else ())),
        destinations=tuple(destinations.split(",")) if destinations else (),
        error=error if status == "FAILED" else "",
        runs=len(runs),
    )


def _status(runs: Sequence[dg.RunRecord], states: Mapping[str, str]) -> Status:
    """The status of the last run, but FAILED if it succeeded while entities of an earlier run are still missing."""
    status = _STATUSES.get(runs[-1].dagster_run.status, "PENDING")
    is_complete = set(states.values()) == {"delivered"}
    return "FAILED" if status == "SUCCEEDED" and not is_complete else status


def _entity_states(
    instance: dg.DagsterInstance, runs: Sequence[dg.RunRecord], names: Names
) -> tuple[dict[str, str], str]:
    """The last state of each entity, and why the last run failed that did.

    A run that succeeded at once has delivered its plan: its log can stay closed.
    """
    first = runs[0].dagster_run
    if len(runs) == 1 and first.status == RunStatus.SUCCESS:
        return dict.fromkeys(chosen_entities(instance, first, names), "delivered"), ""
    states: dict[str, str] = {}
    error = ""
    for run in runs:
        failures: list[str] = []
        for event, _ in events_of_run(instance, run.dagster_run.run_id, _STATES.keys() | _ENDS):
            name = _asset_of(event, names)
            if event.event_type in _ENDS or event.event_type == Type.STEP_FAILURE:
                text = failure_text(event)
                failures.append(text if text.startswith(name) else f"{name}: {text}")
            if name in exported() and states.get(name) != "delivered":
                states[name] = _STATES[event.event_type]
        error = failures[0] if failures else error
    return states, error


def _asset_of(event: dg.DagsterEvent, names: Names) -> str:
    """The name of the asset that an event is about; of another's asset or step the name is none of ours."""
    if event.asset_key:
        return names.asset(event.asset_key)
    return next(iter(names.of_steps([event.step_key or ""])), "")


def _in_state(states: Mapping[str, str], *wanted: str) -> tuple[str, ...]:
    return tuple(sorted(name for name, state in states.items() if state in wanted))


def _moment(timestamp: float | None) -> datetime | None:
    return datetime.fromtimestamp(timestamp, UTC) if timestamp else None
