"""The progress of a run, read from Dagster's log while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterEventType as Type

from m3ter_dagster.dagster_internals import events_of_run
from m3ter_dagster.history.failures import failure_text
from m3ter_dagster.history.log import MANIFEST, USAGE_MANIFEST
from m3ter_dagster.history.record import delivery_in, whole_export_in

CHECKED = "m3ter/checked"
"""Metadata of a check: false if it had nothing to check. It has passed then, as Dagster knows no third result."""
REUSE = "reuse"
"""The check of rows that a schedule takes over from its previous export."""
_FOLLOWED = {
    Type.STEP_START,
    Type.STEP_RESTARTED,
    Type.STEP_FAILURE,
    Type.ASSET_CHECK_EVALUATION,
    Type.ASSET_MATERIALIZATION,
    Type.RUN_SUCCESS,
    Type.RUN_FAILURE,
    Type.RUN_CANCELED,
}
_LOOK_EVERY_SECONDS = 1.0


@dataclass
class EntityResult:
    """What became of one entity in a run."""

    entity: str
    status: str = "waiting"
    """waiting, running, delivered or failed"""
    rows: int | None = None
    bytes: int | None = None
    changes: int | None = None
    """The rows of the file of changes, if there is one."""
    seconds: float | None = None
    checks: list[bool] = field(default_factory=list)
    uris: list[str] = field(default_factory=list)
    error: str = ""


@dataclass
class RunResult:
    """What became of a run so far."""

    entities: dict[str, EntityResult]
    run_id: str = ""
    manifest: list[str] = field(default_factory=list)
    """Addresses of the manifests; each exists only when everything that it lists does."""
    error: str = ""
    """Why the run as a whole failed, where no entity says so."""
    has_succeeded: bool = False
    """Whether the run has succeeded, so its manifests exist as well."""

    @property
    def is_complete(self) -> bool:
        return self.has_succeeded and all(one.status == "delivered" for one in self.entities.values())


def follow(
    instance: dg.DagsterInstance,
    request: Mapping[str, str],
    result: RunResult,
    changed: Callable[[RunResult, str], None],
    ended: threading.Event,
) -> None:
    """Keep `result` up to date with the run that has the tags `request`, until `ended` is set and the log is read."""
    cursor: str | None = None
    is_last = False
    while not is_last:
        is_last = ended.wait(_LOOK_EVERY_SECONDS)
        result.run_id = result.run_id or _run_id(instance, request)
        if result.run_id:
            found = list(events_of_run(instance, result.run_id, _FOLLOWED, cursor))
            cursor = found[-1][1] if found else cursor
            for name in _apply((event for event, _ in found), result):
                changed(result, name)


def _run_id(instance: dg.DagsterInstance, request: Mapping[str, str]) -> str:
    runs = instance.get_run_records(dg.RunsFilter(tags=dict(request)), limit=1)
    return runs[0].dagster_run.run_id if runs else ""


def _apply(events: Iterable[dg.DagsterEvent], result: RunResult) -> Iterator[str]:
    """Update the result with the events; yields the names of the entities that changed."""
    for event in events:
        entity = result.entities.get(_entity_of(event))
        if entity is not None:
            _apply_to_entity(event, entity)
            yield entity.entity
        elif event.step_key in (MANIFEST, USAGE_MANIFEST) and event.event_type == Type.ASSET_MATERIALIZATION:
            whole = whole_export_in(event.step_materialization_data.materialization)
            result.manifest += [one.uri for one in whole.objects] if whole else []
        elif event.event_type == Type.RUN_SUCCESS:
            result.has_succeeded = True
        elif event.is_failure and not any(one.error for one in result.entities.values()):
            result.error = failure_text(event)


def _entity_of(event: dg.DagsterEvent) -> str:
    """The entity that an event is about: that of its step, or for a check across entities the one it checks."""
    if event.event_type == Type.ASSET_CHECK_EVALUATION:
        return event.asset_check_evaluation_data.asset_key.path[-1]
    return event.step_key or ""


def _apply_to_entity(event: dg.DagsterEvent, entity: EntityResult) -> None:
    match event.event_type:
        case Type.STEP_START | Type.STEP_RESTARTED:
            entity.status, entity.checks = "running", []
        case Type.STEP_FAILURE:
            entity.status, entity.error = "failed", failure_text(event)
        case Type.ASSET_CHECK_EVALUATION:
            checked = event.asset_check_evaluation_data.metadata.get(CHECKED)
            if checked is None or checked.value:
                entity.checks.append(event.asset_check_evaluation_data.passed)
        case Type.ASSET_MATERIALIZATION:
            delivery = delivery_in(event.step_materialization_data.materialization)
            if delivery:
                entity.status, entity.rows, entity.bytes = "delivered", delivery.rows, delivery.objects[0].bytes
                entity.seconds = delivery.reading.seconds + delivery.seconds_to_deliver
                entity.uris = [one.uri for one in delivery.objects]
                if changes := delivery.changes:
                    entity.changes = sum(changes.rows.values())
                    entity.uris += [one.uri for one in changes.objects]
