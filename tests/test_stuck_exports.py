"""What keeps a schedule from exporting: runs whose processes died, and exports that waited for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.objects import StepSuccessData
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from processes import poll

from m3ter_dagster.config import ExportSchedule, parse_exports
from m3ter_dagster.config.environment import load_settings
from m3ter_dagster.config.usage import UsageSchedule
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.heartbeat import Heartbeat
from m3ter_dagster.history.log import DUE_TAG, ROOT_TAG, SCHEDULE_TAG
from m3ter_dagster.history.retries import NOT_RETRIED, retry_after_death, will_be_retried
from m3ter_dagster.stuck_exports import stuck_exports

SETTINGS = Path(__file__).parents[1] / "dagster.yaml"
DIED = datetime(2024, 6, 6, 10, 5, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
COMMON: dict[str, Any] = {"destinations": ["warehouse"], "schedule_type": "DAY", "period": 1, "dt_created": DIED}
FINANCE = ExportSchedule(code="finance", operational_data_types=["ACCOUNTS"], **COMMON)
MEASURED = UsageSchedule(code="measured", source_type="USAGE", time_period="YESTERDAY", **COMMON)
WHAT = {"finance": ["account", "export_manifest"], "measured": ["usage_raw", "usage_manifest"]}
CONFIG = {"resources": {"csv_io_manager": {"config": {"destinations": ["warehouse"]}}}}
IN_PROCESS = "Executing steps in process (pid: 7)"
"""What Dagster logs of a run whose steps are all executed by one process."""
STEPS = {"account", "bill", "export_manifest"}
PROJECT = build_definitions(
    parse_exports("destinations: [{code: warehouse, bucketName: acme}]", environ={}), load_settings({})
)
"""Without any schedule."""
STARTED, QUEUED = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One with the queue of this project."""
    shutil.copy(SETTINGS, tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def under_way(instance: dg.DagsterInstance, *steps: str) -> dg.DagsterRun:
    """A run of the schedule whose last event is that these steps began."""
    run = instance.add_run(dg.DagsterRun(job_name="export_finance", status=STARTED, tags={SCHEDULE_TAG: "finance"}))
    for step in steps:
        log(instance, run, Type.STEP_START, step)
    return run


def in_process(
    instance: dg.DagsterInstance, planned: Sequence[str], succeeded: Sequence[str] | None, words: str = IN_PROCESS
) -> dg.DagsterRun:
    """A run of the daemon that is to execute the planned steps and was last heard of when so many had succeeded.

    None: when it started.
    """
    run = dg.DagsterRun(
        job_name="export_finance",
        status=STARTED,
        tags={SCHEDULE_TAG: "finance"},
        remote_job_origin=origin("finance"),
        step_keys_to_execute=list(planned),
    )
    instance.add_run(run)
    log(instance, run, Type.RUN_START, "")
    if succeeded is None:
        return run
    log(instance, run, Type.ENGINE_EVENT, "", words=words)
    log(instance, run, Type.RESOURCE_INIT_STARTED, "")
    for step in succeeded:
        log(instance, run, Type.STEP_START, step)
        log(instance, run, Type.STEP_SUCCESS, step)
    return run


def log(
    instance: dg.DagsterInstance, run: dg.DagsterRun, kind: Type, step: str, at: datetime = DIED, words: str = ""
) -> None:
    data = {
        Type.STEP_SUCCESS: StepSuccessData(1.0),
        Type.ENGINE_EVENT: EngineEventData({}),
        Type.RESOURCE_INIT_STARTED: EngineEventData({}),
    }
    event = dg.DagsterEvent(
        kind.value, run.job_name, step_key=step or None, event_specific_data=data.get(kind), message=words
    )
    instance.report_dagster_event(event, run.run_id, timestamp=at.timestamp())


def origin(code: str, location: str = "here") -> RemoteJobOrigin:
    target = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="m"), location_name=location)
    return RemoteJobOrigin(RemoteRepositoryOrigin(target, "__repository__"), f"export_{code}")


def queued(
    instance: dg.DagsterInstance, code: str, due: datetime | None, *, location: str = "here", **tags: str
) -> dg.DagsterRun:
    mine = {SCHEDULE_TAG: code, **({DUE_TAG: due.isoformat()} if due else {}), **tags}
    run = dg.DagsterRun(
        job_name=f"export_{code}",
        status=QUEUED,
        tags=mine,
        remote_job_origin=origin(code, location),
        run_config=CONFIG,
        step_keys_to_execute=WHAT[code],
    )
    return instance.add_run(run)


def look(instance: dg.DagsterInstance, at: datetime, cursor: str | None = None) -> Any:
    sensor = stuck_exports([FINANCE, MEASURED], STEPS, clock=lambda: at)
    with dg.build_sensor_context(instance, cursor, definitions=PROJECT) as context:
        return sensor.evaluate_tick(context)


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found.status


def last_words(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    event = instance.all_logs(run.run_id)[-1].dagster_event
    assert event
    return event.message or ""


def launched_next(instance: dg.DagsterInstance) -> list[str]:
    """The runs that Dagster would take from the queue now."""
    daemon, limits = QueuedRunCoordinatorDaemon(interval_seconds=5), instance.get_concurrency_config()
    return [run.run_id for run in daemon._get_runs_to_dequeue(instance, limits, None)]


def test_a_run_without_an_event_for_fifteen_minutes_is_dead_and_its_schedule_goes_on(
    instance: dg.DagsterInstance,
) -> None:
    dead, waiting = under_way(instance, "account", "bill"), queued(instance, "finance", DIED + DAY)
    first = look(instance, DIED + 14 * MINUTE)
    second = look(instance, DIED + 15 * MINUTE, first.cursor)
    assert status(instance, dead) == STARTED
    assert launched_next(instance) == []
    look(instance, DIED + 17 * MINUTE, second.cursor)
    assert status(instance, dead) == dg.DagsterRunStatus.FAILURE
    assert last_words(instance, dead) == (
        "The process of this run has died: no event for 15 minutes while account, bill was under way. "
        f"Unless Dagster retries it, m3ter-dagster export --resume {dead.run_id} completes the export."
    )
    assert launched_next(instance) == [waiting.run_id]


def test_a_machine_that_slept_has_the_time_for_a_heartbeat(instance: dg.DagsterInstance) -> None:
    sleeper = under_way(instance, "account")
    woken = look(instance, DIED + 8 * 60 * MINUTE)
    assert json.loads(woken.cursor) == [sleeper.run_id]
    log(instance, sleeper, Type.ENGINE_EVENT, "", DIED + 481 * MINUTE)
    later = look(instance, DIED + 482 * MINUTE, woken.cursor)
    assert status(instance, sleeper) == STARTED
    assert json.loads(later.cursor) == []


@pytest.mark.parametrize("steps", [(), ("warehouse__account",)], ids=["none", "another project's"])
def test_a_silent_run_none_of_whose_exports_is_under_way_may_be_waiting(
    instance: dg.DagsterInstance, steps: tuple[str, ...]
) -> None:
    waits = under_way(instance, *steps, "account")
    log(instance, waits, Type.STEP_SUCCESS, "account")
    for later in (1, 2):
        look(instance, DIED + later * DAY, json.dumps([waits.run_id]))
    assert status(instance, waits) == STARTED


@pytest.mark.parametrize(
    "succeeded", [None, [], ["account"]], ids=["just started", "in resource setup", "between two steps"]
)
def test_a_process_that_dies_while_no_step_is_under_way_is_dead_and_its_run_is_retried(
    instance: dg.DagsterInstance, succeeded: list[str] | None
) -> None:
    dead = in_process(instance, WHAT["finance"], succeeded)
    before = look(instance, DIED + 14 * MINUTE)
    assert json.loads(before.cursor) == []
    look(instance, DIED + 17 * MINUTE, look(instance, DIED + 15 * MINUTE).cursor)
    assert status(instance, dead) == dg.DagsterRunStatus.FAILURE
    assert last_words(instance, dead) == (
        "The process of this run has died: no event for 15 minutes. "
        f"Unless Dagster retries it, m3ter-dagster export --resume {dead.run_id} completes the export."
    )
    found = instance.get_run_by_id(dead.run_id)
    assert found
    assert will_be_retried(found)


@pytest.mark.parametrize("words", [IN_PROCESS, "Submitting celery tasks"])
def test_a_run_that_dies_after_its_last_step_has_succeeded_since_nothing_is_left_to_do(
    instance: dg.DagsterInstance, words: str
) -> None:
    whole = in_process(instance, WHAT["finance"], WHAT["finance"], words)
    waiting = queued(instance, "finance", DIED + DAY)
    look(instance, DIED + 17 * MINUTE, look(instance, DIED + 15 * MINUTE).cursor)
    assert status(instance, whole) == dg.DagsterRunStatus.SUCCESS
    assert last_words(instance, whole) == (
        "The process of this run has died: no event for 15 minutes. All of its steps had succeeded: the export is "
        "whole."
    )
    assert launched_next(instance) == [waiting.run_id]


@pytest.mark.parametrize(
    ("planned", "words"),
    [
        (["account", "bill"], "Submitting celery tasks"),
        (["account", "warehouse__account"], IN_PROCESS),
        (["account", "warehouse__account"], "Submitting celery tasks"),
        ([], IN_PROCESS),
    ],
)
def test_a_run_that_may_wait_for_workers_or_is_another_project_s_is_left_alone_between_steps(
    instance: dg.DagsterInstance, planned: list[str], words: str
) -> None:
    runs = [in_process(instance, planned, succeeded, words) for succeeded in ([], ["account"])]
    runs.append(in_process(instance, ["warehouse__account"], ["warehouse__account"], words))
    look(instance, DIED + DAY, json.dumps([run.run_id for run in runs]))
    assert {status(instance, run) for run in runs} == {STARTED}


def test_a_process_at_work_has_a_heartbeat(instance: dg.DagsterInstance) -> None:
    quiet = under_way(instance, "account")
    heartbeat = Heartbeat(instance, quiet, every=0.01)
    poll(lambda: "is at work" in last_words(instance, quiet), "a heartbeat", 30)
    heartbeat.stop()
    beats = len(instance.all_logs(quiet.run_id))
    look(instance, datetime.now(UTC) + 14 * MINUTE, json.dumps([quiet.run_id]))
    assert status(instance, quiet) == STARTED
    look(instance, datetime.now(UTC) + 16 * MINUTE, json.dumps([quiet.run_id]))
    assert status(instance, quiet) == dg.DagsterRunStatus.FAILURE
    assert len(instance.all_logs(quiet.run_id)) == beats + 1


@pytest.mark.parametrize(
    ("step", "is_given_up"), [("account", True), ("warehouse__account", False)], ids=["an export", "another project's"]
)
def test_a_retry_that_dagster_could_not_launch_is_given_up_where_its_job_is_gone(
    instance: dg.DagsterInstance, step: str, *, is_given_up: bool
) -> None:
    lost = in_process(instance, [step], [])
    retry_after_death(instance, lost)
    instance.report_run_failed(lost, "interrupted")
    log(instance, lost, Type.ENGINE_EVENT, "", words="Failed to retry run")
    instance.add_run_tags(lost.run_id, {"dagster/will_retry": "false"})
    events = len(instance.all_logs(lost.run_id))
    for _ in range(2):
        look(instance, DIED + MINUTE)
    assert len(instance.all_logs(lost.run_id)) == events + is_given_up
    assert (last_words(instance, lost) == NOT_RETRIED.format(lost.run_id)) == is_given_up


def test_of_due_times_that_waited_only_the_latest_is_exported(instance: dg.DagsterInstance) -> None:
    dead = under_way(instance, "account")
    exports = [queued(instance, "finance", DIED + days * DAY) for days in (2, 1, 3)]
    look(instance, DIED + 3 * DAY, json.dumps([dead.run_id]))
    canceled = dg.DagsterRunStatus.CANCELED
    assert [status(instance, run) for run in exports] == [canceled, canceled, QUEUED]
    assert last_words(instance, exports[1]) == (
        "Not exported: schedule 'finance' was due again at 2024-06-09 10:05 UTC while this export waited. "
        "The later export has the same data, under the later time."
    )
    assert launched_next(instance) == [exports[2].run_id]


def test_what_a_later_export_does_not_contain_stays_in_the_queue(instance: dg.DagsterInstance) -> None:
    """Windows of their own, an export to be completed, a wish of a person, another Organization's export."""
    stay = [
        *(queued(instance, "measured", DIED + days * DAY) for days in (1, 2)),
        queued(instance, "finance", DIED, **{ROOT_TAG: "9d3c2ad4-2a0c-4c5f-9d9b-0d2c5d0c4c11"}),
        queued(instance, "finance", None),
        queued(instance, "finance", DIED, location="another"),
        queued(instance, "finance", DIED + DAY),
    ]
    look(instance, DIED + 3 * DAY)
    assert [status(instance, run) for run in stay] == [QUEUED] * len(stay)


@pytest.mark.parametrize("code", ["finance", "measured"])
def test_an_export_that_waits_survives_the_renaming_of_its_schedule(instance: dg.DagsterInstance, code: str) -> None:
    waiting = queued(instance, code, DIED, **{"dagster/schedule_name": code})
    found = look_of(PROJECT, instance)
    (request,) = found.run_requests
    assert (request.job_name, request.run_config) == ("__ASSET_JOB", CONFIG)
    assert {key.to_user_string() for key in request.asset_selection} == set(WHAT[code])
    tags = {name: value for name, value in request.tags.items() if not name.startswith("dagster/")}
    assert tags == {SCHEDULE_TAG: code, DUE_TAG: DIED.isoformat()}
    assert request.run_key == waiting.run_id
    assert status(instance, waiting) == dg.DagsterRunStatus.CANCELED
    assert last_words(instance, waiting) == (
        f"Schedule '{code}' was renamed or removed while this export waited, and its job with it; another run makes "
        "the same export."
    )
    assert not look_of(PROJECT, instance, found.cursor).run_requests


def test_of_several_exports_of_a_renamed_schedule_the_latest_survives(instance: dg.DagsterInstance) -> None:
    for days in (1, 3, 2):
        queued(instance, "finance", DIED + days * DAY)
    (request,) = look_of(PROJECT, instance).run_requests
    assert request.tags[DUE_TAG] == (DIED + 3 * DAY).isoformat()


def look_of(definitions: dg.Definitions, instance: dg.DagsterInstance, cursor: str | None = None) -> Any:
    """The look of the sensor in these definitions, now."""
    with dg.build_sensor_context(instance, cursor, definitions=definitions) as context:
        return definitions.resolve_sensor_def("stuck_exports").evaluate_tick(context)


def test_every_project_has_the_sensor_which_knows_all_steps_of_exports_and_is_on(
    instance: dg.DagsterInstance,
) -> None:
    assert PROJECT.resolve_sensor_def("stuck_exports").default_status == dg.DefaultSensorStatus.RUNNING
    names = {node.name for node in PROJECT.resolve_implicit_global_asset_job_def().nodes}
    assert {"bill", "usage_raw", "usage_manifest", "checks_across_entities"} < names
    runs = [under_way(instance, name) for name in sorted(names)]
    look_of(PROJECT, instance, json.dumps([run.run_id for run in runs]))
    assert {status(instance, run) for run in runs} == {dg.DagsterRunStatus.FAILURE}
