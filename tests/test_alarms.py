import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from dagster._core.execution.plan.objects import StepFailureData, UserFailureData
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from receiver import SECRET, Answer, Receiver
from toggles import switch

from m3ter_dagster.alarms import alarm_sensors, freshness_policies, messages
from m3ter_dagster.alarms.late_exports import runs_due
from m3ter_dagster.config import AnySchedule, Exports, ExportSchedule, Notifications, S3Destination, grace
from m3ter_dagster.config.usage import UsageSchedule
from m3ter_dagster.dagster_internals import events_of_run
from m3ter_dagster.history.log import MANIFEST
from m3ter_dagster.history.record import Delivery, Reading, StoredObject, as_metadata
from m3ter_dagster.history.retries import ask_again

JUNE_1 = datetime(2024, 6, 1, 10, tzinfo=UTC)
JUNE_6, JUNE_11 = JUNE_1 + timedelta(days=5), JUNE_1 + timedelta(days=10)
HOUR = timedelta(hours=1)
BEFORE = JUNE_6 - timedelta(minutes=1)
"""When notifications were switched on."""
LATE = JUNE_6 + timedelta(hours=6)
"""The grace of five days is over."""
DAGSTER = "https://dagster.example.com"
NewInstance = Callable[[Path], AbstractContextManager[dg.DagsterInstance]]
IN_PROCESS = dg.in_process_executor
FINANCE = {"m3ter/schedule": "finance"}
TAGS = FINANCE | {"m3ter/due": JUNE_6.isoformat()}


@pytest.fixture(scope="module")
def used_instance(new_instance: NewInstance, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One for all tests; making it takes a second."""
    with new_instance(tmp_path_factory.mktemp("home")) as instance:
        yield instance


@pytest.fixture
def instance(used_instance: dg.DagsterInstance) -> dg.DagsterInstance:
    """One without runs, toggled by nobody."""
    used_instance.wipe()
    used_instance.wipe_all_schedules()
    return used_instance


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def schedule_of(code: str = "finance", **values: Any) -> ExportSchedule:
    usual: dict[str, Any] = {
        "operational_data_types": ["ACCOUNTS", "BILLS"],
        "destinations": ["warehouse"],
        "schedule_type": "DAY",
        "period": 5,
        "dt_created": JUNE_1,
    }
    return ExportSchedule(code=code, **usual | values)


def exports_of(receiver: Receiver, *schedules: AnySchedule, **notifications: Any) -> Exports:
    return Exports(
        destinations=(S3Destination(code="warehouse", bucket_name="acme"),),
        schedules=schedules or (schedule_of(),),
        notifications=Notifications.model_validate({"webhook_url": receiver.url, **notifications}),
    )


def sensors_of(exports: Exports, receiver: Receiver, now: datetime = LATE) -> dict[str, dg.SensorDefinition]:
    sensors = alarm_sensors(exports, clock=lambda: now, webhook=receiver.webhook())
    return {sensor.name: sensor for sensor in sensors}


def entity_asset(name: str, *, fails: bool = False) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def entity(context: dg.AssetExecutionContext) -> None:
        if fails:
            raise dg.Failure(f"row 'b-1' of {name} has\nthe total 'x'", allow_retries=False)
        context.add_output_metadata(as_metadata(delivery_of(name)))

    return entity


def delivery_of(asset: str) -> Delivery:
    there = StoredObject("warehouse", f"s3://acme/{asset}.csv", bytes=1, sha256="", etag="")
    read = Reading(started=LATE, finished=LATE)
    return Delivery(asset, "export-1", "org-1", rows=1000, objects=(there,), reading=read, seconds_to_deliver=0.0)


def run(
    instance: dg.DagsterInstance, *failing: str, names: Sequence[str] = ("account", "bill", MANIFEST), **tags: str
) -> dg.ExecuteInProcessResult:
    named = {key.replace("_", "/", 1): value for key, value in tags.items()}
    assets = [entity_asset(name, fails=name in failing) for name in names]
    return dg.materialize(assets, instance=instance, tags=named, raise_on_error=False)


def look(
    instance: dg.DagsterInstance,
    receiver: Receiver,
    exports: Exports | None = None,
    *,
    at: datetime,
    cursor: str | None = None,
) -> Any:
    sensor = sensors_of(exports or exports_of(receiver), receiver, at)["late_exports"]
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        return sensor.evaluate_tick(context)


def evaluate(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None) -> Any:
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        return sensor.evaluate_tick(context)


def test_nothing_is_defined_without_notifications(receiver: Receiver) -> None:
    assert alarm_sensors(Exports(destinations=(S3Destination(code="warehouse", bucket_name="acme"),))) == []
    assert list(sensors_of(exports_of(receiver), receiver)) == ["failed_exports", "late_exports"]


def test_all_sensors_are_on_from_the_start(receiver: Receiver) -> None:
    sensors = sensors_of(exports_of(receiver, on_success=True), receiver)
    assert list(sensors) == ["failed_exports", "delivered_exports", "late_exports"]
    assert {sensor.default_status for sensor in sensors.values()} == {dg.DefaultSensorStatus.RUNNING}


def test_dagster_takes_the_sensors(receiver: Receiver) -> None:
    sensors = sensors_of(exports_of(receiver, on_success=True), receiver)
    definitions = dg.Definitions(assets=[entity_asset("bill")], sensors=list(sensors.values()))
    dg.Definitions.validate_loadable(definitions)
    assert SECRET not in repr(definitions)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        (TAGS, "schedule 'finance', due 2024-06-06 10:00 UTC"),
        (FINANCE, "schedule 'finance', started by hand"),
        ({}, "started by hand"),
    ],
)
def test_the_webhook_is_notified_of_a_failed_export(
    instance: dg.DagsterInstance, receiver: Receiver, tags: dict[str, str], words: str
) -> None:
    sensor = sensors_of(exports_of(receiver, dagster_url=DAGSTER), receiver)["failed_exports"]
    result = run(instance, "bill", **{name.replace("/", "_"): value for name, value in tags.items()})
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name,
        dagster_event=result.get_run_failure_event(),
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    )
    sensor(context.for_run_failure())
    assert receiver.texts == [
        f"m3ter export failed: {words}\n"
        f"export id {result.run_id}\n"
        f"{DAGSTER}/runs/{result.run_id}\n"
        "bill: row 'b-1' of bill has the total 'x'"
    ]


def test_a_run_that_failed_outside_its_steps(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    sensor = sensors_of(exports_of(receiver), receiver)["failed_exports"]
    cursor = evaluate(sensor, instance, None).cursor
    failed = instance.create_run_for_job(dg.job(name="export")(lambda: None), tags=TAGS)
    instance.report_run_failed(failed, "the run's process ended unexpectedly")
    evaluate(sensor, instance, cursor)
    assert receiver.texts == [
        "m3ter export failed: schedule 'finance', due 2024-06-06 10:00 UTC\n"
        f"export id {failed.run_id}\n"
        "the run's process ended unexpectedly"
    ]


@pytest.mark.parametrize(
    ("tags", "title"),
    [
        ({"dagster/will_retry": "true"}, None),
        ({"dagster/will_retry": "false"}, "m3ter export failed: started by hand"),
        ({"dagster/retry_number": "3", "dagster/will_retry": "false"}, "m3ter export failed again, retry 3: started "),
    ],
)
def test_a_failed_run_that_is_retried_is_told_after_the_last_retry(
    instance: dg.DagsterInstance, receiver: Receiver, tags: dict[str, str], title: str | None
) -> None:
    sensor = sensors_of(exports_of(receiver), receiver)["failed_exports"]
    cursor = evaluate(sensor, instance, None).cursor
    failed = instance.create_run_for_job(dg.job(name="export")(lambda: None), tags=tags)
    instance.report_run_failed(failed)
    evaluate(sensor, instance, cursor)
    assert [text.startswith(title or "") for text in receiver.texts] == ([True] if title else [])


def test_a_failure_that_cannot_be_retried_is_told_at_once(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    """A retry was decided, but the job of the run's schedule is gone: Dagster only logs that, and nobody else tells."""
    job = dg.job(name="export_finance")(lambda: None)
    sensor = sensors_of(exports_of(receiver), receiver)["failed_exports"]
    cursor = None
    for jobs in ([job], []):
        repository = dg.Definitions(jobs=jobs, sensors=[sensor]).get_repository_def()
        with dg.build_sensor_context(instance, cursor, repository_def=repository) as context:
            cursor = cursor or sensor.evaluate_tick(context).cursor
            failed = instance.create_run_for_job(job, tags=TAGS | {"dagster/will_retry": "true"})
            instance.report_run_failed(failed, "the run's process has died")
        with dg.build_sensor_context(instance, cursor, repository_def=repository) as context:
            cursor = sensor.evaluate_tick(context).cursor
    assert receiver.texts == [
        "m3ter export failed: schedule 'finance', due 2024-06-06 10:00 UTC\n"
        f"export id {failed.run_id}\n"
        "the run's process has died\n"
        "Dagster cannot retry it, since its schedule was renamed or removed; "
        f"m3ter-dagster export --resume {failed.run_id} completes the export."
    ]


def test_a_retry_that_is_asked_for_again_is_told_when_that_is_given_up(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    """Dagster did not reach the code location, which was restarted."""
    sensor = sensors_of(exports_of(receiver), receiver)["failed_exports"]
    target = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="m"), "m3ter_dagster")
    ended = instance.create_run_for_job(
        dg.job(name="export")(lambda: None),
        tags=TAGS | {"dagster/max_retries": "1", "dagster/will_retry": "false"},
        remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(target, "__repository__"), "export"),
    )
    interrupted = dg.DagsterEvent(
        dg.DagsterEventType.STEP_FAILURE.value,
        "export",
        step_key="bill",
        event_specific_data=StepFailureData(
            error=None, user_failure_data=UserFailureData("failure", "bill was interrupted")
        ),
    )
    instance.report_dagster_event(interrupted, ended.run_id)
    instance.report_engine_event("Failed to retry run", ended)
    instance.report_run_failed(ended)
    for is_given_up in (False, True):
        if is_given_up:
            ask_again(instance, ended, has_job=False)
        *_, (failure, _) = events_of_run(instance, ended.run_id, {dg.DagsterEventType.RUN_FAILURE})
        (current,) = instance.get_runs(dg.RunsFilter(run_ids=[ended.run_id]))
        assert receiver.texts == []
        context = dg.build_run_status_sensor_context(sensor.name, failure, instance, current)
        sensor(context.for_run_failure())
    assert receiver.texts == [
        "m3ter export failed: schedule 'finance', due 2024-06-06 10:00 UTC\n"
        f"export id {ended.run_id}\n"
        "bill was interrupted\n"
        f"Dagster could not launch a retry; m3ter-dagster export --resume {ended.run_id} completes the export."
    ]


def test_failures_that_are_told_and_that_are_retried_share_a_tick(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    sensor = sensors_of(exports_of(receiver), receiver)["failed_exports"]
    cursor = evaluate(sensor, instance, None).cursor
    failed = [
        instance.create_run_for_job(dg.job(name="export")(lambda: None), tags={"dagster/will_retry": will_retry})
        for will_retry in ("false", "true", "false")
    ]
    for one in failed:
        instance.report_run_failed(one)
    cursor = evaluate(sensor, instance, cursor).cursor
    told = [text.splitlines()[1] for text in receiver.texts]
    assert told == [f"export id {failed[0].run_id}", f"export id {failed[2].run_id}"]
    evaluate(sensor, instance, cursor)
    assert len(receiver.texts) == 2


def test_what_failed_before_is_history_and_what_fails_later_is_told_once(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    sensor = sensors_of(exports_of(receiver), receiver)["failed_exports"]
    run(instance, "bill")
    first = evaluate(sensor, instance, None)
    run(instance, "account", "bill")
    run(instance)
    second = evaluate(sensor, instance, first.cursor)
    evaluate(sensor, instance, second.cursor)
    (text,) = receiver.texts
    assert [line.split(":")[0] for line in text.splitlines()[2:]] == ["account", "bill"]


def test_a_webhook_that_refuses_is_reported_in_words_and_the_next_run_is_told(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    """One evaluation waits in vain for one run at most: Dagster gives it a minute."""
    with Receiver(Answer(), Answer(404, b"no_service"), Answer()) as receiver:
        sensor = sensors_of(exports_of(receiver), receiver)["failed_exports"]
        cursor = evaluate(sensor, instance, None).cursor
        for _ in range(3):
            run(instance, "bill")
        refused = evaluate(sensor, instance, cursor)
        told, not_told = refused.dagster_run_reactions
        assert told.error is None
        assert not_told.error.message.startswith("the webhook did not take the message: status 404 no_service")
        assert len(receiver.posts) == 2
        evaluate(sensor, instance, refused.cursor)
    assert len(receiver.posts) == 3
    log = capfd.readouterr().err
    assert SECRET not in log
    assert "Not sent: m3ter export failed: started by hand" in log


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("bill.csv is refused", "bill.csv is refused"),
        ("no answer", "bill: no answer"),
        ("x" * 400, f"bill: {'x' * 291}..."),
    ],
)
def test_a_reason_is_a_short_line_that_begins_with_the_entity(
    instance: dg.DagsterInstance, words: str, told: str
) -> None:
    @dg.asset
    def bill() -> None:
        raise dg.Failure(words, allow_retries=False)

    result = dg.materialize([bill], instance=instance, raise_on_error=False)
    events = [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert messages.failed(result.dagster_run, events, None).splitlines()[2:] == [told]


def test_a_delivered_export_is_told_if_wanted(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    sensor = sensors_of(exports_of(receiver, on_success=True), receiver)["delivered_exports"]
    cursor = evaluate(sensor, instance, None).cursor
    result = run(instance, m3ter_schedule="finance", m3ter_due=JUNE_6.isoformat())
    dg.job(name="other")(lambda: None).execute_in_process(instance=instance)
    evaluate(sensor, instance, cursor)
    assert receiver.texts == [
        "m3ter export delivered: schedule 'finance', due 2024-06-06 10:00 UTC\n"
        f"export id {result.run_id}\n"
        "2 files, 2000 rows: account, bill"
    ]


def test_an_export_is_told_once_its_manifest_is_made(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    sensor = sensors_of(exports_of(receiver, on_success=True), receiver)["delivered_exports"]
    cursor = evaluate(sensor, instance, None).cursor
    export = run(instance, names=["account"]).run_id
    cursor = evaluate(sensor, instance, cursor).cursor
    assert receiver.texts == []
    run(instance, names=[MANIFEST], dagster_root_run_id=export)
    evaluate(sensor, instance, cursor)
    assert [text.splitlines()[1:] for text in receiver.texts] == [
        [f"export id {export}", "1 files, 1000 rows: account"]
    ]


LOOK = dg.define_asset_job("look", dg.AssetSelection.all_asset_checks())


def check_of_reuse(*, passed: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset="bill_line_item", name="reuse")
    def reuse() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=f"{passed}.")

    return reuse


def test_it_is_told_that_rows_must_not_be_reused(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    reusing = schedule_of(operational_data_types=["BILLS", "BILL_LINE_ITEMS"], reuse="unchangedBills")
    assert "unsafe_reuse" not in sensors_of(exports_of(receiver), receiver)
    sensor = sensors_of(exports_of(receiver, reusing), receiver)["unsafe_reuse"]
    cursor = evaluate(sensor, instance, None).cursor
    for passed in (True, False):
        asset = dg.AssetSpec("bill_line_item")
        checks = dg.Definitions(assets=[asset], asset_checks=[check_of_reuse(passed=passed)], jobs=[LOOK])
        result = checks.resolve_job_def("look").execute_in_process(instance=instance, tags=FINANCE)
        cursor = evaluate(sensor, instance, cursor).cursor
    assert receiver.texts == [
        "m3ter export delivered, but what it reuses is not what m3ter has: schedule 'finance', started by hand\n"
        f"export id {result.run_id}\n"
        "False."
    ]


def test_an_export_that_nobody_launched_is_late(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    before = look(instance, receiver, at=BEFORE)
    in_time = look(instance, receiver, at=LATE - timedelta(minutes=2), cursor=before.cursor)
    assert in_time.skip_message == "every export is on time."
    assert not receiver.texts
    late = look(instance, receiver, at=LATE, cursor=in_time.cursor)
    assert late.skip_message == "late: finance."
    assert receiver.texts == [
        "m3ter export late: schedule 'finance', due 2024-06-06 10:00 UTC, is not delivered\n"
        "No run was launched for it; look at the schedule's ticks and at the Dagster daemon."
    ]


def test_and_is_told_once(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    cursor = look(instance, receiver, at=BEFORE).cursor
    for minutes in range(5):
        cursor = look(instance, receiver, at=LATE + minutes * timedelta(minutes=1), cursor=cursor).cursor
    assert len(receiver.texts) == 1
    look(instance, receiver, at=JUNE_11 + 6 * HOUR, cursor=cursor)
    assert [text.split(", ")[1] for text in receiver.texts] == ["due 2024-06-06 10:00 UTC", "due 2024-06-11 10:00 UTC"]


def test_a_delivered_export_is_not_late(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    cursor = look(instance, receiver, at=BEFORE).cursor
    run(instance, m3ter_schedule="finance", m3ter_due=JUNE_6.isoformat())
    assert look(instance, receiver, at=LATE, cursor=cursor).skip_message == "every export is on time."
    assert not receiver.texts


def test_an_export_of_another_organization_is_no_excuse(instance: dg.DagsterInstance) -> None:
    """Its schedule may have the same code."""
    run(instance, m3ter_schedule="finance", m3ter_due=JUNE_6.isoformat(), m3ter_organization="org-2")
    found = {one: list(runs_due(instance, one, "finance", JUNE_6)) for one in ("org-1", "org-2", None)}
    assert {one: len(runs) for one, runs in found.items()} == {"org-1": 0, "org-2": 1, None: 1}


@pytest.mark.parametrize(
    "tags",
    [
        {"m3ter_schedule": "finance", "m3ter_due": JUNE_1.isoformat()},
        {"m3ter_schedule": "other", "m3ter_due": JUNE_6.isoformat()},
        {},
    ],
)
def test_another_export_is_no_excuse(instance: dg.DagsterInstance, receiver: Receiver, tags: dict[str, str]) -> None:
    cursor = look(instance, receiver, at=BEFORE).cursor
    run(instance, **tags)
    look(instance, receiver, at=LATE, cursor=cursor)
    assert "No run was launched" in receiver.texts[0]


def test_the_job_of_the_schedule_launched_by_hand_will_do(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    cursor = look(instance, receiver, at=BEFORE).cursor
    run(instance, m3ter_schedule="finance")
    look(instance, receiver, at=LATE, cursor=cursor)
    assert not receiver.texts


def export_job() -> dg.JobDefinition:
    """Its bill fails until the environment says REPAIRED."""

    @dg.asset(name="bill")
    def bill() -> None:
        if "REPAIRED" not in os.environ:
            raise dg.Failure("no answer", allow_retries=False)

    definitions = dg.Definitions(
        assets=[entity_asset("account"), bill], jobs=[dg.define_asset_job("export_finance", executor_def=IN_PROCESS)]
    )
    return definitions.resolve_job_def("export_finance")


def test_a_late_export_names_its_run_and_recovers_by_a_re_execution(
    instance: dg.DagsterInstance, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports, job = exports_of(receiver, dagster_url=DAGSTER), dg.reconstructable(export_job)
    cursor = look(instance, receiver, exports, at=BEFORE).cursor
    with dg.execute_job(job, instance, tags=TAGS) as failed:
        cursor = look(instance, receiver, exports, at=LATE, cursor=cursor).cursor
    monkeypatch.setenv("REPAIRED", "yes")
    again = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
    root = {"dagster/root_run_id": failed.run_id}
    with dg.execute_job(job, instance, reexecution_options=again, tags=root) as repaired:
        after = look(instance, receiver, exports, at=LATE + HOUR, cursor=cursor)
    assert after.skip_message == "every export is on time."
    look(instance, receiver, exports, at=LATE + 2 * HOUR, cursor=after.cursor)
    assert receiver.texts == [
        "m3ter export late: schedule 'finance', due 2024-06-06 10:00 UTC, is not delivered\n"
        f"export id {failed.run_id}\n"
        f"{DAGSTER}/runs/{failed.run_id}\n"
        "The last run: failure.",
        "m3ter export recovered: schedule 'finance', late since 2024-06-06 10:00 UTC, has delivered\n"
        f"export id {failed.run_id}\n"
        f"{DAGSTER}/runs/{repaired.run_id}",
    ]


def test_before_the_first_due_time_nothing_is_late(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    later = exports_of(receiver, schedule_of(dt_created=LATE + HOUR))
    cursor = None
    for at in (BEFORE, LATE, LATE + HOUR, LATE + 2 * HOUR):
        cursor = look(instance, receiver, later, at=at, cursor=cursor).cursor
    assert not receiver.texts
    look(instance, receiver, later, at=LATE + 7 * HOUR, cursor=cursor)
    assert "due 2024-06-06 17:00 UTC, is not delivered" in receiver.texts[0]


def test_the_first_export_of_a_new_deployment_has_its_grace(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    """The schedule was created long ago, and its first export is launched at once: now, not on June 6."""
    start = JUNE_6 + timedelta(days=2)
    cursor = None
    for hours in range(6):
        cursor = look(instance, receiver, at=start + hours * HOUR, cursor=cursor).cursor
    assert not receiver.texts
    look(instance, receiver, at=start + 6 * HOUR, cursor=cursor)
    assert "due 2024-06-06 10:00 UTC, is not delivered" in receiver.texts[0]


def test_the_first_export_is_due_when_it_is_launched(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    start = JUNE_6 + timedelta(days=2)
    cursor = look(instance, receiver, at=start).cursor
    run(instance, m3ter_schedule="finance", m3ter_due=start.isoformat())
    look(instance, receiver, at=start + 6 * HOUR, cursor=cursor)
    assert not receiver.texts


def test_after_a_long_standstill_only_the_last_due_time_counts(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    hourly = exports_of(receiver, schedule_of(schedule_type="HOUR", period=1))
    cursor = look(instance, receiver, hourly, at=BEFORE).cursor
    for minutes in range(3):
        at = JUNE_11 + timedelta(minutes=45 + minutes)
        cursor = look(instance, receiver, hourly, at=at, cursor=cursor).cursor
    assert [text.split(", ")[1] for text in receiver.texts] == ["due 2024-06-11 10:00 UTC"]


def test_a_schedule_that_is_off_is_not_late(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    cursor = look(instance, receiver, at=BEFORE).cursor
    switch(instance, InstigatorStatus.STOPPED)
    cursor = look(instance, receiver, at=LATE, cursor=cursor).cursor
    assert not receiver.texts
    switch(instance, InstigatorStatus.RUNNING)
    cursor = look(instance, receiver, at=LATE + 10 * HOUR, cursor=cursor).cursor
    assert not receiver.texts, "Dagster does not make up for what was due meanwhile"
    look(instance, receiver, at=JUNE_11 + 6 * HOUR, cursor=cursor)
    assert "due 2024-06-11" in receiver.texts[0]


def test_a_schedule_that_another_one_resembles_is_on(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    switch(instance, InstigatorStatus.STOPPED, "other")
    switch(instance, InstigatorStatus.DECLARED_IN_CODE)
    cursor = look(instance, receiver, at=BEFORE).cursor
    look(instance, receiver, at=LATE, cursor=cursor)
    assert len(receiver.texts) == 1


def test_a_schedule_that_is_changed_owes_nothing_for_its_new_past(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    cursor = look(instance, receiver, at=BEFORE).cursor
    daily = exports_of(receiver, schedule_of(period=1))
    cursor = look(instance, receiver, daily, at=LATE + HOUR, cursor=cursor).cursor
    cursor = look(instance, receiver, daily, at=LATE + 8 * HOUR, cursor=cursor).cursor
    assert not receiver.texts
    look(instance, receiver, daily, at=LATE + 24 * HOUR, cursor=cursor)
    assert "due 2024-06-07" in receiver.texts[0]


def test_what_the_webhook_did_not_take_is_told_at_the_next_look(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    with Receiver(Answer(404, b"no_service"), Answer()) as receiver:
        two = exports_of(receiver, schedule_of(), schedule_of("other"))
        cursor = look(instance, receiver, two, at=BEFORE).cursor
        refused = look(instance, receiver, two, at=LATE, cursor=cursor)
        assert "the webhook did not take the message: status 404 no_service" in refused.skip_message
        assert len(receiver.posts) == 1, "one look waits in vain for one message at most"
        look(instance, receiver, two, at=LATE + timedelta(minutes=1), cursor=refused.cursor)
    assert ["'finance'" in text for text in receiver.texts] == [True, True, False]
    log = capfd.readouterr().err
    assert SECRET not in log + refused.cursor
    assert "Not sent: m3ter export late: schedule 'finance'" in log


@pytest.mark.parametrize(
    ("hours", "words"), [(1, "every export is on time."), (2.5, "late: finance."), (200, "late: finance.")]
)
def test_the_grace_of_the_file_counts(
    instance: dg.DagsterInstance, receiver: Receiver, hours: float, words: str
) -> None:
    exports = exports_of(receiver, grace_hours=2.5)
    cursor = look(instance, receiver, exports, at=BEFORE).cursor
    assert look(instance, receiver, exports, at=JUNE_6 + hours * HOUR, cursor=cursor).skip_message == words


def test_a_grace_longer_than_the_period_is_not_for_ever(instance: dg.DagsterInstance, receiver: Receiver) -> None:
    hourly = exports_of(receiver, schedule_of(schedule_type="HOUR", period=1), grace_hours=3)
    cursor = look(instance, receiver, hourly, at=BEFORE).cursor
    cursor = look(instance, receiver, hourly, at=JUNE_6 + timedelta(minutes=90), cursor=cursor).cursor
    assert not receiver.texts
    look(instance, receiver, hourly, at=JUNE_6 + 3 * HOUR, cursor=cursor)
    assert len(receiver.texts) == 1


@pytest.mark.parametrize(
    ("period", "expected"),
    [(HOUR, HOUR / 2), (6 * HOUR, 1.5 * HOUR), (24 * HOUR, 6 * HOUR), (120 * HOUR, 6 * HOUR)],
)
def test_the_grace_of_a_period(period: timedelta, expected: timedelta) -> None:
    assert grace(period, None) == expected


def test_an_asset_is_fresh_for_the_period_of_its_most_frequent_schedule(receiver: Receiver) -> None:
    daily = schedule_of("daily", period=1, operational_data_types=["BILLS"])
    usage = UsageSchedule(
        code="usage",
        source_type="USAGE",
        destinations=("warehouse",),
        schedule_type="DAY",
        period=1,
        dt_created=JUNE_1,
        time_period="YESTERDAY",
    )
    policies = freshness_policies(exports_of(receiver, schedule_of(), daily, usage))
    windows = {
        name: policy.fail_window.to_timedelta()
        for name, policy in policies.items()
        if isinstance(policy, TimeWindowFreshnessPolicy)
    }
    assert windows == {
        "account": timedelta(days=5, hours=6),
        "bill": timedelta(days=1, hours=6),
        "usage_raw": timedelta(days=1, hours=6),
    }
    assert freshness_policies(Exports(destinations=(S3Destination(code="a", bucket_name="abc"),))) == {}
