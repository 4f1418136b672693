"""What the sensor launches: first exports, and due times that got no run; each once, over years, whatever fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import dagster as dg
import pytest
from dagster._cli.utils import get_possibly_temporary_instance_for_cli
from dagster._core.scheduler.instigation import (
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from sample_schedules import FINANCE, HOURLY, JUNE_1, NOW, schedule_of
from toggles import state_of, switch

from m3ter_dagster.config import ExportSchedule
from m3ter_dagster.due_exports import Memory, due_exports, look, run_key
from m3ter_dagster.history.log import DUE_TAG, MANIFEST, SCHEDULE_TAG
from m3ter_dagster.resources import IO_MANAGER
from m3ter_dagster.schedules import PUNCTUAL, export_jobs

MISSED = datetime(2024, 7, 16, 10, tzinfo=UTC)
"""The first due time of FINANCE after NOW."""
Status = dg.DagsterRunStatus
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


LATER = schedule_of("later", dt_created=NOW + timedelta(hours=1))


def evaluate(
    schedules: Sequence[ExportSchedule],
    instance: dg.DagsterInstance,
    *,
    now: datetime = NOW,
    cursor: str | None = None,
) -> Any:
    definitions = definitions_of(schedules, now)
    sensor = definitions.resolve_sensor_def("due_exports")
    with dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions) as context:
        return sensor.evaluate_tick(context)


def definitions_of(schedules: Sequence[ExportSchedule], now: datetime = NOW) -> dg.Definitions:
    jobs = export_jobs(schedules)
    names = {name for one in schedules for name in one.asset_names}
    return dg.Definitions(
        assets=[entity_asset(name) for name in (*names, MANIFEST)],
        jobs=list(jobs.values()),
        sensors=[due_exports(schedules, jobs, clock=lambda: now)],
    )


def entity_asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def entity() -> None: ...

    return entity


def keys(found: Any) -> list[str]:
    return [request.run_key for request in found.run_requests or ()]


def test_the_first_export_is_launched_at_once(instance: dg.DagsterInstance) -> None:
    found = evaluate([FINANCE, HOURLY], instance, now=NOW.replace(second=7, microsecond=8))
    assert [request.run_key for request in found.run_requests] == [
        "finance:2024-06-01T10:00:00+00:00",
        "hour-ly:2024-06-01T10:00:00+00:00",
    ]
    assert [request.job_name for request in found.run_requests] == ["export_finance", "export_hour_ly"]
    destinations = {"config": {"destinations": ["warehouse", "archive"]}}
    assert found.run_requests[0].run_config == {"resources": {IO_MANAGER: destinations}}
    assert found.run_requests[0].tags["m3ter/due"] == "2024-07-15T08:30:07+00:00"
    assert found.run_requests[0].tags["m3ter/schedule"] == "finance"


def test_and_once_only(instance: dg.DagsterInstance) -> None:
    first = evaluate([FINANCE, HOURLY], instance)
    again = evaluate([FINANCE, HOURLY], instance, cursor=first.cursor, now=NOW + MINUTE)
    assert not again.run_requests
    assert again.skip_message == "no export is missing."


def test_first_exports_wait_where_dagster_forgets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start of `dagster dev` without a home would export everything again as first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with get_possibly_temporary_instance_for_cli() as instance:
        found = evaluate([FINANCE], instance, cursor=None)
    assert not found.run_requests
    assert found.skip_message.startswith("exports wait: Dagster's home is temporary, ")
    assert found.cursor is None


def test_a_schedule_that_is_added_or_created_anew_has_a_first_export(instance: dg.DagsterInstance) -> None:
    first = evaluate([FINANCE], instance)
    created_anew = schedule_of(dt_created=JUNE_1 + timedelta(days=1))
    found = evaluate([created_anew, HOURLY], instance, cursor=first.cursor)
    assert keys(found) == [run_key(created_anew, created_anew.dt_created), run_key(HOURLY, JUNE_1)]


def test_a_schedule_that_was_away_is_not_new(instance: dg.DagsterInstance) -> None:
    first = evaluate([FINANCE], instance)
    away = evaluate([HOURLY], instance, cursor=first.cursor)
    assert not evaluate([FINANCE, HOURLY], instance, cursor=away.cursor).run_requests


def test_a_schedule_of_the_future_waits_for_its_moment(instance: dg.DagsterInstance) -> None:
    before = evaluate([LATER], instance)
    assert not before.run_requests
    assert before.skip_message == "the first export of schedule 'later' is due at 2024-07-15 09:30 UTC."
    found = evaluate([LATER], instance, now=LATER.dt_created + timedelta(seconds=29), cursor=before.cursor)
    (request,) = found.run_requests
    assert request.tags["m3ter/due"] == "2024-07-15T09:30:00+00:00"


def test_at_that_moment_the_sensor_alone_launches(instance: dg.DagsterInstance) -> None:
    """The tick of the schedule is skipped."""
    assert keys(evaluate([LATER], instance, now=LATER.dt_created)) == [run_key(LATER, LATER.dt_created)]


def test_the_sensor_is_on_from_the_start() -> None:
    sensor = definitions_of([FINANCE]).resolve_sensor_def("due_exports")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


def test_no_schedule_at_all(instance: dg.DagsterInstance) -> None:
    assert not evaluate([], instance).run_requests


def test_a_code_of_any_characters(instance: dg.DagsterInstance) -> None:
    odd = schedule_of("Ü b/c," + "x" * 74)
    (request,) = evaluate([odd], instance).run_requests
    assert request.tags["m3ter/schedule"] == odd.code


def test_a_schedule_that_is_switched_off_gets_its_first_export_once_it_is_on(instance: dg.DagsterInstance) -> None:
    switch(instance, InstigatorStatus.STOPPED, "finance")
    first = evaluate([FINANCE, HOURLY], instance)
    assert [request.job_name for request in first.run_requests] == ["export_hour_ly"]
    switch(instance, InstigatorStatus.RUNNING, "finance")
    second = evaluate([FINANCE, HOURLY], instance, cursor=first.cursor)
    assert [request.job_name for request in second.run_requests] == ["export_finance"]


def add_run(instance: dg.DagsterInstance, due: datetime, status: Status, code: str = "finance") -> None:
    tags = {SCHEDULE_TAG: code, DUE_TAG: due.isoformat()}
    instance.create_run_for_job(dg.GraphDefinition("export_finance").to_job(), tags=tags, status=status)


@pytest.fixture
def seen(instance: dg.DagsterInstance) -> str:
    """The cursor of a sensor that has launched the first export of FINANCE."""
    found = evaluate([FINANCE], instance)
    assert keys(found) == ["finance:2024-06-01T10:00:00+00:00"]
    return found.cursor


def test_a_due_time_without_a_run_gets_one_when_the_schedule_may_no_longer_launch_it(
    instance: dg.DagsterInstance, seen: str
) -> None:
    early = evaluate([FINANCE], instance, now=MISSED + PUNCTUAL - MINUTE, cursor=seen)
    assert keys(early) == []
    assert early.skip_message == "no export is missing."
    found = evaluate([FINANCE], instance, now=MISSED + PUNCTUAL, cursor=early.cursor)
    assert keys(found) == ["finance:2024-07-16T10:00:00+00:00"]
    assert found.run_requests[0].tags["m3ter/due"] == "2024-07-16T10:00:00+00:00"
    assert found.run_requests[0].job_name == "export_finance"
    assert keys(evaluate([FINANCE], instance, now=MISSED + 2 * PUNCTUAL, cursor=found.cursor)) == []


@pytest.mark.parametrize("status", [Status.STARTED, Status.FAILURE, Status.SUCCESS])
def test_a_due_time_with_a_run_has_had_it_even_when_that_is_removed_later(
    instance: dg.DagsterInstance, seen: str, status: Status
) -> None:
    add_run(instance, MISSED, status)
    first = evaluate([FINANCE], instance, now=MISSED + PUNCTUAL, cursor=seen)
    for run in instance.get_runs():
        instance.delete_run(run.run_id)
    assert keys(first) == keys(evaluate([FINANCE], instance, now=MISSED + DAY, cursor=first.cursor)) == []


def test_the_run_of_another_schedule_or_due_time_is_none_of_this(instance: dg.DagsterInstance, seen: str) -> None:
    add_run(instance, MISSED, Status.SUCCESS, "hour-ly")
    add_run(instance, MISSED - 5 * DAY, Status.SUCCESS)
    assert keys(evaluate([FINANCE], instance, now=MISSED + PUNCTUAL, cursor=seen)) == [run_key(FINANCE, MISSED)]


def test_after_a_standstill_over_three_due_times_the_latest_gets_a_run(instance: dg.DagsterInstance, seen: str) -> None:
    found = evaluate([FINANCE], instance, now=MISSED + 11 * DAY, cursor=seen)
    assert keys(found) == ["finance:2024-07-26T10:00:00+00:00"]


def test_a_tick_of_the_schedule_that_is_under_way_is_waited_for(instance: dg.DagsterInstance, seen: str) -> None:
    """A daemon that died in the midst of a tick goes on with it when it is back, without asking anybody."""
    switch(instance, InstigatorStatus.RUNNING, at=JUNE_1)
    (state,) = instance.all_instigator_state()
    tick = instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name="finance",
            instigator_type=InstigatorType.SCHEDULE,
            status=TickStatus.STARTED,
            timestamp=MISSED.timestamp(),
            selector_id=state.selector_id,
        )
    )
    found = evaluate([FINANCE], instance, now=MISSED + PUNCTUAL, cursor=seen)
    assert keys(found) == []
    instance.update_tick(tick.with_status(TickStatus.SKIPPED))
    assert keys(evaluate([FINANCE], instance, now=MISSED + PUNCTUAL, cursor=found.cursor)) == [run_key(FINANCE, MISSED)]


def test_nothing_that_was_due_while_it_was_off_is_made_up_for(instance: dg.DagsterInstance, seen: str) -> None:
    switch(instance, InstigatorStatus.STOPPED)
    off = evaluate([FINANCE], instance, now=MISSED + PUNCTUAL, cursor=seen)
    switch(instance, InstigatorStatus.RUNNING, at=MISSED + DAY)
    on = evaluate([FINANCE], instance, now=MISSED + DAY + MINUTE, cursor=off.cursor)
    assert keys(off) == keys(on) == []
    next_due = MISSED + 5 * DAY
    later = evaluate([FINANCE], instance, now=next_due + PUNCTUAL, cursor=on.cursor)
    assert keys(later) == [run_key(FINANCE, next_due)]


def test_nor_when_the_daemon_was_down_all_the_time(instance: dg.DagsterInstance, seen: str) -> None:
    switch(instance, InstigatorStatus.RUNNING, at=MISSED + DAY)
    assert keys(evaluate([FINANCE], instance, now=MISSED + 2 * DAY, cursor=seen)) == []


def test_another_cadence_owes_nothing_of_the_time_before(instance: dg.DagsterInstance, seen: str) -> None:
    """At the last look it was due every five days; the daemon was down since, so one of the new times is owed."""
    last = evaluate([FINANCE], instance, now=NOW + DAY / 2, cursor=seen)
    daily = schedule_of(period=1)
    found = evaluate([daily], instance, now=NOW + DAY / 2 + MINUTE, cursor=last.cursor)
    assert keys(found) == []
    found = evaluate([daily], instance, now=NOW + 4 * DAY, cursor=last.cursor)
    assert keys(found) == ["finance:2024-07-18T10:00:00+00:00"]


def test_after_an_upgrade_nothing_is_exported_again(instance: dg.DagsterInstance) -> None:
    """The sensor's name was first_exports, and its cursor a list."""
    data = SensorInstigatorData(cursor='["finance:2024-06-01T10:00:00+00:00"]')
    instance.add_instigator_state(state_of(InstigatorStatus.STOPPED, "first_exports", InstigatorType.SENSOR, data))
    found = evaluate([FINANCE, HOURLY], instance, now=MISSED + PUNCTUAL)
    assert keys(found) == ["hour-ly:2024-06-01T10:00:00+00:00"]
    next_due = MISSED + 5 * DAY
    later = evaluate([FINANCE], instance, now=next_due + PUNCTUAL, cursor=found.cursor)
    assert keys(later) == [run_key(FINANCE, next_due)]


@dataclass
class World:
    """A daemon without reloads: its schedule with the lines of its first day, and its sensor, over simulated time."""

    schedule: ExportSchedule
    now: datetime
    up: bool = True
    on_since: datetime | None = JUNE_1
    breaks: bool = False
    """Whether the ticks of the schedule fail."""
    memory: Memory = field(default_factory=Memory)
    runs: Counter[datetime] = field(default_factory=Counter)
    iterated: datetime = JUNE_1
    """Until when the daemon has looked for ticks."""

    def __post_init__(self) -> None:
        self.lines = self.schedule.cadence.cron_lines(self.now)

    # What the sensor is told

    def switched_on(self, schedule: ExportSchedule) -> datetime | None:  # noqa: ARG002
        return self.on_since

    def had_run(self, schedule: ExportSchedule, due: datetime) -> bool:  # noqa: ARG002
        return due in self.runs

    def is_under_way(self, schedule: ExportSchedule, due: datetime) -> bool:  # noqa: ARG002
        return False

    def iterate(self, due: datetime | None) -> None:
        """Dagster evaluates the last tick since it looked before; `due` is the last due time."""
        start = max(self.iterated, self.on_since or self.now)
        fires = due and self.on_since and start < due <= self.now and matches(self.lines, due)
        if due and fires and not self.breaks and self.now < due + PUNCTUAL:
            self.runs[due] += 1
        self.iterated = self.now
        launches, self.memory = look([self.schedule], self.memory, self, self.now)
        self.runs.update(one.due for one in launches)


def matches(lines: Sequence[str], moment: datetime) -> bool:
    """Whether one of the lines fires then. They have no ranges and no steps."""
    weekday = moment.isoweekday() % 7
    values = (moment.minute, moment.hour, moment.day, moment.month, weekday)
    return any(
        all(part == "*" or str(value) in part.split(",") for part, value in zip(line.split(), values, strict=True))
        for line in lines
    )


YEARS = [("HOUR", 5), ("HOUR", 7), ("HOUR", 25), ("DAY", 1), ("DAY", 5), ("DAY", 400)]
WEEKS = [("MINUTE", 15), ("MINUTE", 17), ("MINUTE", 100)]


@pytest.mark.parametrize(
    ("unit", "period", "length"),
    [*((*one, 3 * 365 * DAY) for one in YEARS), *((*one, 63 * DAY) for one in WEEKS)],
)
def test_years_without_a_reload_miss_nothing_and_double_nothing(unit: str, period: int, length: timedelta) -> None:
    """The daemon goes down, ticks fail, and a person switches the schedule off and on, all by chance."""
    random = Random(f"{unit} {period}")
    step = period * {"MINUTE": MINUTE, "HOUR": 60 * MINUTE, "DAY": DAY}[unit]
    world = World(schedule_of(schedule_type=unit, period=period), JUNE_1)
    world.iterate(None)
    (first,) = world.runs
    assert first == JUNE_1
    owed, due = {first}, JUNE_1 + step
    while due < JUNE_1 + length:
        was_up, world.up = world.up, random.random() < 0.9
        world.breaks = random.random() < 0.1
        if world.up:
            # It looks at once or, if it was down before, at some time before the next due time.
            world.now = due + random.random() * (2 * MINUTE if was_up else step - PUNCTUAL - 2 * MINUTE)
            if random.random() < 0.05:
                world.on_since = None if world.on_since else world.now
            world.iterate(due)
            world.now = max(world.now, due + PUNCTUAL) + random.random() * MINUTE
            world.iterate(due)
            if world.on_since and world.on_since < due:
                owed.add(due)
        due += step
    assert set(world.runs) == owed
    assert max(world.runs.values()) == 1
