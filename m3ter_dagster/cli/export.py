"""m3ter-dagster export: an export now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

import click

from m3ter_dagster.cli.instance import open_instance
from m3ter_dagster.cli.organization import Chosen, chosen, organization_option
from m3ter_dagster.cli.terminal import (
    as_json,
    listed,
    open_console,
    print_json,
    with_objects,
)
from m3ter_dagster.config import AnySchedule, Exports, UsageSchedule
from m3ter_dagster.config.data_types import SETS
from m3ter_dagster.config.names import ALL
from m3ter_dagster.model.entities import UnknownEntity, find_entity
from m3ter_dagster.model.suggestions import known_names
from m3ter_dagster.model.time_periods import window_of

if TYPE_CHECKING:
    from rich.console import Console

    from m3ter_dagster.history.progress import RunResult
    from m3ter_dagster.runs import UsageRun


@click.command()
@click.option(
    "--entities", "names", metavar="NAMES", help="Comma-separated: account,BILLS,...; ALL_AND_REFERENCES. Default: ALL."
)
@click.option("--destinations", "codes", metavar="CODES", help="Comma-separated. Default: defaultDestinations.")
@click.option("--schedule", "code", metavar="CODE", help="The Export Schedule whose entities to export now.")
@click.option("--from", "start", metavar="TIME", help="With --schedule of usage: the start, such as 2024-06-01.")
@click.option("--to", "end", metavar="TIME", help="With --schedule of usage: the end. Times without a zone are UTC.")
@click.option("--resume", "run_id", metavar="RUN_ID", help="Complete the failed export of this run.")
@click.option("--abandoned", is_flag=True, help="With --resume: the run's process has died.")
@organization_option
@with_objects
@as_json
@click.option("--verbose", is_flag=True, help="Show Dagster's own log.")
def export(
    names: str | None,
    codes: str | None,
    code: str | None,
    start: str | None,
    end: str | None,
    run_id: str | None,
    abandoned: bool,
    organization: str | None,
    with_objects: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Export entities to destinations now; exit code 0 only if all was delivered."""
    exports, of = chosen(organization)
    _refuse_together(names, codes, code, start, end, run_id, abandoned)
    console = open_console(stderr=as_json)
    if run_id is not None:
        of.connection()
        result = resume_export(console, of, run_id, abandoned=abandoned)
    elif code is not None:
        schedule = find_schedule(exports, code)
        window = _window(schedule, start, end)
        of.connection()
        result = run_schedule(console, of, schedule, verbose=verbose, window=window)
    else:
        known = [one.code for one in exports.destinations]
        destinations = _destinations(codes, known) if codes is not None else list(exports.default_destinations)
        entities = chosen_entities(names)
        of.connection()
        result = run_export(console, of, entities, destinations, verbose=verbose)
    show_result(console, result, with_objects=with_objects, as_json=as_json)
    raise SystemExit(0 if result.is_complete else 1)


def _refuse_together(
    names: str | None,
    codes: str | None,
    code: str | None,
    start: str | None,
    end: str | None,
    run_id: str | None,
    abandoned: bool,
) -> None:
    """Options that say the opposite of each other are wrong use."""
    if code is None and (start is not None or end is not None):
        raise click.UsageError("--from and --to need a usage schedule; name it with --schedule.")
    if abandoned and run_id is None:
        raise click.UsageError("--abandoned says that the run of --resume has died; give --resume RUN_ID with it.")
    if run_id is not None and (names is not None or codes is not None or code is not None):
        raise click.UsageError(
            "--resume completes what its export began; leave out --entities, --destinations and --schedule."
        )
    if code is not None and (names is not None or codes is not None):
        raise click.UsageError(
            "--schedule brings its own entities and destinations; leave out --entities and --destinations."
        )


def run_schedule(
    console: Console,
    of: Chosen,
    schedule: AnySchedule,
    *,
    verbose: bool = False,
    window: Mapping[str, str] = MappingProxyType({}),
) -> RunResult:
    """Run an export of the schedule as if it were due now."""
    from m3ter_dagster.history.log import DUE_TAG
    from m3ter_dagster.runs import usage_run
    from m3ter_dagster.schedules import tags_of

    now = datetime.now(UTC).replace(microsecond=0)
    tags = {**tags_of(schedule, of.names), DUE_TAG: now.isoformat()}
    usage = usage_run(schedule, window, of.names) if isinstance(schedule, UsageSchedule) else None
    names, to = schedule.asset_names, schedule.destinations
    return run_export(console, of, names, to, verbose=verbose, tags=tags, usage=usage)


def run_export(
    console: Console,
    of: Chosen,
    entities: Sequence[str],
    destinations: Sequence[str],
    *,
    verbose: bool = False,
    tags: Mapping[str, str] | None = None,
    usage: UsageRun | None = None,
) -> RunResult:
    """Run the export job in this process and show its progress."""
    from m3ter_dagster.cli.progress import progress
    from m3ter_dagster.runs import export_now

    with open_instance() as instance, progress(console) as changed:
        return export_now(
            *(instance, entities, destinations),
            verbose=verbose,
            changed=changed,
            tags=tags,
            usage=usage,
            names=of.names,
        )


def resume_export(console: Console, of: Chosen, run_id: str, *, abandoned: bool) -> RunResult:
    """Run what is missing from an export and show its progress."""
    from m3ter_dagster.cli.progress import progress
    from m3ter_dagster.runs import NothingToResume, resume

    try:
        with open_instance() as instance, progress(console) as changed:
            return resume(instance, run_id, org_id=of.org_id, abandoned=abandoned, changed=changed, names=of.names)
    except NothingToResume as nothing:
        raise click.UsageError(f"--resume: {nothing}") from None


def show_result(console: Console, result: RunResult, *, with_objects: bool, as_json: bool) -> None:
    from m3ter_dagster.cli.progress import print_result

    if as_json:
        print_json(result)
    else:
        print_result(console, result, with_objects=with_objects)


def find_schedule(exports: Exports, code: str) -> AnySchedule:
    """The schedule of this code, or the end of the command with the codes that there are."""
    by_code = {one.code: one for one in exports.schedules}
    if code not in by_code:
        known = known_names(code, by_code) if by_code else "exports.yaml has no schedules."
        raise click.UsageError(f"--schedule: there is no schedule {code!r}; {known}")
    return by_code[code]


def _window(schedule: AnySchedule, start: str | None, end: str | None) -> dict[str, str]:
    """The given ends of the window, by m3ter's names; the schedule's time period stands in for the others."""
    given = {"startDate": ("--from", start), "endDate": ("--to", end)}
    window = {name: _moment(option, text) for name, (option, text) in given.items() if text is not None}
    if not isinstance(schedule, UsageSchedule):
        if window:
            raise click.UsageError(
                f"--from and --to are for usage schedules; schedule {schedule.code!r} exports operational data."
            )
        return {}
    usual = window_of(schedule.time_period, datetime.now(UTC))
    begins, ends = window.get("startDate", usual.start), window.get("endDate", usual.end)
    if begins > ends:
        raise click.UsageError(
            f"the window would begin at {begins} and end at {ends}; give both --from and --to, the earlier first."
        )
    return {name: moment.isoformat() for name, moment in window.items()}


def _moment(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (OverflowError, ValueError):  # the first is for times whose year in UTC is 0 or 10000
        raise click.UsageError(
            f"{option}: {text!r} is no time; write one such as 2024-06-01 or 2024-06-01T10:00:00Z."
        ) from None


def chosen_entities(names: str | None) -> list[str]:
    """The entities that --entities names; without it ALL."""
    if names is None or names in SETS:
        return list(SETS[names or ALL]())
    try:
        return list(dict.fromkeys(find_entity(name).name for name in listed("--entities", names)))
    except UnknownEntity as error:
        raise click.UsageError(f"--entities: {error}") from None


def _destinations(codes: str, known: Sequence[str]) -> list[str]:
    chosen = listed("--destinations", codes)
    for code in chosen:
        if code not in known:
            raise click.UsageError(f"--destinations: there is no destination {code!r}; {known_names(code, known)}")
    return chosen
