"""What becomes of a run, read from Dagster's own event log while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
from dagster import DagsterEventType as Type

from m3ter_dagster.assets.verdicts import was_checked
from m3ter_dagster.history.delivery_metadata import delivered_objects
from m3ter_dagster.history.failures import failure_text
from m3ter_dagster.history.log import MANIFEST, USAGE_MANIFEST

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
_LOOK_EVERY_SECONDS = 0.5


@dataclass
class EntityResult:
    """What became of one entity in a run."""

    entity: str
    status: str = "waiting"
    """waiting, running, delivered or failed"""
    rows: int | None = None
    bytes: int | None = None
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
    """Addresses of the manifests: each is there only when everything is that it lists."""
    error: str = ""
    """Why the run as a whole failed, where no entity says so."""
    has_succeeded: bool = False
    """As Dagster says of the run, so its manifests are there, too."""

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
    cursor: str | None = None
    is_last = False
    while not is_last:
        is_last = ended.wait(_LOOK_EVERY_SECONDS)
        result.run_id = result.run_id or _run_id(instance, request)
        if result.run_id:
            log = instance.get_records_for_run(result.run_id, cursor, _FOLLOWED)
            cursor = log.cursor
            for name in _apply([record.event_log_entry.dagster_event for record in log.records], result):
                changed(result, name)


def _run_id(instance: dg.DagsterInstance, request: Mapping[str, str]) -> str:
    runs = instance.get_run_records(dg.RunsFilter(tags=dict(request)), limit=1)
    return runs[0].dagster_run.run_id if runs else ""


def _apply(events: Sequence[dg.DagsterEvent | None], result: RunResult) -> Iterator[str]:
    """Take over what the events say; the names of the entities that changed."""
    for event in events:
        if event is None:
            continue
        entity = result.entities.get(_entity_of(event))
        if entity is not None:
            _apply_to_entity(event, entity)
            yield entity.entity
        elif event.step_key in (MANIFEST, USAGE_MANIFEST) and event.event_type == Type.ASSET_MATERIALIZATION:
            result.manifest += _uris(event.step_materialization_data.materialization)
        elif event.event_type == Type.RUN_SUCCESS:
            result.has_succeeded = True
        elif event.is_failure and not any(one.error for one in result.entities.values()):
            result.error = failure_text(event)


def _entity_of(event: dg.DagsterEvent) -> str:
    """The step's own, but a check across entities belongs to the entity that it judges."""
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
            if was_checked(event.asset_check_evaluation_data.description):
                entity.checks.append(event.asset_check_evaluation_data.passed)
        case Type.ASSET_MATERIALIZATION:
            _apply_materialization(event.step_materialization_data.materialization, entity)


def _apply_materialization(materialization: dg.AssetMaterialization, entity: EntityResult) -> None:
    metadata = materialization.metadata
    objects = delivered_objects(metadata)
    entity.status = "delivered"
    entity.rows = int(str(metadata["dagster/row_count"].value))
    entity.bytes = objects[0]["bytes"]
    entity.seconds = sum(float(str(metadata[name].value)) for name in metadata if name.startswith("seconds"))
    entity.uris = _uris(materialization)


def _uris(materialization: dg.AssetMaterialization) -> list[str]:
    return [one["uri"] for one in delivered_objects(materialization.metadata)]
