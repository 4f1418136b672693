from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._cli.utils import get_possibly_temporary_instance_for_cli
from dagster._core.scheduler.instigation import InstigatorStatus
from toggles import switch

from m3ter_dagster.assets.usage import usage_asset_checks, usage_assets
from m3ter_dagster.config import ConfigError, ExportSchedule, Settings, UsageSchedule
from m3ter_dagster.history.log import MANIFEST, USAGE_MANIFEST
from m3ter_dagster.model.entities import entities
from m3ter_dagster.resources import IO_MANAGER
from m3ter_dagster.resources.organization import Organization
from m3ter_dagster.schedules import export_jobs, export_schedules, first_exports, first_run_key

JUNE_1 = datetime(2024, 6, 1, 10, tzinfo=UTC)
NOW = datetime(2024, 7, 15, 8, 30, tzinfo=UTC)


def schedule_of(code: str = "finance", **values: Any) -> ExportSchedule:
    usual: dict[str, Any] = {
        "operational_data_types": ["ACCOUNTS", "BILLS"],
        "destinations": ["warehouse", "archive"],
        "schedule_type": "DAY",
        "period": 5,
        "dt_created": JUNE_1,
    }
    return ExportSchedule(code=code, **usual | values)


FINANCE = schedule_of(name="Finance")
HOURLY = schedule_of("hour-ly", schedule_type="HOUR", period=1, operational_data_types="ALL")
LATER = schedule_of("later", dt_created=NOW + timedelta(hours=1))
CONFIG = {"resources": {IO_MANAGER: {"config": {"destinations": ["warehouse", "archive"]}}}}


class Destinations(dg.ConfigurableIOManager):
    """Stands for the S3 IO manager: shows in the run's log where it would deliver to."""

    destinations: list[str]

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        context.add_output_metadata({"delivered": f"{obj} to {', '.join(self.destinations)}"})

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError


def entity_asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, io_manager_key=IO_MANAGER)
    def entity() -> str:
        return name

    return entity


def definitions_of(*schedules: ExportSchedule, now: datetime = NOW) -> dg.Definitions:
    jobs = export_jobs(schedules)
    return dg.Definitions(
        assets=[entity_asset(name) for name in (*entities(), MANIFEST)],
        jobs=list(jobs.values()),
        schedules=export_schedules(schedules, jobs, now=now),
        sensors=[first_exports(schedules, jobs, clock=lambda: now)],
        resources={IO_MANAGER: Destinations(destinations=["default"])},
    )


def dagster_schedule(schedule: ExportSchedule, now: datetime = NOW) -> dg.ScheduleDefinition:
    found = definitions_of(schedule, now=now).resolve_schedule_def(schedule.dagster_name)
    assert isinstance(found, dg.ScheduleDefinition)
    return found


def tick(schedule: ExportSchedule, at: datetime, instance: dg.DagsterInstance) -> Any:
    return tick_of(dagster_schedule(schedule), at, instance)


def tick_of(schedule: dg.ScheduleDefinition, at: datetime, instance: dg.DagsterInstance) -> Any:
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context:
        return schedule.evaluate_tick(context)


def look(
    schedules: list[ExportSchedule], instance: dg.DagsterInstance, *, now: datetime = NOW, cursor: str | None = None
) -> Any:
    definitions = definitions_of(*schedules, now=now)
    sensor = definitions.resolve_sensor_def("first_exports")
    with dg.build_sensor_context(instance=instance, cursor=cursor, definitions=definitions) as context:
        return sensor.evaluate_tick(context)


def test_a_schedule_in_dagster() -> None:
    schedule = dagster_schedule(FINANCE)
    assert (schedule.name, schedule.job.name) == ("finance", "export_finance")
    assert schedule.execution_timezone == "UTC"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.description == (
        "Finance: every 5 days since 2024-06-01 10:00 UTC, account, bill to warehouse, archive"
    )


def test_the_pages_of_schedule_and_job_list_what_it_does() -> None:
    schedule = dagster_schedule(FINANCE)
    job = definitions_of(FINANCE).resolve_job_def("export_finance")
    for metadata in (schedule.metadata, job.metadata):
        assert {name: value.value for name, value in metadata.items()} == {
            "schedule": "Finance",
            "exported": "every 5 days since 2024-06-01 10:00 UTC",
            "data": "account, bill",
            "destinations": "warehouse, archive",
        }


def test_names_that_dagster_refuses_are_adapted() -> None:
    schedule = dagster_schedule(HOURLY)
    assert (schedule.name, schedule.job.name) == ("hour_ly", "export_hour_ly")
    assert schedule.cron_schedule == "0 * * * *"
    assert schedule.description is not None
    assert "every hour since 2024-06-01 10:00 UTC, all 20 entities to" in schedule.description


def test_a_restart_in_the_same_month_changes_no_line() -> None:
    first, last = (dagster_schedule(FINANCE, NOW.replace(day=day)).cron_schedule for day in (1, 31))
    assert first == last


def test_the_lines_reach_back_to_last_month_for_what_a_standstill_missed() -> None:
    """June 26 was due, and a location that comes back on July 15 still knows it."""
    lines = dagster_schedule(FINANCE, NOW).cron_schedule
    june = next(line for line in lines if "6" in line.split()[3].split(","))
    assert june.split()[2].split(",") == ["1", "6", "11", "16", "21", "26"]


def test_a_due_tick_launches_the_export(instance: dg.DagsterInstance) -> None:
    (request,) = tick(FINANCE, datetime(2024, 6, 6, 10, tzinfo=UTC), instance).run_requests
    assert request.run_config == CONFIG
    tags = {key: value for key, value in request.tags.items() if key.startswith("m3ter/")}
    assert tags == {
        "m3ter/schedule": "finance",
        "m3ter/destinations": "warehouse,archive",
        "m3ter/due": "2024-06-06T10:00:00+00:00",
    }


def test_the_days_of_the_document(instance: dg.DagsterInstance) -> None:
    schedule, june = dagster_schedule(FINANCE), [JUNE_1.replace(day=day) for day in range(1, 31)]
    assert [at.day for at in june if tick_of(schedule, at, instance).run_requests] == [6, 11, 16, 21, 26]


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (JUNE_1, "the first export of schedule 'finance' is launched by the sensor first_exports."),
        (JUNE_1.replace(year=2028), "it is next due at 2028-06-05 10:00 UTC."),
        (JUNE_1.replace(year=2023), "runs every 5 days since 2024-06-01 10:00 UTC; it is next due at 2024-06-01"),
    ],
)
def test_any_other_tick_is_skipped_with_a_reason(at: datetime, words: str, instance: dg.DagsterInstance) -> None:
    evaluation = tick(FINANCE, at, instance)
    assert not evaluation.run_requests
    assert words in evaluation.skip_message


def test_a_job_selects_its_entities_and_the_manifest_and_no_other() -> None:
    job = definitions_of(FINANCE).resolve_job_def("export_finance")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {"account", "bill", MANIFEST}


def test_a_job_launched_by_hand_delivers_to_the_destinations_of_the_schedule(instance: dg.DagsterInstance) -> None:
    result = definitions_of(FINANCE).resolve_job_def("export_finance").execute_in_process(instance=instance)
    materialized = result.get_asset_materialization_events()
    delivered = {event.materialization.metadata["delivered"].value for event in materialized}
    assert delivered == {f"{name} to warehouse, archive" for name in ("account", "bill", MANIFEST)}
    assert result.dagster_run.tags["m3ter/schedule"] == "finance"


def test_a_scheduled_run_runs(instance: dg.DagsterInstance) -> None:
    (request,) = tick(HOURLY, JUNE_1 + timedelta(hours=1), instance).run_requests
    job = definitions_of(HOURLY).resolve_job_def("export_hour_ly")
    result = job.execute_in_process(instance=instance, run_config=request.run_config, tags=request.tags)
    assert len(result.get_asset_materialization_events()) == len(entities()) + 1
    assert result.dagster_run.tags["m3ter/due"] == "2024-06-01T11:00:00+00:00"


def test_the_first_export_is_launched_at_once(instance: dg.DagsterInstance) -> None:
    found = look([FINANCE, HOURLY], instance, now=NOW.replace(second=7, microsecond=8))
    assert [request.run_key for request in found.run_requests] == [
        "finance:2024-06-01T10:00:00+00:00",
        "hour-ly:2024-06-01T10:00:00+00:00",
    ]
    assert [request.job_name for request in found.run_requests] == ["export_finance", "export_hour_ly"]
    assert found.run_requests[0].run_config == CONFIG
    assert found.run_requests[0].tags["m3ter/due"] == "2024-07-15T08:30:07+00:00"
    assert found.run_requests[0].tags["m3ter/schedule"] == "finance"


def test_and_once_only(instance: dg.DagsterInstance) -> None:
    first = look([FINANCE, HOURLY], instance)
    again = look([FINANCE, HOURLY], instance, cursor=first.cursor, now=NOW + timedelta(days=30))
    assert not again.run_requests
    assert again.skip_message == "the first export of every schedule has been launched."
    assert again.cursor == first.cursor


def test_first_exports_wait_where_dagster_forgets_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start of `dagster dev` without a home would export everything again as first."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with get_possibly_temporary_instance_for_cli() as instance:
        found = look([FINANCE], instance, cursor="[]")
    assert not found.run_requests
    assert found.skip_message.startswith("first exports wait: Dagster's home is temporary, ")
    assert found.cursor in (None, "[]")


def test_a_schedule_that_is_added_or_created_anew_has_a_first_export(instance: dg.DagsterInstance) -> None:
    first = look([FINANCE], instance)
    created_anew = schedule_of(dt_created=JUNE_1 + timedelta(days=1))
    found = look([created_anew, HOURLY], instance, cursor=first.cursor)
    assert [request.run_key for request in found.run_requests] == [first_run_key(created_anew), first_run_key(HOURLY)]


def test_a_schedule_that_was_away_is_not_new(instance: dg.DagsterInstance) -> None:
    first = look([FINANCE], instance)
    away = look([HOURLY], instance, cursor=first.cursor)
    assert not look([FINANCE, HOURLY], instance, cursor=away.cursor).run_requests


def test_a_schedule_of_the_future_waits_for_its_moment(instance: dg.DagsterInstance) -> None:
    before = look([LATER], instance)
    assert not before.run_requests
    assert before.skip_message == "the first export of schedule 'later' is due at 2024-07-15 09:30 UTC."
    found = look([LATER], instance, now=LATER.dt_created + timedelta(seconds=29), cursor=before.cursor)
    (request,) = found.run_requests
    assert request.tags["m3ter/due"] == "2024-07-15T09:30:00+00:00"


def test_at_that_moment_the_sensor_alone_launches(instance: dg.DagsterInstance) -> None:
    assert not tick(LATER, LATER.dt_created, instance).run_requests
    assert len(look([LATER], instance, now=LATER.dt_created).run_requests) == 1


def test_the_sensor_is_on_from_the_start() -> None:
    sensor = definitions_of(FINANCE).resolve_sensor_def("first_exports")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING


def test_no_schedule_at_all(instance: dg.DagsterInstance) -> None:
    assert not look([], instance).run_requests


def test_a_code_of_any_characters(instance: dg.DagsterInstance) -> None:
    odd = schedule_of("Ü b/c," + "x" * 74)
    (request,) = look([odd], instance).run_requests
    assert request.tags["m3ter/schedule"] == odd.code


def test_a_schedule_that_is_switched_off_gets_its_first_export_once_it_is_on(instance: dg.DagsterInstance) -> None:
    switch(instance, InstigatorStatus.STOPPED, "finance")
    first = look([FINANCE, HOURLY], instance)
    assert [request.job_name for request in first.run_requests] == ["export_hour_ly"]
    switch(instance, InstigatorStatus.RUNNING, "finance")
    second = look([FINANCE, HOURLY], instance, cursor=first.cursor)
    assert [request.job_name for request in second.run_requests] == ["export_finance"]


def test_a_usage_schedule_has_a_job_of_its_asset_and_its_choice(instance: dg.DagsterInstance) -> None:
    values = {"destinations": ["warehouse"], "schedule_type": "DAY", "period": 1, "dt_created": JUNE_1}
    aggregations = [{"meter_id": "m-1", "field_code": "gb", "function": "SUM"}]
    raw = UsageSchedule(code="raw", source_type="USAGE", time_period="TODAY", account_ids=["a-1"], **values)
    weekly = UsageSchedule(
        code="weekly",
        source_type="USAGE",
        time_period="PREVIOUS_WEEK",
        aggregation_frequency="DAY",
        aggregations=aggregations,
        **values,
    )
    jobs = export_jobs([raw, weekly])
    schedules = export_schedules([raw, weekly], jobs, now=NOW)
    organization = Organization(settings=Settings(ConfigError("no credentials")))
    definitions = dg.Definitions(
        assets=[*usage_assets(), entity_asset(USAGE_MANIFEST)],
        asset_checks=usage_asset_checks(),
        jobs=list(jobs.values()),
        schedules=schedules,
        resources={
            IO_MANAGER: Destinations(destinations=["default"]),
            "organization": organization,
        },
    )
    (request,) = tick_of(schedules[0], JUNE_1 + timedelta(days=1), instance).run_requests
    assert request.run_config == {
        "ops": {"usage_raw": {"config": {"timePeriod": "TODAY", "accountIds": ["a-1"]}}},
        "resources": {IO_MANAGER: {"config": {"destinations": ["warehouse"]}}},
    }
    assert request.tags["m3ter/due"] == "2024-06-02T10:00:00+00:00"
    (request,) = tick_of(schedules[1], JUNE_1 + timedelta(days=1), instance).run_requests
    assert request.run_config["ops"]["usage_aggregated"]["config"] == {
        "timePeriod": "PREVIOUS_WEEK",
        "aggregationFrequency": "DAY",
        "aggregations": [{"meterId": "m-1", "fieldCode": "gb", "fieldType": "MEASURE", "function": "SUM"}],
    }
    job = definitions.resolve_job_def("export_weekly")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {
        "usage_aggregated",
        USAGE_MANIFEST,
    }
    assert [one.description for one in schedules] == [
        "raw: every day since 2024-06-01 10:00 UTC, measurements raw of TODAY to warehouse",
        "weekly: every day since 2024-06-01 10:00 UTC, measurements by day of PREVIOUS_WEEK to warehouse",
    ]
