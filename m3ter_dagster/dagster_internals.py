"""Everything that this project uses of Dagster beyond its public API, each with the reason. No other file uses any."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import dagster as dg
import sqlalchemy
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.definitions.run_request import DagsterRunReaction, InstigatorType
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.events import EngineEventData
from dagster._core.execution.stats import StepEventStatus
from dagster._core.instance.ref import InstanceRef
from dagster._core.scheduler.instigation import ScheduleInstigatorData, SensorInstigatorData, TickStatus
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunTagsTable
from dagster._core.storage.runs.sql_run_storage import SqlRunStorage
from dagster._core.storage.runs.sqlite.sqlite_run_storage import SqliteRunStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from dagster._utils.error import SerializableErrorInfo
from sqlalchemy.exc import DBAPIError

AssetJob = UnresolvedAssetJobDefinition
"""What `dg.define_asset_job` returns; Dagster exports the function and not the class."""
Reaction = DagsterRunReaction
"""What a sensor on runs may return to fail its own tick; Dagster exports the sensors and not the class."""

RecordsFailed = DBAPIError
"""What Dagster lets through when its database cannot be read or written: it has no error of its own for that."""

# A terminal shows what a run prints. Dagster would also start processes that copy it, which answer Ctrl-C with traces.
_NO_COMPUTE_LOGS = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
        "config": {},
    }
}


_NOT_LAUNCHED = ("Failed to retry run", "Caught an unrecoverable error while dequeuing the run")
"""How Dagster's daemon logs that it could not launch a retry, or what was in the queue."""
_TEMPORARY_HOME = ".tmp_dagster_home_"
"""How the folder begins that `dagster dev` makes in the current one (`dagster._cli.utils`, which is slow to import)."""
OPENING = ".opening"
"""The file in DAGSTER_HOME that a process has locked while it opens the databases there."""
_OPEN_LOGS = 4
"""Each run has a file of its own, and a command may read hundreds."""
_SECONDS_FOR_A_LOCK = 30
"""How long a writer waits for another, as in Dagster from 1.13 on; before, it had no name for it."""


class EventLog(SqliteEventLogStorage):
    """Dagster's event log in SQLite, whose connections stay open.

    Dagster opens a file for each statement and compiles the statement again, at 2,000 statements in an export of
    nothing: a sixth of its CPU time.
    """

    def __init__(self, base_dir: str) -> None:
        self._engines: dict[str, sqlalchemy.Engine] = {}
        self._migrated: set[str] = set()
        super().__init__(base_dir)

    @contextmanager
    def _connect(self, shard: str) -> Generator[sqlalchemy.Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection

    # At each event Dagster looks whether its database has been migrated; no migration is ever taken back.

    def _has_asset_key_col_on_connection(self, conn: sqlalchemy.Connection, column_name: str) -> bool:
        return self._is_migrated(
            column_name, lambda: super(EventLog, self)._has_asset_key_col_on_connection(conn, column_name)
        )

    def has_table(self, table_name: str) -> bool:
        return self._is_migrated(table_name, lambda: super(EventLog, self).has_table(table_name))

    def has_secondary_index(self, name: str) -> bool:
        return self._is_migrated(name, lambda: super(EventLog, self).has_secondary_index(name))

    def _is_migrated(self, what: str, look: Callable[[], bool]) -> bool:
        if what not in self._migrated and look():
            self._migrated.add(what)
        return what in self._migrated

    def _engine(self, shard: str) -> sqlalchemy.Engine:
        if shard not in self._engines:
            if len(self._engines) == _OPEN_LOGS:
                self._engines.pop(next(iter(self._engines))).dispose()
            arguments = {"timeout": _SECONDS_FOR_A_LOCK}
            self._engines[shard] = sqlalchemy.create_engine(self.conn_string_for_shard(shard), connect_args=arguments)
        return self._engines[shard]

    def close(self, shard: str) -> None:
        """Let go of a file that is about to be removed."""
        with self._db_lock:
            self._initialized_dbs.discard(shard)
            if shard in self._engines:
                self._engines.pop(shard).dispose()

    def dispose(self) -> None:
        super().dispose()
        for engine in self._engines.values():
            engine.dispose()


class Runs(SqliteRunStorage):
    """Dagster's records of runs in SQLite, for which it opens its file 200 times in an export of nothing."""

    def __init__(self, conn_string: str) -> None:
        self._engine = sqlalchemy.create_engine(conn_string)
        self._is_migrated = False
        super().__init__(conn_string)

    @contextmanager
    def connect(self) -> Generator[sqlalchemy.Connection]:
        with self._engine.begin() as connection:
            yield connection

    def has_run_stats_index_cols(self) -> bool:
        """Looked at for each event, too."""
        self._is_migrated = self._is_migrated or super().has_run_stats_index_cols()
        return self._is_migrated

    def dispose(self) -> None:
        super().dispose()
        self._engine.dispose()


class Storage(DagsterSqliteStorage):
    """Dagster's usual storage, whose files stay open."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._run_storage = Runs(self._run_storage._conn_string)
        self._event_log_storage = EventLog(self._event_log_storage._base_dir)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Storage:
        return cls(**config_value, inst_data=inst_data)


def open_instance_for_a_terminal(home: Path, *, compute_logs: bool = False) -> dg.DagsterInstance:
    """The instance of `home`, without compute logs: `DagsterInstance.get` takes no overrides of dagster.yaml.

    Commands open it one after the other: two that make its databases at once would make them unusable for ever
    ("alembic_version has more than one head").
    """
    ref = InstanceRef.from_dir(str(home), overrides={} if compute_logs else _NO_COMPUTE_LOGS)
    if not ref.storage_data or ref.storage_data.class_name != DagsterSqliteStorage.__name__:
        return dg.DagsterInstance.from_ref(ref)
    ref = ref._replace(storage_data=ref.storage_data._replace(module_name=__name__, class_name=Storage.__name__))
    with (home / OPENING).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return dg.DagsterInstance.from_ref(ref)


def is_temporary(instance: dg.DagsterInstance) -> bool:
    """Whether the records of runs end with `dagster dev`, which without DAGSTER_HOME makes a folder of this name.

    Nothing public says so: the daemon that it starts is told of that folder as of any other.
    """
    runs = instance.run_storage
    return isinstance(runs, SqliteRunStorage) and f"/{_TEMPORARY_HOME}" in runs._conn_string


def reason_of(error: RecordsFailed) -> str:
    """The database's own words, without the statement and its values."""
    return str(error.orig)


def reconstructable_job(
    module: str, function: str, name: str, *, otherwise: Collection[dg.AssetKey] = ()
) -> ReconstructableJob:
    """A job of the definitions that `function` of `module` gives, for `dg.execute_job`.

    Where none has this name, and assets are named `otherwise`, it is Dagster's own job behind the Materialize button
    (`__ASSET_JOB`) with these. `dg.build_reconstructable_job` cannot take that.
    """
    repository = ReconstructableRepository.for_module(module, function)
    if not otherwise or repository.get_definition().has_job(name):
        return repository.get_reconstructable_job(name)
    implicit = repository.get_reconstructable_job(IMPLICIT_ASSET_JOB_NAME)
    return implicit.get_subset(asset_selection=frozenset(otherwise))


def switched_off_schedules(instance: dg.DagsterInstance) -> set[str]:
    """The names of the schedules that a person has switched off; no public call lists the state of a toggle."""
    states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    return {state.instigator_name for state in states if not state.is_running}


def switched_on_at(instance: dg.DagsterInstance) -> dict[str, datetime]:
    """When each schedule was switched on last, by name: by a person, or by its default when the daemon first saw it."""
    states = instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE)
    return {
        state.instigator_name: datetime.fromtimestamp(state.instigator_data.start_timestamp or 0, UTC)
        for state in states
        if state.is_running and isinstance(state.instigator_data, ScheduleInstigatorData)
    }


def is_tick_under_way(instance: dg.DagsterInstance, schedule: str, due: datetime) -> bool:
    """Whether the schedule's tick for this time has begun and not ended: Dagster will go on with it after a restart."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SCHEDULE):
        if state.instigator_name == schedule:
            ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
            if any(one.timestamp == due.timestamp() and one.status == TickStatus.STARTED for one in ticks):
                return True
    return False


def cursor_of_sensor(instance: dg.DagsterInstance, name: str) -> str | None:
    """The cursor of a sensor that this project may no longer have."""
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.instigator_name == name and isinstance(state.instigator_data, SensorInstigatorData):
            return state.instigator_data.cursor
    return None


def planned_steps(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The steps of a run. One that the daemon launches for a whole job names them only in its plan's snapshot."""
    steps = run.step_keys_to_execute
    if steps is None and run.execution_plan_snapshot_id:
        steps = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute
    return set(steps or ())


def steps_of_this_process(context: dg.AssetExecutionContext) -> set[str]:
    """The steps that run in this step's process: all of the run's steps, or only this one.

    Only the plan that a step executes is right under every executor, including those of other projects.
    """
    return set(context.get_step_execution_context().execution_plan.step_keys_to_execute)


def runs_by_tag(instance: dg.DagsterInstance, tag: str) -> dict[str, int]:
    """How many runs have each value of the tag. The public way reads them all."""
    values = dict(instance.get_run_tags([tag])).get(tag, set())
    return {value: instance.get_runs_count(dg.RunsFilter(tags={tag: value})) for value in values}


def events_of_run(
    instance: dg.DagsterInstance, run_id: str, types: Set[dg.DagsterEventType], cursor: str | None = None
) -> Iterator[tuple[dg.DagsterEvent, str]]:
    """The events of these types in the order of the log, each with the cursor behind its batch.

    The public `fetch_materializations` asks by asset and not by run, and knows no other events.
    """
    has_more = True
    while has_more:
        log = instance.get_records_for_run(run_id, cursor, set(types))
        cursor, has_more = log.cursor, log.has_more
        for record in log.records:
            if record.event_log_entry.dagster_event:
                yield record.event_log_entry.dagster_event, log.cursor


def run_ids(instance: dg.DagsterInstance) -> Sequence[str]:
    """The ids of all runs, newest first. The public `get_run_records` reads each run whole, which takes a second."""
    return instance.get_run_ids()


def materialized_partitions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Set[str]:
    """The partitions that were ever delivered; the public way needs the partitions definition and an asset graph."""
    return instance.get_materialized_partitions(asset)


def add_tags(instance: dg.DagsterInstance, run: dg.DagsterRun, tags: Mapping[str, str]) -> None:
    """Tags a run that has begun; the public ways are there before only."""
    instance.add_run_tags(run.run_id, tags)


def report_failed(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Ends a run whose process is dead: publicly only that process can report a failure.

    Said once more of a run that has failed, Dagster decides anew whether it is retried, and the alarms look again: they
    look at each failure once.
    """
    instance.report_run_failed(run, reason)


def report_succeeded(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Ends a run whose process died when only this event was missing; publicly only that process ends it."""
    event = dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, run.job_name, message=reason)
    instance.report_dagster_event(event, run.run_id)


def cancel_queued(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> None:
    """Takes a run out of the queue with a reason. Whoever launches runs looks at the status once more before."""
    instance.report_run_canceled(run, reason)


def location_of(run: dg.DagsterRun) -> str:
    """The name of the code location that launches a queued run; a run of a terminal has none."""
    return run.remote_job_origin.location_name if run.remote_job_origin else ""


def is_of_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    """Whether the run is launched by the code location of this sensor, which has none outside Dagster's daemon."""
    origin = context.code_location_origin
    return origin is None or origin.location_name == location_of(run)


def attempts_before(context: dg.OutputContext) -> int:
    """How often Dagster has tried the step before; publicly only the context of an asset knows."""
    return context.step_context.previous_attempt_count


def log_engine_event(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    text: str,
    *,
    step: str | None = None,
    metadata: Mapping[str, dg.MetadataValue[Any]] = MappingProxyType({}),
) -> None:
    """Logs a line in a run, of no step or with metadata; the log of a step's context takes neither."""
    instance.report_engine_event(text, run, EngineEventData(metadata), step_key=step)


def last_event(instance: dg.DagsterInstance, run_id: str) -> datetime:
    """When the run logged something for the last time. The record of a run tells only of changes of its status."""
    newest = _newest_entry(instance, run_id)
    return datetime.fromtimestamp(newest.timestamp if newest else 0, UTC)


def has_just_started(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the run has logged nothing since it started: every executor logs something before the first step."""
    newest = _newest_entry(instance, run_id)
    return bool(newest) and newest.dagster_event_type == dg.DagsterEventType.RUN_START


def _newest_entry(instance: dg.DagsterInstance, run_id: str) -> dg.EventLogEntry | None:
    found = instance.get_records_for_run(run_id, limit=1, ascending=False).records
    return found[0].event_log_entry if found else None


def steps_under_way(instance: dg.DagsterInstance, run_id: str) -> set[str]:
    """The steps that have started and not ended, as Dagster's own pages show them."""
    return _steps(instance, run_id, StepEventStatus.IN_PROGRESS)


def have_all_succeeded(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether nothing is left of the run but its own success."""
    planned = planned_steps(instance, run)
    return bool(planned) and planned <= _steps(instance, run.run_id, StepEventStatus.SUCCESS)


def _steps(instance: dg.DagsterInstance, run_id: str, status: StepEventStatus) -> set[str]:
    return {one.step_key for one in instance.get_run_step_stats(run_id) if one.status == status}


def was_not_launched(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether Dagster's daemon could not launch the run, or a retry of it: it tries that once, and only logs it."""
    events = events_of_run(instance, run_id, {dg.DagsterEventType.ENGINE_EVENT})
    return any((event.message or "").startswith(_NOT_LAUNCHED) for event, _ in events)


def is_in_one_process(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether one process executes all steps of the run. Its executor is known by what it logs before the first."""
    events = events_of_run(instance, run_id, {dg.DagsterEventType.ENGINE_EVENT})
    return any((event.message or "").startswith("Executing steps in process ") for event, _ in events)


def log_files(instance: dg.DagsterInstance, run_id: str) -> list[Path]:
    """The files on this machine that hold only logs of this run: with a database server there may be none."""
    events = instance.event_log_storage
    in_sqlite = events.path_for_shard(run_id) if isinstance(events, SqliteEventLogStorage) else None
    database = [Path(f"{in_sqlite}{suffix}") for suffix in ("", "-wal", "-shm")] if in_sqlite else []
    compute_logs = Path(instance.storage_directory(), run_id).rglob("*")
    return [file for file in (*database, *compute_logs) if file.is_file()]


def delete_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """A run with all that Dagster keeps of it.

    The public `delete_run` leaves the compute logs and the results of asset checks; in SQLite also the run's tags and,
    empty but as large as ever, the file of its log.
    """
    instance.delete_run(run_id)
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    events, runs = instance.event_log_storage, instance.run_storage
    if isinstance(events, SqlEventLogStorage):
        with events.index_connection() as connection:
            of_run = AssetCheckExecutionsTable.c.run_id == run_id
            connection.execute(sqlalchemy.delete(AssetCheckExecutionsTable).where(of_run))
    if isinstance(runs, SqlRunStorage):
        with runs.connect() as connection:
            connection.execute(sqlalchemy.delete(RunTagsTable).where(RunTagsTable.c.run_id == run_id))
    if isinstance(events, EventLog):
        events.close(run_id)
    for file in log_files(instance, run_id):
        file.unlink(missing_ok=True)


def has_job(context: dg.RunFailureSensorContext | dg.SensorEvaluationContext, name: str) -> bool:
    """Whether this code location has the job, without which Dagster retries no run of it, and only logs that.

    A sensor's context publicly says nothing of its repository, and one that was built for a call may have none.
    """
    return context.repository_def is None or context.repository_def.has_job(name)


def failed_tick(run: dg.DagsterRun, reason: str) -> Reaction:
    """A reaction that fails the sensor's tick with these words and does not ask for the run again."""
    return DagsterRunReaction(run, SerializableErrorInfo(reason, stack=[], cls_name=None), run.status)


@dataclass(frozen=True)
class Failure:
    """What a failure event says."""

    description: str
    """The description of a `dg.Failure`; empty for other errors."""
    metadata: Mapping[str, Any]
    error: str
    """The class of the innermost cause, without its module; empty if there was none."""
    message: str
    """The innermost cause: its class with the module, a colon, and its text."""


def failure_of(event: dg.DagsterEvent) -> Failure:
    """What a failure event says. Dagster's API promises nothing about what an event holds beyond its type."""
    data: Any = event.event_specific_data
    user, error = getattr(data, "user_failure_data", None), getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return Failure(
        description=(user.description or "") if user else "",
        metadata=user.metadata if user else {},
        error=(error.cls_name or "") if error else "",
        message=error.message if error else "",
    )
