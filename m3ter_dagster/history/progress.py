"""The progress of a run, read from Dagster's log while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType

import dagster as dg
import msgspec
from dagster import DagsterEventType as Type

from m3ter_dagster.dagster_internals import events_of_run, log_engine_event
from m3ter_dagster.history.failures import failure_text
from m3ter_dagster.history.log import MANIFEST, USAGE_MANIFEST
from m3ter_dagster.history.record import StoredObject, delivery_in, whole_export_in
from m3ter_dagster.names import DEFAULT, Names

UNDER_WAY = "m3ter/under_way"
"""The name of the metadata value that is an `UnderWay`."""
REUSE = "reuse"
"""The check of rows that a schedule takes over from its previous export."""
_FOLLOWED = {
    Type.ENGINE_EVENT,
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


class UnderWay(msgspec.Struct, frozen=True, rename="camel"):
    """How far a process is with what it reads: in the log every few seconds while a step waits for it."""

    rows: dict[str, int] = {}
    """The rows of each entity that were read so far."""
    requests: dict[str, int] = {}
    rows_before: dict[str, int] = {}
    """What the previous export of the same schedule had of each entity."""
    silent_seconds: float | None = None
    """How long m3ter has answered nobody; None: it answers."""
    waits_for: str = ""
    """In words for people, where a step waits for something else than these rows."""


def log_under_way(
    context: dg.AssetExecutionContext,
    words: str,
    found: UnderWay,
    rows_before: Mapping[str, int] = MappingProxyType({}),
) -> None:
    """Log the words, which no code reads, and beside them the values."""
    values = msgspec.to_builtins(msgspec.structs.replace(found, rows_before=dict(rows_before)))
    metadata = {UNDER_WAY: dg.MetadataValue.json(values)}
    text, step = f"{context.asset_key.to_user_string()}: {words}", context.asset_key.to_python_identifier()
    log_engine_event(context.instance, context.run, text, step=step, metadata=metadata)


class CheckResult(msgspec.Struct, frozen=True):
    passed: bool
    words: str
    """What the check says of itself; may be empty."""


class EntityResult(msgspec.Struct, rename="camel"):
    """What became of one entity in a run."""

    entity: str
    status: str = "waiting"
    """waiting, running, delivered or failed"""
    rows_read: int | None = None
    """Those that were read so far, which may be before it is its turn to run."""
    requests: int | None = None
    """Those made so far, or that it took."""
    rows_before: int | None = None
    """Those of the previous export of the same schedule, once that is known."""
    rows: int | None = None
    """Those that were delivered."""
    bytes: int | None = None
    changes: int | None = None
    """The rows of the file of changes, if there is one."""
    seconds: float | None = None
    checks: dict[str, CheckResult] = {}
    """By name. A check that had nothing to look at is not among them."""
    objects: list[StoredObject] = []
    """The files of rows and of changes, in every destination."""
    error: str = ""


class RunResult(msgspec.Struct, rename="camel"):
    """What became of a run so far."""

    entities: dict[str, EntityResult]
    run_id: str = ""
    manifests: list[StoredObject] = []
    """Each exists only when everything that it lists does."""
    error: str = ""
    """Why the run as a whole failed, where no entity says so."""
    silent_seconds: float | None = None
    """How long m3ter has answered nobody, as far as is known."""
    waits_for: str = ""
    """In words for people: see `UnderWay`."""
    has_succeeded: bool = False
    """Whether the run has succeeded, so its manifests exist as well."""

    @property
    def is_complete(self) -> bool:
        return self.has_succeeded and all(one.status == "delivered" for one in self.entities.values())


Changed = Callable[[RunResult, str | None], None]
"""Called with the name of each entity whose state has changed, and with None every second."""


def follow(
    instance: dg.DagsterInstance,
    request: Mapping[str, str],
    result: RunResult,
    changed: Changed,
    ended: threading.Event,
    names: Names = DEFAULT,
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
            for name in _apply((event for event, _ in found), result, names):
                changed(result, name)
        changed(result, None)


def _run_id(instance: dg.DagsterInstance, request: Mapping[str, str]) -> str:
    runs = instance.get_run_records(dg.RunsFilter(tags=dict(request)), limit=1)
    return runs[0].dagster_run.run_id if runs else ""


def _apply(events: Iterable[dg.DagsterEvent], result: RunResult, names: Names) -> Iterator[str]:
    """Update the result with the events; yields the names of the entities that changed."""
    for event in events:
        if event.event_type == Type.ENGINE_EVENT:
            _apply_under_way(event, result)
            continue
        asset = _asset_of(event, names)
        entity = result.entities.get(asset)
        if entity is not None:
            _apply_to_entity(event, entity, names)
            yield entity.entity
        elif asset in (MANIFEST, USAGE_MANIFEST) and event.event_type == Type.ASSET_MATERIALIZATION:
            whole = whole_export_in(event.step_materialization_data.materialization, names)
            result.manifests += whole.objects if whole else ()
        elif event.event_type == Type.RUN_SUCCESS:
            result.has_succeeded = True
        elif event.is_failure and not any(one.error for one in result.entities.values()):
            result.error = failure_text(event)


def _apply_under_way(event: dg.DagsterEvent, result: RunResult) -> None:
    values = event.engine_event_data.metadata.get(UNDER_WAY)
    if values is None:
        return
    found = msgspec.convert(values.value, UnderWay)
    result.silent_seconds, result.waits_for = found.silent_seconds, found.waits_for
    for name, entity in result.entities.items():
        entity.rows_read = found.rows.get(name, entity.rows_read)
        entity.requests = found.requests.get(name, entity.requests)
        entity.rows_before = found.rows_before.get(name, entity.rows_before)


def _asset_of(event: dg.DagsterEvent, names: Names) -> str:
    """The asset that an event is about: that of its step, or for a check across entities the one it checks."""
    if event.event_type == Type.ASSET_CHECK_EVALUATION:
        return names.asset(event.asset_check_evaluation_data.asset_key)
    return next(iter(names.of_steps([event.step_key or ""])), "")


def _apply_to_entity(event: dg.DagsterEvent, entity: EntityResult, names: Names) -> None:
    match event.event_type:
        case Type.STEP_START | Type.STEP_RESTARTED:
            entity.status, entity.checks = "running", {}
        case Type.STEP_FAILURE:
            entity.status, entity.error = "failed", failure_text(event)
        case Type.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            entity.checks[check.check_name] = CheckResult(check.passed, check.description or "")
        case Type.ASSET_MATERIALIZATION:
            delivery = delivery_in(event.step_materialization_data.materialization, names)
            if delivery:
                entity.status, entity.rows, entity.bytes = "delivered", delivery.rows, delivery.objects[0].bytes
                entity.seconds = delivery.reading.seconds + delivery.seconds_to_deliver
                entity.requests = delivery.reading.requests
                entity.objects = [*delivery.objects]
                if changes := delivery.changes:
                    entity.changes = sum(changes.rows.values())
                    entity.objects += changes.objects
