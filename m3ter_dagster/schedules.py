"""Export Schedules in Dagster: a job and a schedule for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg

from m3ter_dagster.assets.usage_config import usage_ops
from m3ter_dagster.config import AnySchedule, UsageSchedule
from m3ter_dagster.config.data_types import set_named
from m3ter_dagster.config.names import DUE_EXPORTS
from m3ter_dagster.dagster_internals import AssetJob
from m3ter_dagster.history.log import DEFINITION_TAG, DESTINATIONS_TAG, DUE_TAG, MANIFEST, SCHEDULE_TAG, USAGE_MANIFEST
from m3ter_dagster.history.retries import RETRIED_ONCE
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.resources import IO_MANAGER

PUNCTUAL = timedelta(minutes=5)
"""For so long after a due time the schedule itself launches the export, then only the sensor of due exports.

A first export launched within this time of its dtCreated was waited for, so it is due at dtCreated.
"""
_DUE_TIMES = 3

Jobs = Mapping[str, AssetJob]
"""The job of each schedule by its code: built once, since Dagster does not see that two equal jobs are one."""
Clock = Callable[[], datetime]
utc_now: Clock = partial(datetime.now, UTC)


def export_jobs(schedules: Sequence[AnySchedule], *, banner: str = "", names: Names = DEFAULT) -> Jobs:
    """A job per schedule. Launched by hand, it delivers to the schedule's destinations as well."""
    return {
        schedule.code: dg.define_asset_job(
            names.own(schedule.job_name),
            selection=export_selection(schedule, names),
            config=_run_config(schedule, names),
            tags=tags_of(schedule, names),
            metadata=_metadata(schedule),
            description=banner + _description(schedule),
        )
        for schedule in schedules
    }


def export_selection(schedule: AnySchedule, names: Names = DEFAULT) -> dg.AssetSelection:
    """The assets of an export, the manifest last."""
    manifest = USAGE_MANIFEST if isinstance(schedule, UsageSchedule) else MANIFEST
    return dg.AssetSelection.assets(*map(names.key, (*schedule.asset_names, manifest)))


def export_schedules(
    schedules: Sequence[AnySchedule],
    jobs: Jobs,
    *,
    clock: Clock = utc_now,
    banner: str = "",
    names: Names = DEFAULT,
) -> list[dg.ScheduleDefinition]:
    """A Dagster schedule per Export Schedule.

    Some cron lines are right for weeks only. Of due times after that, and of all others that a schedule does not launch
    in time, the sensor of due exports takes care.
    """
    return [_schedule(schedule, jobs[schedule.code], clock, banner, names) for schedule in schedules]


def _schedule(schedule: AnySchedule, job: AssetJob, clock: Clock, banner: str, names: Names) -> dg.ScheduleDefinition:
    now = clock().astimezone(UTC)
    # Restarts change the lines once a week only: Dagster takes other lines for another schedule.
    last_monday = now - timedelta(days=now.weekday() + 7)
    lines = schedule.cadence.cron_lines(last_monday.replace(hour=0, minute=0, second=0, microsecond=0))

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time
        reason = _reason_to_skip(schedule, tick, clock(), names.own(DUE_EXPORTS))
        return dg.SkipReason(reason) if reason else export_request(schedule, tick, names=names)

    return dg.ScheduleDefinition(
        name=names.own(schedule.dagster_name),
        job=job,
        cron_schedule=lines[0] if len(lines) == 1 else lines,
        execution_fn=evaluate,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        metadata=_metadata(schedule),
        description=f"{banner}{_description(schedule)}. {_next_due(schedule, now)}",
    )


def _reason_to_skip(schedule: AnySchedule, tick: datetime, now: datetime, sensor: str) -> str | None:
    """Why no export is launched at this tick, or None. The cron lines may have more ticks than there are due times."""
    cadence = schedule.cadence
    if tick == cadence.anchor:
        return f"the first export of schedule {schedule.code!r} is launched by the sensor {sensor}."
    if cadence.is_due(tick):
        missed = f"this tick comes late; the sensor {sensor} makes up for exports that were missed."
        return None if now < tick + PUNCTUAL else missed
    due = cadence.next_due(tick)
    return f"schedule {schedule.code!r} runs {cadence.words()}; it is next due at {due:%Y-%m-%d %H:%M} UTC."


def export_request(
    schedule: AnySchedule,
    due: datetime,
    *,
    run_key: str | None = None,
    job_name: str | None = None,
    names: Names = DEFAULT,
) -> dg.RunRequest:
    """The run that makes the schedule's export for a due time."""
    return dg.RunRequest(
        run_key=run_key,
        job_name=job_name,
        run_config=_run_config(schedule, names),
        tags=tags_of(schedule, names) | RETRIED_ONCE | {DUE_TAG: due.astimezone(UTC).isoformat()},
    )


def _run_config(schedule: AnySchedule, names: Names) -> dict[str, Any]:
    destinations = {"resources": {names.own(IO_MANAGER): {"config": {"destinations": list(schedule.destinations)}}}}
    return destinations | ({"ops": usage_ops(schedule, names=names)} if isinstance(schedule, UsageSchedule) else {})


def tags_of(schedule: AnySchedule, names: Names = DEFAULT) -> dict[str, str]:
    """Of the runs that export for the schedule."""
    return {
        SCHEDULE_TAG: names.schedule(schedule.code),
        DEFINITION_TAG: schedule.definition,
        DESTINATIONS_TAG: ",".join(schedule.destinations),
    }


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


def _next_due(schedule: AnySchedule, now: datetime) -> str:
    """The next due times with the moment at which they were the next: a description stays as it was loaded."""
    times = ", ".join(f"{due:%Y-%m-%d %H:%M}" for due in schedule.cadence.due_times(now, _DUE_TIMES))
    return f"Next due when this was loaded ({now:%Y-%m-%d %H:%M}): {times} UTC"


def _what(schedule: AnySchedule) -> str:
    if isinstance(schedule, UsageSchedule):
        how = "raw" if schedule.is_raw else f"by {schedule.aggregation_frequency.lower()}"
        return f"measurements {how} of {schedule.time_period}"
    names = schedule.asset_names
    return f"all {len(names)} entities" if set_named(names) else ", ".join(names)
