"""m3ter-dagster schedules: what they export, where and how often, the last export and the next due times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from m3ter_dagster.cli.instance import open_instance
from m3ter_dagster.cli.terminal import configured, moment_text, print_table
from m3ter_dagster.config import AnySchedule, load_exports, organization_id
from m3ter_dagster.model.entities import entities

if TYPE_CHECKING:
    from m3ter_dagster.history.jobs import ExportJob

COLUMNS = ("schedule", "exports", "to", "how often", "state", "last export (UTC)", "next due (UTC)")
DUE_TIMES = 3


@click.command()
def schedules() -> None:
    """List the Export Schedules of exports.yaml, with the last export and the next due times of each."""
    configured_schedules = configured(load_exports).schedules
    if not configured_schedules:
        click.echo("exports.yaml has no schedules.")
        return
    from m3ter_dagster.dagster_internals import switched_off_schedules
    from m3ter_dagster.history.jobs import last_export

    now = datetime.now(UTC)
    with open_instance() as instance:
        off = switched_off_schedules(instance)
        rows = [
            _row(one, last_export(instance, one.code, organization_id()), is_on=one.dagster_name not in off, now=now)
            for one in configured_schedules
        ]
    print_table(COLUMNS, rows)


def _row(schedule: AnySchedule, last: ExportJob | None, *, is_on: bool, now: datetime) -> tuple[str, ...]:
    cadence, names = schedule.cadence, schedule.asset_names
    return (
        schedule.code,
        "ALL" if len(names) == len(entities()) else ", ".join(names),
        ", ".join(schedule.destinations),
        cadence.words(),
        "on" if is_on else "off",
        f"{last.status} {moment_text(last.finished or last.started or last.due)}".strip() if last else "none yet",
        ", ".join(f"{due:%Y-%m-%d %H:%M}" for due in cadence.due_times(now, DUE_TIMES)) if is_on else "none while off",
    )
