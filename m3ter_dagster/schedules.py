"""Export Schedules in Dagster: a job and a schedule for each, and the sensor that launches their first exports."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from m3ter_dagster.assets.usage_config import usage_ops
from m3ter_dagster.config import AnySchedule, UsageSchedule
from m3ter_dagster.config.names import FIRST_EXPORTS
from m3ter_dagster.dagster_internals import AssetJob, is_temporary, switched_off_schedules
from m3ter_dagster.history.log import DESTINATIONS_TAG, DUE_TAG, MANIFEST, SCHEDULE_TAG, USAGE_MANIFEST
from m3ter_dagster.model.entities import entities
from m3ter_dagster.resources import IO_MANAGER

PUNCTUAL = timedelta(minutes=10)
"""A first export launched within this time of its dtCreated was waited for, so it is due at dtCreated."""
TEMPORARY = (
    "first exports wait: Dagster's home is temporary, so each start would make them again. Start `m3ter-dagster ui` "
    "instead, or set DAGSTER_HOME to a folder that is kept."
)

Jobs = Mapping[str, AssetJob]
"""The job of each schedule by its code: built once, since Dagster does not see that two equal jobs are one."""
Clock = Callable[[], datetime]


def export_jobs(schedules: Sequence[AnySchedule], *, banner: str = "") -> Jobs:
    """A job per schedule. Launched by hand, it delivers to the schedule's destinations as well."""
    return {
        schedule.code: dg.define_asset_job(
            schedule.job_name,
            selection=export_selection(schedule),
            config=_run_config(schedule),
            tags=_tags(schedule),
            metadata=_metadata(schedule),
            description=banner + _description(schedule),
        )
        for schedule in schedules
    }


def export_selection(schedule: AnySchedule) -> dg.AssetSelection:
    """The assets of an export, the manifest last."""
    manifest = USAGE_MANIFEST if isinstance(schedule, UsageSchedule) else MANIFEST
    return dg.AssetSelection.assets(*schedule.asset_names, manifest)


def export_schedules(
    schedules: Sequence[AnySchedule], jobs: Jobs, *, now: datetime, banner: str = ""
) -> list[dg.ScheduleDefinition]:
    """A Dagster schedule per Export Schedule.

    Cron lines know no year: they are right until eleven months after `now`, so the location must be reloaded by then.
    """
    return [_schedule(schedule, jobs[schedule.code], now, banner) for schedule in schedules]


def first_exports(schedules: Sequence[AnySchedule], jobs: Jobs, *, clock: Clock | None = None) -> dg.SensorDefinition:
    """The sensor that launches each schedule's first export: once per code and dtCreated, whatever restarts.

    A schedule that is switched off gets its first export when it is switched on.
    """
    read_clock = clock or partial(datetime.now, UTC)

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        if is_temporary(context.instance):
            return dg.SkipReason(TEMPORARY)
        now, launched = read_clock(), json.loads(context.cursor or "[]")
        off = switched_off_schedules(context.instance)
        on = [schedule for schedule in schedules if schedule.dagster_name not in off]
        new = [schedule for schedule in on if first_run_key(schedule) not in launched]
        ripe = [schedule for schedule in new if schedule.cadence.anchor <= now]
        return dg.SensorResult(
            run_requests=[_first_request(schedule, jobs, now) for schedule in ripe],
            skip_reason=None if ripe else _waiting(new),
            cursor=json.dumps([*launched, *map(first_run_key, ripe)]),
        )

    return dg.SensorDefinition(
        name=FIRST_EXPORTS,
        evaluation_fn=evaluate,
        jobs=list(jobs.values()) or None,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Launches the first export of each schedule: at once, or at its dtCreated if that is yet to come.",
    )


def first_run_key(schedule: AnySchedule) -> str:
    """The run key of a schedule's first export: Dagster never launches a second run for it."""
    return f"{schedule.code}:{schedule.cadence.anchor.isoformat()}"


def _schedule(schedule: AnySchedule, job: AssetJob, now: datetime, banner: str) -> dg.ScheduleDefinition:
    # From the first of last month: a due time missed since then is made up for, and restarts seldom change the lines.
    last_month = now.astimezone(UTC).replace(day=1) - timedelta(days=1)
    lines = schedule.cadence.cron_lines(last_month.replace(day=1, hour=0, minute=0, second=0, microsecond=0))

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        reason = _reason_to_skip(schedule, tick)
        return dg.SkipReason(reason) if reason else _request(schedule, tick)

    return dg.ScheduleDefinition(
        name=schedule.dagster_name,
        job=job,
        cron_schedule=lines[0] if len(lines) == 1 else lines,
        execution_fn=evaluate,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        metadata=_metadata(schedule),
        description=banner + _description(schedule),
    )


def _reason_to_skip(schedule: AnySchedule, tick: datetime) -> str | None:
    """Why no export is launched at this tick, or None. The cron lines have more ticks than there are due times."""
    cadence = schedule.cadence
    if tick == cadence.anchor:
        return f"the first export of schedule {schedule.code!r} is launched by the sensor {FIRST_EXPORTS}."
    if cadence.is_due(tick):
        return None
    due = cadence.next_due(tick)
    return f"schedule {schedule.code!r} runs {cadence.words()}; it is next due at {due:%Y-%m-%d %H:%M} UTC."


def _first_request(schedule: AnySchedule, jobs: Jobs, now: datetime) -> dg.RunRequest:
    """The run of a first export. It holds the data of now, so it is due now unless dtCreated has only just passed."""
    anchor = schedule.cadence.anchor
    due = anchor if now - anchor < PUNCTUAL else now.replace(microsecond=0)
    return _request(schedule, due, run_key=first_run_key(schedule), job_name=jobs[schedule.code].name)


def _request(
    schedule: AnySchedule, due: datetime, *, run_key: str | None = None, job_name: str | None = None
) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key,
        job_name=job_name,
        run_config=_run_config(schedule),
        tags=_tags(schedule) | {DUE_TAG: due.astimezone(UTC).isoformat()},
    )


def _waiting(new: Sequence[AnySchedule]) -> str:
    if not new:
        return "the first export of every schedule has been launched."
    first = min(new, key=lambda schedule: schedule.dt_created)
    return f"the first export of schedule {first.code!r} is due at {first.cadence.anchor:%Y-%m-%d %H:%M} UTC."


def _run_config(schedule: AnySchedule) -> dict[str, Any]:
    destinations = {"resources": {IO_MANAGER: {"config": {"destinations": list(schedule.destinations)}}}}
    return destinations | ({"ops": usage_ops(schedule)} if isinstance(schedule, UsageSchedule) else {})


def _tags(schedule: AnySchedule) -> dict[str, str]:
    return {SCHEDULE_TAG: schedule.code, DESTINATIONS_TAG: ",".join(schedule.destinations)}


def _metadata(schedule: AnySchedule) -> dict[str, str]:
    """What the pages of the job and the schedule list."""
    return {
        "schedule": schedule.name,
        "exported": schedule.cadence.words(),
        "data": _what(schedule),
        "destinations": ", ".join(schedule.destinations),
    }


def _description(schedule: AnySchedule) -> str:
    """The schedule in words: "Finance: every 5 days since 2024-06-01 10:00 UTC, account, bill to warehouse"."""
    what = _what(schedule)
    return f"{schedule.name}: {schedule.cadence.words()}, {what} to {', '.join(schedule.destinations)}"


def _what(schedule: AnySchedule) -> str:
    if isinstance(schedule, UsageSchedule):
        how = "raw" if schedule.is_raw else f"by {schedule.aggregation_frequency.lower()}"
        return f"measurements {how} of {schedule.time_period}"
    names = schedule.asset_names
    return f"all {len(names)} entities" if len(names) == len(entities()) else ", ".join(names)
