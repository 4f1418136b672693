"""m3ter-dagster plan: what an export would ask for, take and write, by what the last ones took."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec
from rich.filesize import decimal

from m3ter_dagster.cli.export import chosen_entities, find_schedule
from m3ter_dagster.cli.instance import open_instance
from m3ter_dagster.cli.organization import Chosen, chosen, organization_option
from m3ter_dagster.cli.terminal import as_json, moment_text, print_json, print_table, with_objects
from m3ter_dagster.config import (
    AnySchedule,
    Exports,
    ExportSchedule,
    LocalDestination,
    M3terSettings,
    Settings,
    UsageSchedule,
)
from m3ter_dagster.delivery.local import address_of
from m3ter_dagster.model import manifest
from m3ter_dagster.model.changes import changes_type
from m3ter_dagster.model.exports import Export, object_key
from m3ter_dagster.usage.columns import TYPE as MEASUREMENTS

if TYPE_CHECKING:
    from m3ter_dagster.history.plans import PlannedEntity

COLUMNS = ("entity", "rows", "pages", "requests", "size", "seconds", "last exported (UTC)")
EXPORT_ID, ORG_ID = "{exportId}", "{orgId}"
"""What is not known yet in the addresses of objects."""


class Plan(msgspec.Struct, frozen=True, rename="camel"):
    """What an export would take."""

    schedule: str | None
    due: datetime
    """The next due time of the schedule; without one, now."""
    destinations: list[str]
    entities: list[PlannedEntity]
    read_besides: list[PlannedEntity]
    """Lists that are only read, for the ids in them."""
    requests: int
    """The known ones."""
    requests_per_second: float
    seconds_at_the_pace: float
    """The least that the known requests take."""
    bytes: int
    """Of all known files in all destinations."""
    unknown: list[str]
    """Entities of which nothing is known, since they were never exported."""
    objects: list[str]
    """The addresses of all files for people and programs; {exportId} is known when the export starts."""


@click.command()
@click.option(
    "--entities", "names", metavar="NAMES", help="Comma-separated: account,BILLS,...; ALL_AND_REFERENCES. Default: ALL."
)
@click.option("--schedule", "code", metavar="CODE", help="The Export Schedule whose next export it is about.")
@organization_option
@with_objects
@as_json
def plan(names: str | None, code: str | None, organization: str | None, with_objects: bool, as_json: bool) -> None:
    """Say what an export would take, by what the last one of each entity took.

    m3ter is not asked, and nothing is written.
    """
    if names is not None and code is not None:
        raise click.UsageError("--schedule brings its own entities; leave out --entities.")
    exports, of = chosen(organization)
    schedule = find_schedule(exports, code) if code is not None else None
    found = _plan(exports, of, schedule, schedule.asset_names if schedule else chosen_entities(names))
    if as_json:
        print_json(found)
    else:
        _print(found, with_objects=with_objects)


def _plan(exports: Exports, of: Chosen, schedule: AnySchedule | None, assets: Sequence[str]) -> Plan:
    from m3ter_dagster.history.plans import planned_entities, read_besides, requests_of

    org_id, settings, now = of.org_id, of.settings(), datetime.now(UTC).replace(microsecond=0)
    with open_instance(looks_back=True) as instance:
        planned = planned_entities(instance, assets, org_id, schedule, of.names)
        besides = planned_entities(instance, read_besides(assets), org_id, names=of.names)
    due = next(iter(schedule.cadence.due_times(now, 1))) if schedule else now
    to = schedule.destinations if schedule else exports.default_destinations
    requests, pace = requests_of([*planned, *besides]), _pace(settings)
    export, is_signed = Export(EXPORT_ID, org_id or ORG_ID, due), bool(settings.signing_key)
    return Plan(
        schedule=schedule.code if schedule else None,
        due=due,
        destinations=list(to),
        entities=planned,
        read_besides=besides,
        requests=requests,
        requests_per_second=pace,
        seconds_at_the_pace=round(requests / pace, 1),
        bytes=sum(one.bytes or 0 for one in planned) * len(to),
        unknown=[one.entity for one in (*planned, *besides) if one.rows is None],
        objects=list(_objects(exports, schedule, assets, to, export, is_signed=is_signed)),
    )


def _pace(settings: Settings) -> float:
    """The pace of the settings or, without credentials in them, the usual one."""
    if isinstance(settings.organization, M3terSettings):
        return settings.organization.requests_per_second
    return M3terSettings.model_fields["requests_per_second"].default


def _objects(
    exports: Exports,
    schedule: AnySchedule | None,
    names: Sequence[str],
    to: Sequence[str],
    export: Export,
    *,
    is_signed: bool,
) -> Iterator[str]:
    from m3ter_dagster.delivery.destinations import SIGNATURE
    from m3ter_dagster.frames.formats import format_for

    written = format_for(schedule or exports, exports).suffix
    types = [(MEASUREMENTS if isinstance(schedule, UsageSchedule) else name, written) for name in names]
    if isinstance(schedule, ExportSchedule) and schedule.changes:
        types += [(changes_type(name), written) for name in names]
    if is_signed:
        types.append((manifest.TYPE, SIGNATURE.suffix))
    for code in to:
        one = exports.destination(code)
        for type, suffix in (*types, (manifest.TYPE, "json")):
            key = object_key(export, type, prefix=one.prefix, partition_order=one.partition_order, suffix=suffix)
            yield (
                address_of(one.path / key)
                if isinstance(one, LocalDestination)
                else f"{one.scheme}://{one.bucket_name}/{key}"
            )


def _print(found: Plan, *, with_objects: bool) -> None:
    print_table(COLUMNS, map(_row, (*found.entities, *found.read_besides)))
    what = f"schedule {found.schedule}, next due {moment_text(found.due)} UTC" if found.schedule else "an export now"
    least = "" if all(one.requests is not None for one in (*found.entities, *found.read_besides)) else "at least "
    pace = f"{found.seconds_at_the_pace:,} s at {found.requests_per_second:g} a second"
    to = f"{decimal(found.bytes)} to {', '.join(found.destinations)}"
    click.echo(f"\n{what}: {least}{found.requests:,} requests, {pace}, {to}")
    if found.read_besides:
        click.echo(f"only read, for the ids in it: {', '.join(one.entity for one in found.read_besides)}")
    if found.unknown:
        click.echo(f"never exported, so unknown: {', '.join(found.unknown)}")
    for one in found.entities:
        if one.saved_by_reuse is not None:
            click.echo(f"reuse: saves {one.saved_by_reuse:,} requests of {one.entity}, but for every full export")
    for uri in found.objects:
        if with_objects or uri.endswith(".json"):
            click.echo(uri)


def _row(one: PlannedEntity) -> tuple[str, ...]:
    if one.rows is None:
        return (one.entity, "unknown", *[""] * 5)
    numbers = ("" if number is None else f"{number:,}" for number in (one.rows, one.pages, one.requests))
    return one.entity, *numbers, decimal(one.bytes or 0), f"{one.seconds:,}", moment_text(one.last_exported)
