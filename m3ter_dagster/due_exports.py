"""The sensor that launches what no schedule launches by itself: first exports, and those that were missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import dagster as dg
import msgspec

from m3ter_dagster.config import AnySchedule
from m3ter_dagster.config.names import DUE_EXPORTS
from m3ter_dagster.dagster_internals import (
    cursor_of_sensor,
    is_of_location,
    is_temporary,
    is_tick_under_way,
    switched_off_schedules,
    switched_on_at,
)
from m3ter_dagster.history.log import DUE_TAG, SCHEDULE_TAG
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.schedules import PUNCTUAL, Clock, Jobs, export_request, utc_now

BEFORE = "first_exports"
"""The name of this sensor in older versions, when its cursor was the list of the first exports that were launched."""
TEMPORARY = (
    "exports wait: Dagster's home is temporary, so each start would make first exports again. Start `m3ter-dagster ui` "
    "instead, or set DAGSTER_HOME to a folder that is kept."
)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


class Watch(msgspec.Struct, frozen=True):
    """What the sensor remembers of a schedule from one look to the next."""

    cadence: str
    """In words."""
    settled: datetime
    """Of due times up to this one none is owed: they had their run, or came before the schedule was as it is now."""


class Memory(msgspec.Struct, frozen=True):
    """The sensor's cursor."""

    first: tuple[str, ...] = ()
    """The keys of the first exports that were launched, those of schedules that are gone included."""
    looked: datetime = _LONG_AGO
    watches: Mapping[str, Watch] = {}
    """By the codes of the schedules."""


@dataclass(frozen=True)
class Launch:
    schedule: AnySchedule
    due: datetime
    run_key: str
    """Dagster never launches a second run of this sensor with it."""


class Records(Protocol):
    """What Dagster's records say of schedules."""

    def switched_on(self, schedule: AnySchedule) -> datetime | None:
        """Since when the schedule is on; None: it is off."""
        ...

    def had_run(self, schedule: AnySchedule, due: datetime) -> bool: ...

    def is_under_way(self, schedule: AnySchedule, due: datetime) -> bool:
        """Whether the schedule's own tick for that time may still launch the run."""
        ...


def due_exports(
    schedules: Sequence[AnySchedule], jobs: Jobs, *, clock: Clock = utc_now, names: Names = DEFAULT
) -> dg.SensorDefinition:
    """The sensor that launches first exports and missed ones, each once, whatever restarts."""

    def launch(one: Launch) -> dg.RunRequest:
        job = jobs[one.schedule.code].name
        return export_request(one.schedule, one.due, run_key=one.run_key, job_name=job, names=names)

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if is_temporary(context.instance):
            return dg.SkipReason(TEMPORARY)
        before, now = _memory(context, names), clock().astimezone(UTC)
        launches, memory = look(schedules, before, DagsterRecords(context, names), now)
        return dg.SensorResult(
            run_requests=[launch(one) for one in launches],
            skip_reason=None if launches else _waiting(schedules, memory, now),
            cursor=msgspec.json.encode(memory).decode(),
        )

    return dg.SensorDefinition(
        name=names.own(DUE_EXPORTS),
        evaluation_fn=evaluate,
        jobs=list(jobs.values()) or None,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches the first export of each schedule, at once or at its dtCreated if that is yet to come, "
        "and the latest one that its schedule has missed: while the daemon was down, for example.",
    )


def look(
    schedules: Sequence[AnySchedule], before: Memory, records: Records, now: datetime
) -> tuple[list[Launch], Memory]:
    """What is to be launched now, and what to remember then.

    What a schedule still may launch itself is left to it: its due times of the last minutes, and a tick under way.
    """
    launches: list[Launch] = []
    first, watches = list(before.first), dict[str, Watch]()
    for schedule in schedules:
        on_since, key = records.switched_on(schedule), run_key(schedule, schedule.cadence.anchor)
        is_new = key not in first
        watch = Watch(schedule.cadence.words(), now)
        if on_since and is_new and schedule.cadence.anchor <= now:
            launches.append(Launch(schedule, _first_due(schedule, now), key))
            first.append(key)
        elif on_since and not is_new:
            watch = _watched(before, schedule, on_since, now)
            due = schedule.cadence.previous_due(now)
            # In this order: a tick that ends between the two questions has made its run.
            if due and watch.settled < due <= now - PUNCTUAL and not records.is_under_way(schedule, due):
                if not records.had_run(schedule, due):
                    launches.append(Launch(schedule, due, run_key(schedule, due)))
                watch = Watch(watch.cadence, due)
        watches[schedule.code] = watch
    return launches, Memory(tuple(first), now, watches)


def run_key(schedule: AnySchedule, due: datetime) -> str:
    return f"{schedule.code}:{due.isoformat()}"


def _watched(before: Memory, schedule: AnySchedule, on_since: datetime, now: datetime) -> Watch:
    """From when on due times are owed: of a cadence that was changed, those since the last look at the former one."""
    words, watch = schedule.cadence.words(), before.watches.get(schedule.code)
    if watch is None:
        return Watch(words, now)
    settled = watch.settled if watch.cadence == words else max(watch.settled, before.looked)
    return Watch(words, max(settled, on_since))


def _first_due(schedule: AnySchedule, now: datetime) -> datetime:
    """A first export holds the data of now, so it is due now unless dtCreated has only just passed."""
    anchor = schedule.cadence.anchor
    return anchor if now - anchor < PUNCTUAL else now.replace(microsecond=0)


class DagsterRecords:
    """The records of Dagster's instance, as the sensor sees them."""

    def __init__(self, context: dg.SensorEvaluationContext, names: Names = DEFAULT) -> None:
        self._context, self._names = context, names
        self._off, self._on = switched_off_schedules(context.instance), switched_on_at(context.instance)

    def switched_on(self, schedule: AnySchedule) -> datetime | None:
        name = self._names.own(schedule.dagster_name)
        return None if name in self._off else self._on.get(name, _LONG_AGO)

    def had_run(self, schedule: AnySchedule, due: datetime) -> bool:
        tags = {SCHEDULE_TAG: self._names.schedule(schedule.code), DUE_TAG: due.isoformat()}
        runs = self._context.instance.get_run_records(dg.RunsFilter(tags=tags))
        return any(is_of_location(self._context, record.dagster_run) for record in runs)

    def is_under_way(self, schedule: AnySchedule, due: datetime) -> bool:
        return is_tick_under_way(self._context.instance, self._names.own(schedule.dagster_name), due)


def _memory(context: dg.SensorEvaluationContext, names: Names) -> Memory:
    """The cursor; at the first look after an upgrade, what the sensor of the older version has launched."""
    if context.cursor:
        return msgspec.json.decode(context.cursor, type=Memory)
    launched = cursor_of_sensor(context.instance, names.own(BEFORE))
    return Memory(first=msgspec.json.decode(launched or "[]", type=tuple[str, ...]))


def _waiting(schedules: Sequence[AnySchedule], memory: Memory, now: datetime) -> str:
    new = [one for one in schedules if run_key(one, one.cadence.anchor) not in memory.first]
    if not new:
        return "no export is missing."
    first = min(new, key=lambda schedule: schedule.dt_created)
    if first.cadence.anchor <= now:
        return f"schedule {first.code!r} is switched off; its first export waits until it is on."
    return f"the first export of schedule {first.code!r} is due at {first.cadence.anchor:%Y-%m-%d %H:%M} UTC."
