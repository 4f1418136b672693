"""Export Schedules under a real dagster-daemon, minutes instead of days, observed in the instance's run records."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from daemons import Daemon
from dagster._core.definitions.run_request import InstigatorType
from processes import PROJECT, poll

from m3ter_dagster.config.usage import RAW
from m3ter_dagster.history.log import DUE_TAG, SCHEDULE_TAG
from m3ter_dagster.history.record import delivery_in
from m3ter_sandbox import Sandbox
from m3ter_sandbox.usage import SampleUsage

pytestmark = pytest.mark.slow

MINUTE = timedelta(minutes=1)
PATIENCE = 400
SCHEDULE = """
  - code: {code}
    {what}
    destinations: [{destination}]
    scheduleType: {unit}
    period: 1
    dtCreated: {created}
"""
SHORT = "operationalDataTypes: [PRODUCTS]"
LONG = "operationalDataTypes: [ACCOUNTS, BALANCES, COMMITMENTS, CONTRACTS, METERS, PLANS, PRICING, PRODUCTS]"
"""At a request per second an export of these is not over before the queue is looked at again."""
MEASURED = """sourceType: USAGE
    timePeriod: TODAY"""
"""From midnight until the export is due."""
SCHEDULES = (
    ("kept-on", SHORT, "warehouse", "MINUTE"),
    ("toggled", MEASURED, "warehouse", "MINUTE"),
    ("by-hand", LONG, "archive", "DAY"),
)


@dataclass(frozen=True)
class Run:
    id: str
    schedule: str
    due: datetime | None
    created: datetime
    started: datetime | None
    ended: datetime | None
    status: dg.DagsterRunStatus
    is_first: bool
    """Launched by the sensor."""


@dataclass(frozen=True)
class Story:
    """What was done when, and the runs that came of it."""

    created: datetime
    up: datetime
    off: datetime
    down: datetime
    up_again: datetime
    on_again: datetime
    runs: tuple[Run, ...]
    objects: frozenset[str]
    measured: Mapping[str, tuple[list[str], int]]
    """The windows and rows of the exports of measurements."""
    usage: SampleUsage
    """The measurements that there are."""

    def of(self, schedule: str, *, first: bool = False) -> list[Run]:
        return [run for run in self.runs if run.schedule == schedule and run.is_first is first]

    def due(self, schedule: str, after: datetime, until: datetime) -> list[datetime]:
        """When the schedule's later exports in this stretch of time were due."""
        return [run.due for run in self.of(schedule) if run.due and after < run.due <= until]


class Stage:
    """An instance, its daemon, and the looks at both."""

    def __init__(self, instance: dg.DagsterInstance, daemon: Daemon) -> None:
        self.instance = instance
        self.daemon = daemon

    def runs(self) -> list[Run]:
        """Oldest first."""
        return [_run(record) for record in self.instance.get_run_records(ascending=True)]

    def exported(self, schedule: str, due_after: datetime) -> Run:
        """An export of the schedule itself that was due after this moment and has ended."""

        def look() -> Run | None:
            runs = (run for run in self.runs() if run.schedule == schedule and not run.is_first)
            return next((run for run in runs if run.ended and run.due and run.due > due_after), None)

        return self._poll(look, f"an export of {schedule} that is due after {due_after}")

    def first_exports_made(self) -> None:
        wanted = {code for code, *_ in SCHEDULES}
        self._poll(
            lambda: {run.schedule for run in self.runs() if run.is_first and run.ended} == wanted, "first exports"
        )

    def quiet(self) -> None:
        self._poll(lambda: all(run.ended for run in self.runs()), "all runs to end")

    def sensor_looked(self, after: datetime) -> None:
        """The sensor of the first exports was evaluated since."""
        self._poll(lambda: self._last_look() > after, "the sensor to be evaluated")

    def toggle(self, what: str, schedule: str) -> None:
        assert self.daemon.dagster("schedule", what, schedule).wait(PATIENCE) == 0

    def measured(self) -> dict[str, tuple[list[str], int]]:
        events = self.instance.fetch_materializations(dg.AssetKey(RAW), limit=100).records
        return {event.run_id: _measured(event.asset_materialization) for event in events if event.asset_materialization}

    def passed(self, moment: datetime) -> None:
        self._poll(lambda: now() > moment, f"the clock to pass {moment}")

    def _last_look(self) -> datetime:
        (sensor,) = self.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        ticks = self.instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id, limit=1)
        return datetime.fromtimestamp(ticks[0].timestamp, UTC)

    def _poll(self, look: Any, what: str) -> Any:
        try:
            return poll(look, what, PATIENCE)
        except AssertionError as late:
            raise AssertionError(f"{late}\n{self.daemon.log()[-5000:]}") from None


def now() -> datetime:
    return datetime.now(UTC)


def floor(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Everything that happens in this module, once."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(PROJECT / "dagster.yaml", home)
    with Sandbox(accounts=2, folder=home) as sandbox, dg.DagsterInstance.from_config(str(home)) as instance:
        created = now()
        sandbox.exports.write_text(sandbox.exports.read_text() + schedules_text(created))
        stage = Stage(instance, Daemon({**sandbox.environment, "M3TER_REQUESTS_PER_SECOND": "1"}, home))
        try:
            moments = play(stage)
        finally:
            stage.daemon.stop()
        objects = {f"{bucket}/{key}" for bucket in sandbox.s3.buckets for key in sandbox.s3.objects(bucket)}
        runs, measured = tuple(stage.runs()), stage.measured()
        usage = sandbox.usage.usage
        yield Story(created, *moments, runs=runs, objects=frozenset(objects), measured=measured, usage=usage)


def schedules_text(created: datetime) -> str:
    items = (
        SCHEDULE.format(code=code, what=what, destination=destination, unit=unit, created=created.isoformat())
        for code, what, destination, unit in SCHEDULES
    )
    return "schedules:" + "".join(items)


def play(stage: Stage) -> tuple[datetime, ...]:
    """On, one schedule toggled off, the daemon down over two due times, up, and the schedule toggled on again."""
    up = now()
    stage.daemon.start()
    stage.first_exports_made()
    stage.toggle("stop", "toggled")
    off = now()
    stage.exported("kept-on", due_after=off)
    stage.quiet()
    stage.daemon.stop()
    down = now()
    launch_two_by_hand(stage)
    stage.passed(floor(down) + 2 * MINUTE)
    up_again = now()
    stage.daemon.start()
    stage.exported("kept-on", due_after=down)
    stage.sensor_looked(after=up_again)
    on_again = now()
    stage.toggle("start", "toggled")
    stage.exported("toggled", due_after=on_again)
    stage.exported("kept-on", due_after=on_again)
    stage.quiet()
    return up, off, down, up_again, on_again


def launch_two_by_hand(stage: Stage) -> None:
    """While no daemon runs, so that both wait in the queue when it is back."""
    launches = [stage.daemon.dagster("job", "launch", "--job", "export_by_hand") for _ in range(2)]
    assert [launch.wait(PATIENCE) for launch in launches] == [0, 0]


def test_the_first_export_of_each_schedule_runs_once_at_the_start(story: Story) -> None:
    for code, *_ in SCHEDULES:
        (first,) = story.of(code, first=True)
        assert first.due == floor(story.created)
        assert first.created < story.up + 2 * MINUTE


def test_the_next_exports_run_on_time(story: Story) -> None:
    due = story.due("kept-on", story.up, story.down)
    assert due == due_times(due[0], due[-1])
    on_time = [run for run in story.of("kept-on") if run.due and run.due < story.down]
    assert all(run.due <= run.created < run.due + MINUTE / 2 for run in on_time if run.due)


def test_a_restart_launches_no_second_first_export(story: Story) -> None:
    assert not [run for run in story.runs if run.is_first and run.created > story.down]


def test_a_standstill_over_two_due_times_is_made_up_for_once(story: Story) -> None:
    assert len(due_times(story.down, story.up_again)) == 2
    (caught_up, *_) = [run for run in story.of("kept-on") if run.created > story.up_again and run.due]
    assert caught_up.due == floor(caught_up.created)
    assert story.due("kept-on", story.down, caught_up.due) == [caught_up.due]


def test_a_schedule_that_is_toggled_off_does_not_run(story: Story) -> None:
    assert len(story.due("kept-on", story.off, story.down)) >= 1
    assert story.due("toggled", story.off, story.on_again) == []


def test_when_toggled_on_it_runs_again_from_then_on(story: Story) -> None:
    later = [run.due for run in story.of("toggled") if run.created > story.on_again]
    assert later
    assert all(due and due > story.on_again for due in later)


def test_two_exports_of_one_schedule_never_overlap(story: Story) -> None:
    first, second = sorted(story.of("by-hand"), key=lambda run: run.started or story.created)
    assert first.created < story.up_again
    assert second.created < story.up_again
    assert first.ended
    assert second.started
    assert first.ended <= second.started


def test_every_export_is_delivered(story: Story) -> None:
    assert {run.status for run in story.runs} == {dg.DagsterRunStatus.SUCCESS}
    for run in story.runs:
        type = "measurements" if run.schedule == "toggled" else "product"
        names = {key.rsplit("/", 1)[1] for key in story.objects}
        assert {f"{run.id}_{type}.csv", f"{run.id}_manifest.json"} <= names, run


def test_every_export_of_measurements_has_the_window_of_its_due_time(story: Story) -> None:
    (first,), later = story.of("toggled", first=True), story.of("toggled")
    assert later
    for run in (first, *later):
        assert run.due
        window = [run.due.replace(hour=0, minute=0).isoformat(), run.due.isoformat()]
        truth = story.usage.measurements({"startDate": window[0], "endDate": window[1]})
        assert story.measured[run.id] == (window, len(list(truth)))


def due_times(first: datetime, last: datetime) -> list[datetime]:
    """The whole minutes from `first` to `last`."""
    start = first if first == floor(first) else floor(first) + MINUTE
    return [start + n * MINUTE for n in range((last - start) // MINUTE + 1)]


def _run(record: dg.RunRecord) -> Run:
    run = record.dagster_run
    due = run.tags.get(DUE_TAG)
    return Run(
        id=run.run_id,
        schedule=run.tags[SCHEDULE_TAG],
        due=datetime.fromisoformat(due) if due else None,
        created=record.create_timestamp.replace(tzinfo=UTC),
        started=_moment(record.start_time),
        ended=_moment(record.end_time),
        status=run.status,
        is_first="dagster/sensor_name" in run.tags,
    )


def _measured(materialization: dg.AssetMaterialization) -> tuple[Any, Any]:
    delivery = delivery_in(materialization)
    assert delivery
    assert delivery.reading.window
    return [moment.isoformat() for moment in delivery.reading.window], delivery.rows


def _moment(timestamp: float | None) -> datetime | None:
    return datetime.fromtimestamp(timestamp, UTC) if timestamp else None
