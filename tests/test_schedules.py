from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sample_schedules import FINANCE, HOURLY, JUNE_1, NOW, schedule_of

from m3ter_dagster.assets.usage import usage_asset_checks, usage_assets
from m3ter_dagster.config import ConfigError, ExportSchedule, Settings, UsageSchedule
from m3ter_dagster.history.log import MANIFEST, USAGE_MANIFEST
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_dagster.resources import IO_MANAGER
from m3ter_dagster.resources.organization import Organization
from m3ter_dagster.schedules import PUNCTUAL, export_jobs, export_schedules

SECOND = timedelta(seconds=1)


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
        schedules=export_schedules(schedules, jobs, clock=lambda: now),
        resources={IO_MANAGER: Destinations(destinations=["default"])},
    )


def dagster_schedule(schedule: ExportSchedule, now: datetime = NOW) -> dg.ScheduleDefinition:
    found = definitions_of(schedule, now=now).resolve_schedule_def(schedule.dagster_name)
    assert isinstance(found, dg.ScheduleDefinition)
    return found


def tick(schedule: ExportSchedule, at: datetime, instance: dg.DagsterInstance, late: timedelta = SECOND) -> Any:
    return tick_of(dagster_schedule(schedule, at + late), at, instance)


def tick_of(schedule: dg.ScheduleDefinition, at: datetime, instance: dg.DagsterInstance) -> Any:
    with dg.build_schedule_context(instance=instance, scheduled_execution_time=at) as context:
        return schedule.evaluate_tick(context)


def test_a_schedule_in_dagster() -> None:
    schedule = dagster_schedule(FINANCE)
    assert (schedule.name, schedule.job.name) == ("finance", "export_finance")
    assert schedule.execution_timezone == "UTC"
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert schedule.description == (
        "Finance: every 5 days since 2024-06-01 10:00 UTC, account, bill to warehouse, archive. Next due when this was "
        "loaded (2024-07-15 08:30): 2024-07-16 10:00, 2024-07-21 10:00, 2024-07-26 10:00 UTC"
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


def test_a_restart_in_the_same_week_changes_no_line() -> None:
    monday, sunday = (dagster_schedule(FINANCE, NOW.replace(day=day)).cron_schedule for day in (15, 21))
    assert monday == sunday == ["0 10 11,16,21,26,31 7 *", "0 10 5,10 8 *"]


def test_seven_hours_are_a_line_per_day_of_the_week() -> None:
    lines = dagster_schedule(schedule_of(schedule_type="HOUR", period=7)).cron_schedule
    assert len(lines) == 7


def test_a_cron_expression_is_the_line() -> None:
    by_cron = schedule_of(schedule_type=None, period=None, cron_expression="0 8-18 * * MON-FRI")
    assert dagster_schedule(by_cron).cron_schedule == "0 8-18 * * MON-FRI"


def test_a_due_tick_launches_the_export(instance: dg.DagsterInstance) -> None:
    (request,) = tick(FINANCE, datetime(2024, 6, 6, 10, tzinfo=UTC), instance).run_requests
    assert request.run_config == CONFIG
    tags = {key: value for key, value in request.tags.items() if key != "dagster/schedule_name"}
    assert tags == {
        "dagster/max_retries": "1",
        "dagster/retry_on_asset_or_op_failure": "false",
        "m3ter/schedule": "finance",
        "m3ter/schedule_definition": FINANCE.definition,
        "m3ter/destinations": "warehouse,archive",
        "m3ter/due": "2024-06-06T10:00:00+00:00",
    }


def test_the_days_of_the_document(instance: dg.DagsterInstance) -> None:
    june = [JUNE_1.replace(day=day) for day in range(1, 31)]
    assert [at.day for at in june if tick(FINANCE, at, instance).run_requests] == [6, 11, 16, 21, 26]


def test_a_late_tick_is_left_to_the_sensor(instance: dg.DagsterInstance) -> None:
    """From the moment on at which the sensor may launch its export."""
    due = datetime(2024, 6, 6, 10, tzinfo=UTC)
    assert tick(FINANCE, due, instance, late=PUNCTUAL - SECOND).run_requests
    late = tick(FINANCE, due, instance, late=PUNCTUAL)
    assert not late.run_requests
    assert late.skip_message == "this tick comes late; the sensor due_exports makes up for exports that were missed."


@pytest.mark.parametrize(
    ("at", "words"),
    [
        (JUNE_1, "the first export of schedule 'finance' is launched by the sensor due_exports."),
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
    assert len(result.get_asset_materialization_events()) == len(operational_entities()) + 1
    assert result.dagster_run.tags["m3ter/due"] == "2024-06-01T11:00:00+00:00"


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
    schedules = export_schedules([raw, weekly], jobs, clock=lambda: JUNE_1 + timedelta(days=1, seconds=1))
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
    assert [str(one.description).split(". ")[0] for one in schedules] == [
        "raw: every day since 2024-06-01 10:00 UTC, measurements raw of TODAY to warehouse",
        "weekly: every day since 2024-06-01 10:00 UTC, measurements by day of PREVIOUS_WEEK to warehouse",
    ]
