"""What the product uses of Dagster beyond its public API, against Dagster itself: a new version fails here first."""

import ast
import inspect
import json
import logging
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._annotations import is_public
from dagster._cli.utils import get_possibly_temporary_instance_for_cli
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._record import copy
from toggles import state_of, switch
from unreachable import LOCATION, unreachable_workspace

import m3ter_dagster


@contextmanager
def dagster_still(promise: str) -> Generator[None]:
    """Whatever goes wrong inside is said to be Dagster's change."""
    try:
        yield
    except Exception as error:
        pytest.fail(
            f"Dagster changed: it no longer {promise}; see dagster_internals.py ({type(error).__name__}: {error})"
        )


with dagster_still("has every module, class and method that is imported there"):
    from m3ter_dagster import dagster_internals as internals

NAMES = ("account", "bill")
PRODUCT = Path(m3ter_dagster.__file__).parent
INTERNALS = PRODUCT / "dagster_internals.py"
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", end_date="2024-01-04")


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """On disk, where the processes of steps find it."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        yield instance


def asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def steps(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        if name in context.run.tags.get("fails", ""):
            raise dg.Failure("not today", metadata={"reason": "rain"})
        return dg.MaterializeResult(metadata={"steps": sorted(internals.steps_of_this_process(context))})

    return steps


@dg.definitions
def in_one_process() -> dg.Definitions:
    return dg.Definitions(assets=[asset(name) for name in NAMES], executor=dg.in_process_executor)


@dg.definitions
def in_many_processes() -> dg.Definitions:
    return dg.Definitions(assets=[asset(name) for name in NAMES], executor=dg.multiprocess_executor)


def run(instance: dg.DagsterInstance, definitions: str = "in_one_process", **tags: str) -> dg.DagsterRun:
    """Of Dagster's own job behind the button Materialize."""
    job = internals.reconstructable_job(__name__, definitions, "__ASSET_JOB")
    with dg.execute_job(job, instance, tags=tags) as result:
        (record,) = instance.get_run_records(dg.RunsFilter(run_ids=[result.run_id]))
    return record.dagster_run


@dagster_still("opens an instance with overrides of its dagster.yaml, or has no compute log manager that does nothing")
def test_the_instance_of_a_terminal_has_no_compute_logs_and_else_what_its_dagster_yaml_says(tmp_path: Path) -> None:
    settings = {"telemetry": {"enabled": False}, "run_retries": {"enabled": True, "max_retries": 3}}
    (tmp_path / "dagster.yaml").write_text(json.dumps(settings), encoding="utf-8")
    with internals.open_instance_for_a_terminal(tmp_path) as instance:
        assert Path(instance.root_directory) == tmp_path
        assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 3)
        run(instance)
    assert (tmp_path / "history").is_dir()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".err", ".out", ".complete")]


@dagster_still("keeps runs that end with `dagster dev` in SQLite, in a folder of that name")
def test_the_home_that_dagster_dev_makes_is_temporary_unless_its_runs_are_kept_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    assert not internals.is_temporary(instance)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with get_possibly_temporary_instance_for_cli() as made, dg.DagsterInstance.from_ref(made.get_ref()) as of_daemon:
        assert internals.is_temporary(made)
        assert internals.is_temporary(of_daemon)
    (tmp_path / "dagster.yaml").write_text(json.dumps({"storage": {"sqlite": {"base_dir": str(tmp_path / "kept")}}}))
    with get_possibly_temporary_instance_for_cli() as kept_elsewhere:
        assert not internals.is_temporary(kept_elsewhere)


@dagster_still("counts runs by their tags")
def test_runs_are_counted_by_a_tag(instance: dg.DagsterInstance) -> None:
    for tags in ({"colour": "blue", "shape": "round"}, {}, {"colour": "green"}, {"colour": "green"}):
        run(instance, **tags)
    assert internals.runs_by_tag(instance, "colour") == {"blue": 1, "green": 2}
    assert internals.runs_by_tag(instance, "taste") == {}


@dagster_still("lets its records in SQLite be opened by classes of ours")
def test_what_a_terminal_logs_is_in_dagster_s_own_files_which_it_keeps_open_a_few_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    of_dagster = sqlite_event_log.create_engine
    monkeypatch.setattr(
        sqlite_event_log, "create_engine", lambda url, **how: opened.append(url) or of_dagster(url, **how)
    )
    with internals.open_instance_for_a_terminal(tmp_path) as instance:
        assert isinstance(instance.event_log_storage, internals.EventLog)
        assert isinstance(instance.run_storage, internals.Runs)
        runs = [run(instance).run_id]
        opened.clear()
        runs += [run(instance).run_id for _ in range(4)]
        assert opened == []
        assert [len(instance.all_logs(one, of_type=dg.DagsterEventType.STEP_SUCCESS)) for one in runs] == [2] * 5
        assert len(open_databases()) == 4 + 1
    assert open_databases() == []
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert not isinstance(instance.event_log_storage, internals.EventLog)
        assert not isinstance(instance.run_storage, internals.Runs)
        assert {one.run_id for one in instance.get_runs()} == set(runs)
        assert [len(instance.all_logs(one, of_type=dg.DagsterEventType.STEP_SUCCESS)) for one in runs] == [2] * 5
        assert instance.get_latest_materialization_event(dg.AssetKey("bill"))


def open_databases() -> list[str]:
    return [path for one in Path("/proc/self/fd").iterdir() if (path := str(one.resolve())).endswith(".db")]


@dagster_still("gives a job that is run in this process by the name `__ASSET_JOB`")
def test_dagster_s_own_job_is_found_by_name(instance: dg.DagsterInstance) -> None:
    found = run(instance)
    assert found.job_name == "__ASSET_JOB"
    assert found.status == dg.DagsterRunStatus.SUCCESS


@dagster_still("returns an UnresolvedAssetJobDefinition from define_asset_job")
def test_the_class_of_an_asset_job_is_known() -> None:
    assert isinstance(dg.define_asset_job("export"), internals.AssetJob)


@dagster_still("lists the state of the toggles of schedules")
def test_the_schedules_that_a_person_switched_off_are_known(instance: dg.DagsterInstance) -> None:
    assert internals.switched_off_schedules(instance) == set()
    switch(instance, InstigatorStatus.STOPPED, "finance")
    switch(instance, InstigatorStatus.RUNNING, "nightly")
    switch(instance, InstigatorStatus.STOPPED, "weekly")
    assert internals.switched_off_schedules(instance) == {"finance", "weekly"}
    switch(instance, InstigatorStatus.RUNNING, "finance")
    assert internals.switched_off_schedules(instance) == {"weekly"}


@dagster_still("notes when a schedule was switched on")
def test_since_when_schedules_are_on_is_known(instance: dg.DagsterInstance) -> None:
    assert internals.switched_on_at(instance) == {}
    moment = datetime(2024, 6, 1, 10, tzinfo=UTC)
    switch(instance, InstigatorStatus.RUNNING, "nightly", at=moment)
    switch(instance, InstigatorStatus.STOPPED, "weekly")
    assert internals.switched_on_at(instance) == {"nightly": moment}


@dagster_still("keeps the ticks of schedules and the cursors of sensors that are gone")
def test_a_tick_under_way_and_the_cursor_of_a_sensor_are_known(instance: dg.DagsterInstance) -> None:
    moment = datetime(2024, 6, 1, 10, tzinfo=UTC)
    switch(instance, InstigatorStatus.RUNNING, "nightly", at=moment)
    (state,) = instance.all_instigator_state()
    about = (state.instigator_origin_id, "nightly", InstigatorType.SCHEDULE, TickStatus.STARTED, moment.timestamp())
    tick = instance.create_tick(TickData(*about, selector_id=state.selector_id))
    found = [internals.is_tick_under_way(instance, "nightly", one) for one in (moment, moment + timedelta(hours=1))]
    assert found == [True, False]
    instance.update_tick(tick.with_status(TickStatus.SKIPPED))
    assert not internals.is_tick_under_way(instance, "nightly", moment)
    data = SensorInstigatorData(cursor="7")
    instance.add_instigator_state(state_of(InstigatorStatus.STOPPED, "gone", InstigatorType.SENSOR, data))
    assert internals.cursor_of_sensor(instance, "gone") == "7"
    assert internals.cursor_of_sensor(instance, "unknown") is None


@dagster_still("keeps the steps of a run in its record, or else in the snapshot of its plan")
def test_the_steps_of_a_run_are_known_even_if_it_names_none(instance: dg.DagsterInstance) -> None:
    named = run(instance)
    assert internals.planned_steps(instance, named) == set(NAMES)
    unnamed = copy(named, step_keys_to_execute=None)
    assert internals.planned_steps(instance, unnamed) == set(NAMES)
    assert internals.planned_steps(instance, copy(unnamed, execution_plan_snapshot_id=None)) == set()


def steps_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, Any]:
    """What each asset of the run said of its own process."""
    events = internals.events_of_run(instance, run.run_id, {dg.DagsterEventType.ASSET_MATERIALIZATION})
    found = [event.step_materialization_data.materialization for event, _ in events]
    return {one.asset_key.to_user_string(): one.metadata["steps"].value for one in found}


@dagster_still("gives a step the plan of its whole process")
def test_in_one_process_the_steps_of_the_process_are_those_of_the_run(instance: dg.DagsterInstance) -> None:
    assert steps_of(instance, run(instance)) == {name: list(NAMES) for name in NAMES}


@pytest.mark.slow
@dagster_still("gives a step with a process of its own a plan of that step alone")
def test_with_a_process_per_step_each_step_is_alone(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)  # Dagster leaves out what is first for the processes, else this folder
    done = run(instance, "in_many_processes")
    assert steps_of(instance, done) == {name: [name] for name in NAMES}
    assert not internals.is_in_one_process(instance, done.run_id)


@dagster_still("gives the events of a run by type, each with a cursor behind it")
def test_the_events_of_a_run_come_by_type_in_order_and_go_on_behind_a_cursor(instance: dg.DagsterInstance) -> None:
    kinds = {dg.DagsterEventType.STEP_START, dg.DagsterEventType.ASSET_MATERIALIZATION}
    other, mine = run(instance), run(instance)
    found = list(internals.events_of_run(instance, mine.run_id, kinds))
    shown = [(event.event_type, event.step_key) for event, _ in found]
    assert sorted(shown, key=str) == sorted([(kind, name) for kind in kinds for name in NAMES], key=str)
    for name in NAMES:
        assert shown.index((dg.DagsterEventType.STEP_START, name)) < shown.index(
            (dg.DagsterEventType.ASSET_MATERIALIZATION, name)
        )
    instance.report_engine_event("something new", mine)
    instance.report_run_canceled(mine)
    cursor = found[-1][1]
    later = internals.events_of_run(instance, mine.run_id, {*kinds, dg.DagsterEventType.RUN_CANCELED}, cursor)
    assert [event.event_type for event, _ in later] == [dg.DagsterEventType.RUN_CANCELED]
    assert list(internals.events_of_run(instance, other.run_id, {dg.DagsterEventType.RUN_CANCELED})) == []


@dagster_still("lists the partitions that were ever materialised by the asset alone")
def test_the_ids_of_all_runs_are_known_the_newest_first(instance: dg.DagsterInstance) -> None:
    first, second = (dg.materialize([], instance=instance).run_id for _ in range(2))
    assert list(internals.run_ids(instance)) == [second, first]


def test_the_partitions_that_were_delivered_are_known(instance: dg.DagsterInstance) -> None:
    @dg.asset(partitions_def=DAYS)
    def by_day() -> None: ...

    assert internals.materialized_partitions(instance, by_day.key) == set()
    for day in ("2024-01-03", "2024-01-01"):
        dg.materialize([by_day], instance=instance, partition_key=day)
    assert internals.materialized_partitions(instance, by_day.key) == {"2024-01-01", "2024-01-03"}


@dagster_still("ends a run from outside its process")
def test_a_run_whose_process_died_is_ended_with_a_reason(instance: dg.DagsterInstance) -> None:
    dead = instance.add_run(dg.DagsterRun(job_name="export", status=dg.DagsterRunStatus.STARTED))
    internals.report_failed(instance, dead, "its process had died")
    found = instance.get_run_by_id(dead.run_id)
    assert found
    assert found.status == dg.DagsterRunStatus.FAILURE
    ((event, _),) = internals.events_of_run(instance, dead.run_id, {dg.DagsterEventType.RUN_FAILURE})
    assert event.message == "its process had died"


@dagster_still("tells a sensor its code location, and keeps that of a run in the queue")
def test_a_queued_run_is_known_to_be_of_the_sensor_s_location(instance: dg.DagsterInstance) -> None:
    here, elsewhere = (
        ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="m"), location_name=name)
        for name in ("here", "elsewhere")
    )
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(here, "__repository__"), "export")
    queued = dg.DagsterRun(job_name="export", status=dg.DagsterRunStatus.QUEUED, remote_job_origin=origin)
    assert internals.location_of(queued) == "here"
    for location, is_mine in ((here, True), (elsewhere, False), (None, True)):
        context = dg.SensorEvaluationContext(
            instance_ref=None,
            last_tick_completion_time=None,
            last_run_key=None,
            cursor=None,
            repository_name=None,
            instance=instance,
            code_location_origin=location,
        )
        assert internals.is_of_location(context, queued) is is_mine


@dagster_still("lets a run have tags from inside, and decides about its retry by them when it fails")
@pytest.mark.parametrize(
    ("tags", "is_retried"),
    [
        ({}, "false"),
        ({"dagster/max_retries": "1"}, "true"),
        ({"dagster/max_retries": "1", "dagster/retry_on_asset_or_op_failure": "false"}, "false"),
    ],
)
def test_a_run_says_by_tags_whether_it_is_retried(tmp_path: Path, tags: dict[str, str], is_retried: str) -> None:
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"run_retries": {"enabled": True}}) as instance:

        @dg.asset
        def failing(context: dg.AssetExecutionContext) -> None:
            internals.add_tags(context.instance, context.run, tags)
            raise ValueError

        failed = dg.materialize([failing], instance=instance, raise_on_error=False)
        (found,) = instance.get_runs(dg.RunsFilter(run_ids=[failed.run_id]))
    assert found.tags["dagster/will_retry"] == is_retried
    assert found.tags.items() >= tags.items()


@dagster_still("tells a sensor on runs its repository, whose jobs are those that it can retry")
def test_a_sensor_on_failures_knows_which_jobs_there_are(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def failing() -> None:
        raise ValueError

    found: dict[str, bool] = {}

    @dg.run_failure_sensor(name="failed")
    def sensor(context: dg.RunFailureSensorContext) -> None:
        found.update({name: internals.has_job(context, name) for name in ("export", "renamed", "__ASSET_JOB")})

    definitions = dg.Definitions(assets=[failing], jobs=[dg.define_asset_job("export")], sensors=[sensor])
    repository, cursor = definitions.get_repository_def(), None
    for _ in range(2):
        with dg.build_sensor_context(instance, cursor, repository_def=repository) as context:
            cursor = sensor.evaluate_tick(context).cursor
        dg.materialize([failing], instance=instance, raise_on_error=False)
    assert found == {"export": True, "renamed": False, "__ASSET_JOB": True}


@dagster_still("logs that it could not launch a run or its retry, and decides anew at each failure event")
def test_what_the_daemon_could_not_launch_is_known_and_can_be_asked_for_again(tmp_path: Path) -> None:
    queue = {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}
    settings = {"run_retries": {"enabled": True}, "run_coordinator": queue}
    with (
        dg.instance_for_test(temp_dir=str(tmp_path), overrides=settings) as instance,
        unreachable_workspace(instance) as workspace,
    ):
        location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="m"), LOCATION)
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), "export")
        queued, failed = (
            instance.add_run(
                dg.DagsterRun(
                    job_name="export", status=status, remote_job_origin=origin, tags={"dagster/max_retries": "1"}
                )
            )
            for status in (dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTED)
        )
        instance.report_run_failed(failed)
        assert not internals.was_not_launched(instance, failed.run_id)
        exhaust(QueuedRunCoordinatorDaemon(interval_seconds=5).run_iteration(workspace))
        records = instance.get_run_records(dg.RunsFilter(run_ids=[failed.run_id]))
        exhaust(consume_new_runs_for_automatic_reexecution(workspace, records, logging.getLogger(__name__)))
        assert internals.was_not_launched(instance, queued.run_id)
        assert internals.was_not_launched(instance, failed.run_id)
        given_up = instance.get_run_by_id(failed.run_id)
        internals.report_failed(instance, failed, "is asked for again")
        asked_for = instance.get_run_by_id(failed.run_id)
        assert given_up
        assert asked_for
        assert [run.tags["dagster/will_retry"] for run in (given_up, asked_for)] == ["false", "true"]


def exhaust(iteration: Iterator[Any]) -> None:
    deque(iteration, maxlen=0)


@dagster_still("tells an IO manager how often its step was tried before")
def test_an_io_manager_knows_how_often_it_was_tried(instance: dg.DagsterInstance) -> None:
    attempts: list[int] = []

    class Refusing(dg.IOManager):
        def handle_output(self, context: dg.OutputContext, obj: object) -> None:  # noqa: ARG002
            attempts.append(internals.attempts_before(context))
            raise dg.RetryRequested(max_retries=2)

        def load_input(self, context: dg.InputContext) -> None: ...

    @dg.asset(io_manager_key="refusing")
    def refused() -> int:
        return 1

    dg.materialize([refused], instance=instance, resources={"refusing": Refusing()}, raise_on_error=False)
    assert attempts == [0, 1, 2]


@dagster_still("logs a line in a run from outside its steps, and gives the last event of a run")
def test_what_a_run_logged_last_is_known_though_it_is_no_event_of_a_step(instance: dg.DagsterInstance) -> None:
    run_id = run(instance).run_id
    found = instance.get_run_by_id(run_id)
    assert found
    before = internals.last_event(instance, run_id)
    internals.log_engine_event(instance, found, "at work")
    assert before < internals.last_event(instance, run_id) <= datetime.now(UTC)
    assert instance.all_logs(run_id)[-1].message == "at work"
    silent = instance.add_run(dg.DagsterRun(job_name="export"))
    assert internals.last_event(instance, silent.run_id) == datetime.fromtimestamp(0, UTC)


@dagster_still("keeps what each step of a run is about")
def test_tags_are_added_to_a_run_that_has_begun(instance: dg.DagsterInstance) -> None:
    run = dg.materialize([asset("account")], instance=instance, tags={"old": "kept", "changed": "old"}).dagster_run
    with dagster_still("adds tags to a run"):
        internals.add_tags(instance, run, {"changed": "new", "added": "too"})
    found = instance.get_run_by_id(run.run_id)
    assert found
    assert {"old": "kept", "changed": "new", "added": "too"}.items() <= found.tags.items()


@dagster_still("says in the log of a run that one process executes its steps")
def test_a_run_whose_steps_one_process_executes_is_known(instance: dg.DagsterInstance) -> None:
    assert internals.is_in_one_process(instance, run(instance).run_id)


def test_a_run_whose_steps_have_all_succeeded_is_known(instance: dg.DagsterInstance) -> None:
    assert internals.have_all_succeeded(instance, run(instance))
    assert not internals.have_all_succeeded(instance, run(instance, fails="bill"))
    assert not internals.have_all_succeeded(instance, dg.DagsterRun(job_name="export"))


@dagster_still("lets a run be ended as one that succeeded")
def test_a_run_that_did_all_is_ended_as_succeeded(instance: dg.DagsterInstance) -> None:
    whole = instance.add_run(dg.DagsterRun(job_name="export", status=dg.DagsterRunStatus.STARTED))
    internals.report_succeeded(instance, whole, "nothing is left to do")
    found = instance.get_run_by_id(whole.run_id)
    assert found
    assert found.status == dg.DagsterRunStatus.SUCCESS
    ((event, _),) = internals.events_of_run(instance, whole.run_id, {dg.DagsterEventType.RUN_SUCCESS})
    assert event.message == "nothing is left to do"


def test_the_steps_that_are_under_way_are_those_that_began_and_did_not_end(instance: dg.DagsterInstance) -> None:
    assert internals.steps_under_way(instance, run(instance, fails="bill").run_id) == set()
    dead = instance.add_run(dg.DagsterRun(job_name="export"))
    for name in NAMES:
        event = dg.DagsterEvent(dg.DagsterEventType.STEP_START.value, "export", step_key=name)
        instance.report_dagster_event(event, dead.run_id)
    assert internals.steps_under_way(instance, dead.run_id) == set(NAMES)


@dagster_still("lets a sensor on runs fail its own tick by what it returns")
def test_a_sensor_on_runs_fails_its_tick_with_the_given_words(instance: dg.DagsterInstance) -> None:
    @dg.run_status_sensor(run_status=dg.DagsterRunStatus.FAILURE, monitor_all_code_locations=True)
    def on_failure(context: dg.RunStatusSensorContext) -> Any:
        return internals.failed_tick(context.dagster_run, "nobody answers")

    def evaluate(cursor: str | None) -> Any:
        with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
            return on_failure.evaluate_tick(context)

    begun = evaluate(None)
    failed = instance.add_run(dg.DagsterRun(job_name="export", status=dg.DagsterRunStatus.STARTED))
    internals.report_failed(instance, failed, "it failed")
    tick = evaluate(begun.cursor)
    (reaction,) = tick.dagster_run_reactions
    assert reaction.dagster_run.run_id == failed.run_id
    assert reaction.error.to_string().strip() == "nobody answers"
    assert reaction.run_status == dg.DagsterRunStatus.FAILURE
    assert evaluate(tick.cursor).dagster_run_reactions == []


def failure(error: BaseException) -> internals.Failure:
    @dg.op
    def failing() -> None:
        raise error

    @dg.job
    def job() -> None:
        failing()

    (event,) = job.execute_in_process(raise_on_error=False).get_step_failure_events()
    return internals.failure_of(event)


@dagster_still("keeps the words and the metadata of a dg.Failure in its event")
def test_a_failure_has_the_words_and_metadata_that_it_was_given(instance: dg.DagsterInstance) -> None:
    failed = run(instance, fails="bill")
    ((event, _),) = internals.events_of_run(instance, failed.run_id, {dg.DagsterEventType.STEP_FAILURE})
    found = internals.failure_of(event)
    assert (found.description, found.error) == ("not today", "Failure")
    assert {name: value.value for name, value in found.metadata.items()} == {"reason": "rain"}


@dagster_still("keeps the chain of causes of an error in its event")
def test_an_error_is_its_innermost_cause() -> None:
    found = failure(ValueError("no such thing"))
    assert (found.description, found.metadata, found.error) == ("", {}, "ValueError")
    assert found.message.strip() == "ValueError: no such thing"
    again = dg.RetryRequested(max_retries=0)
    again.__cause__ = dg.Failure("the store is down")
    found = failure(again)
    assert (found.error, found.message.strip()) == (
        "Failure",
        "dagster._core.definitions.events.Failure: the store is down",
    )


@dagster_still("has events of failures without an error")
def test_a_failure_event_that_says_nothing_is_empty(instance: dg.DagsterInstance) -> None:
    dead = instance.add_run(dg.DagsterRun(job_name="export"))
    internals.report_failed(instance, dead, "gone")
    ((event, _),) = internals.events_of_run(instance, dead.run_id, {dg.DagsterEventType.RUN_FAILURE})
    assert internals.failure_of(event) == internals.Failure("", {}, "", "")


def modules() -> Iterator[tuple[Path, ast.Module]]:
    for file in PRODUCT.rglob("*.py"):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def test_no_other_file_imports_what_is_private_in_dagster() -> None:
    found = {file for file, module in modules() if any(map(is_private, imported(module)))}
    assert found == {INTERNALS}


def imported(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_private(name: str) -> bool:
    """Also in a text, as dagster.yaml and importlib name modules."""
    package, *inside = name.split(".")
    return (
        package.startswith("dagster") and package != "dagster_internals" and any(one.startswith("_") for one in inside)
    )


def test_no_other_file_calls_a_method_of_the_instance_that_is_not_public() -> None:
    names = (name for name in dir(dg.DagsterInstance) if not name.startswith("_"))
    private = {name for name in names if not is_public(inspect.getattr_static(dg.DagsterInstance, name))}
    used = {file: private & attributes(module) for file, module in modules()}
    assert {file: names for file, names in used.items() if names} == {
        INTERNALS: {
            "add_run_tags",
            "all_instigator_state",
            "compute_log_manager",
            "dispose",  # of engines, and of the storage that our class extends
            "event_log_storage",
            "from_ref",
            "get_execution_plan_snapshot",
            "get_materialized_partitions",
            "get_records_for_run",
            "get_ticks",
            "get_run_ids",
            "get_run_step_stats",
            "get_run_tags",
            "get_runs_count",
            "report_dagster_event",
            "report_engine_event",
            "report_run_canceled",
            "report_run_failed",
            "run_storage",
            "storage_directory",
        }
    }


def attributes(module: ast.Module) -> set[str]:
    return {node.attr for node in ast.walk(module) if isinstance(node, ast.Attribute)}
