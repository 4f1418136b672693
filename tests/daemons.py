"""Export Schedules under a real dagster-daemon: what happened is read from the instance's run records."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._cli.job import _create_run
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_representation.external import RemoteRepository
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from processes import PROJECT, end, poll, start

from m3ter_dagster.config.names import DUE_EXPORTS
from m3ter_dagster.config.usage import RAW
from m3ter_dagster.history.log import DUE_TAG, SCHEDULE_TAG
from m3ter_dagster.history.record import delivery_in
from m3ter_sandbox import Sandbox
from m3ter_sandbox.usage import SampleUsage
from simulation.daemon import toggle

CODE = "tests/every_minute.py"
MINUTE = timedelta(minutes=1)
PATIENCE = 400
EARLY = 20
"""The second of a minute until which schedules are created: a first export that is late gives way to the next one."""
NEARLY_DUE = 50
"""The second of a minute after which a daemon is not stopped: it takes a while, and the next run would be cut off."""
MEASURED = """sourceType: USAGE
    timePeriod: TODAY"""
"""From midnight until the export is due."""


@dataclass(frozen=True)
class Schedule:
    """One of exports.yaml, created when the stage is set."""

    code: str
    what: str
    destination: str = "warehouse"
    unit: str = "MINUTE"

    def text(self, created: datetime) -> str:
        return f"""
  - code: {self.code}
    {self.what}
    destinations: [{self.destination}]
    scheduleType: {self.unit}
    period: 1
    dtCreated: {created.isoformat()}
"""


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
    why: str = ""
    """It did not succeed: its failures, as Dagster's log has them."""


@dataclass(frozen=True)
class Recording:
    """The runs that there were, and what they delivered."""

    created: datetime
    """When the schedules were."""
    runs: tuple[Run, ...]
    objects: frozenset[str]
    measured: Mapping[str, tuple[list[str], int]]
    """The windows and rows of the exports of measurements."""
    usage: SampleUsage
    """The measurements that there are."""
    at: Mapping[str, datetime]
    """What was done when, by the names that `Stage.mark` was given."""

    def of(self, schedule: str, *, first: bool = False) -> list[Run]:
        return [run for run in self.runs if run.schedule == schedule and run.is_first is first]

    def due(self, schedule: str, after: datetime, until: datetime) -> list[datetime]:
        """When the schedule's later exports in this stretch of time were due."""
        return [run.due for run in self.of(schedule) if run.due and after < run.due <= until]


class Stage:
    """An instance, its daemon, what a person does beside it, and the looks at all."""

    def __init__(
        self,
        created: datetime,
        environment: Mapping[str, str],
        sandbox: Sandbox,
        instance: dg.DagsterInstance,
        workspace: WorkspaceProcessContext,
    ) -> None:
        self.created = created
        self._environment = environment
        self._sandbox = sandbox
        self._instance = instance
        self._workspace = workspace
        self._log = Path(instance.root_directory, "daemon.log")
        self._daemon: subprocess.Popen[bytes] | None = None
        self._marked: dict[str, datetime] = {}

    def mark(self, what: str) -> datetime:
        self._marked[what] = now()
        return self._marked[what]

    def start(self) -> None:
        """The daemon and, below it, its code location and its runs."""
        with self._log.open("ab") as log:
            daemon = (sys.executable, "-m", "dagster._daemon", "run", "--python-file", CODE)
            self._daemon = start(*daemon, environment=self._environment, output=log)

    def stop(self) -> None:
        daemon, self._daemon = self._daemon, None
        if daemon:
            end(daemon)

    def launch(self, job: str) -> None:
        """What `dagster job launch` does."""
        context = self._workspace.create_request_context()
        (location,) = context.code_locations
        repository = self._repository
        run = _create_run(self._instance, location, repository, repository.get_full_job(job), {}, None, None, None)
        self._instance.submit_run(run.run_id, context)

    def switch(self, schedule: str, *, on: bool) -> None:
        """What `dagster schedule start` and `stop` do."""
        toggle(self._instance, self._repository.get_schedule(schedule), on=on)

    @property
    def _repository(self) -> RemoteRepository:
        (location,) = self._workspace.create_request_context().code_locations
        (repository,) = location.get_repositories().values()
        return repository

    def runs(self) -> list[Run]:
        """Oldest first."""
        return [_run(record) for record in self._instance.get_run_records(ascending=True)]

    def _why(self, run: Run) -> str:
        if run.status == dg.DagsterRunStatus.SUCCESS:
            return ""
        events = (entry.dagster_event for entry in self._instance.all_logs(run.id))
        return "\n".join(str(event.event_specific_data) for event in events if event and event.is_failure)

    def exported(self, schedule: str, due_after: datetime) -> None:
        """An export of the schedule itself that was due after this moment has ended."""
        self._poll(
            lambda: any(
                run.ended and run.due and run.due > due_after
                for run in self.runs()
                if run.schedule == schedule and not run.is_first
            ),
            f"an export of {schedule} that is due after {due_after}",
        )

    def first_exports_made(self, schedules: Sequence[Schedule]) -> None:
        wanted = {schedule.code for schedule in schedules}
        self._poll(
            lambda: {run.schedule for run in self.runs() if run.is_first and run.ended} >= wanted, "first exports"
        )

    def quiet(self, schedule: str) -> None:
        """All runs have ended, the schedule's of this minute too, and none is due soon: a stop meets no run."""
        self._poll(lambda: now().second < NEARLY_DUE and self._nothing_runs(schedule), "all runs to end")

    def _nothing_runs(self, schedule: str) -> bool:
        runs = self.runs()
        due = {run.due for run in runs if run.schedule == schedule and not run.is_first}
        return floor(now()) in due and all(run.ended for run in runs)

    def sensor_looked(self, after: datetime) -> None:
        """The sensor of due exports was evaluated since."""
        self._poll(lambda: self._last_look() > after, "the sensor to be evaluated")

    def passed(self, moment: datetime) -> None:
        self._poll(lambda: now() > moment, f"the clock to pass {moment}")

    def recording(self) -> Recording:
        """Of the runs until now, all of which have ended; the daemon is stopped, whatever it has begun meanwhile."""
        end = now()
        self._poll(lambda: all(run.ended for run in self.runs() if run.created < end), "all runs to end")
        self.stop()
        s3 = self._sandbox.s3
        return Recording(
            created=self.created,
            runs=tuple(replace(run, why=self._why(run)) for run in self.runs() if run.created < end),
            objects=frozenset(f"{bucket}/{key}" for bucket in s3.buckets for key in s3.objects(bucket)),
            measured=self._measured(),
            usage=self._sandbox.usage.usage,
            at=self._marked,
        )

    def _measured(self) -> dict[str, tuple[list[str], int]]:
        events = self._instance.fetch_materializations(dg.AssetKey(RAW), limit=100).records
        return {event.run_id: _measured(event.asset_materialization) for event in events if event.asset_materialization}

    def _last_look(self) -> datetime:
        sensors = self._instance.all_instigator_state(instigator_type=InstigatorType.SENSOR)
        (sensor,) = [one for one in sensors if one.instigator_name == DUE_EXPORTS]
        ticks = self._instance.get_ticks(sensor.instigator_origin_id, sensor.selector_id, limit=1)
        return datetime.fromtimestamp(ticks[0].timestamp, UTC)

    def _poll(self, look: Any, what: str) -> Any:
        try:
            return poll(look, what, PATIENCE)
        except AssertionError as late:
            log = self._log.read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"{late}\n{log[-5000:]}") from None


def story_of(schedules: Sequence[Schedule], play: Callable[[Stage], None]) -> Any:
    """A fixture: everything that happens in a module, once."""

    @pytest.fixture(scope="module")
    def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recording]:
        with _stage(tmp_path_factory.mktemp("home"), schedules) as stage:
            play(stage)
            yield stage.recording()

    return story


@contextmanager
def _stage(home: Path, schedules: Sequence[Schedule]) -> Iterator[Stage]:
    """A sandbox whose exports.yaml has these schedules, and an instance whose daemon is not running yet.

    What a person does is done here with one code server; each command of Dagster's would start one of its own.
    """
    shutil.copy(PROJECT / "dagster.yaml", home)
    poll(lambda: now().second < EARLY, "the next minute", PATIENCE)
    created = now()
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(accounts=2, folder=home))
        with sandbox.exports.open("a") as exports:
            exports.write("schedules:" + "".join(schedule.text(created) for schedule in schedules))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home)))
        environment = {**sandbox.environment, "M3TER_REQUESTS_PER_SECOND": "1", "DAGSTER_HOME": str(home)}
        monkeypatch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        code = PythonFileTarget(CODE, attribute=None, working_directory=str(PROJECT), location_name=None)
        workspace = stack.enter_context(WorkspaceProcessContext(instance, code))
        stage = Stage(created, environment, sandbox, instance, workspace)
        stack.callback(stage.stop)
        yield stage


def assert_every_export_is_delivered(recording: Recording, schedules: Sequence[Schedule]) -> None:
    measured = {schedule.code for schedule in schedules if schedule.what == MEASURED}
    names = {key.rsplit("/", 1)[1] for key in recording.objects}
    others = [run for run in recording.runs if run.status != dg.DagsterRunStatus.SUCCESS]
    assert not others, others
    for run in recording.runs:
        type = "measurements" if run.schedule in measured else "product"
        assert {f"{run.id}_{type}.csv", f"{run.id}_manifest.json"} <= names, run


def now() -> datetime:
    return datetime.now(UTC)


def floor(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


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
