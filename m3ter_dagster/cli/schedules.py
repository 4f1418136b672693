"""m3ter-dagster schedules: what they export, where and how often, the last export and the next due times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from m3ter_dagster.cli.instance import open_instance
from m3ter_dagster.cli.organization import chosen, organization_option
from m3ter_dagster.cli.terminal import as_json, moment_text, print_json, print_table
from m3ter_dagster.config import AnySchedule
from m3ter_dagster.config.data_types import set_named

if TYPE_CHECKING:
    from m3ter_dagster.history.jobs import ExportJob

COLUMNS = ("schedule", "exports", "to", "how often", "state", "last export (UTC)", "next due (UTC)")
DUE_TIMES = 3


class Scheduled(msgspec.Struct, frozen=True, rename="camel"):
    """An Export Schedule, its last export and its next due times."""

    schedule: str
    exports: list[str]
    destinations: list[str]
    how_often: str
    is_on: bool
    """Whether nobody has switched it off in Dagster."""
    last_export: ExportJob | None
    next_due: list[datetime]
    """None while it is off."""


@click.command()
@organization_option
@as_json
def schedules(organization: str | None, as_json: bool) -> None:
    """List the Export Schedules of exports.yaml, with the last export and the next due times of each."""
    exports, of = chosen(organization)
    if not exports.schedules and not as_json:
        click.echo("exports.yaml has no schedules.")
        return
    from m3ter_dagster.dagster_internals import switched_off_schedules
    from m3ter_dagster.history.jobs import last_export

    now = datetime.now(UTC)
    with open_instance(looks_back=True) as instance:
        off = switched_off_schedules(instance)
        org_id, names = of.org_id, of.names
        found = [
            _scheduled(
                one,
                last_export(instance, one.code, org_id, names),
                is_on=names.own(one.dagster_name) not in off,
                now=now,
            )
            for one in exports.schedules
        ]
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, map(_row, found))


def _scheduled(schedule: AnySchedule, last: ExportJob | None, *, is_on: bool, now: datetime) -> Scheduled:
    return Scheduled(
        schedule=schedule.code,
        exports=list(schedule.asset_names),
        destinations=list(schedule.destinations),
        how_often=schedule.cadence.words(),
        is_on=is_on,
        last_export=last,
        next_due=list(schedule.cadence.due_times(now, DUE_TIMES)) if is_on else [],
    )


def _row(one: Scheduled) -> tuple[str, ...]:
    last = one.last_export
    return (
        one.schedule,
        set_named(one.exports) or ", ".join(one.exports),
        ", ".join(one.destinations),
        one.how_often,
        "on" if one.is_on else "off",
        f"{last.status} {moment_text(last.finished or last.started or last.due)}".strip() if last else "none yet",
        ", ".join(f"{due:%Y-%m-%d %H:%M}" for due in one.next_due) if one.is_on else "none while off",
    )
