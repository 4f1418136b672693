"""m3ter-dagster jobs: past exports, one line each, with their latest state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from m3ter_dagster.cli.export import find_schedule
from m3ter_dagster.cli.instance import open_instance
from m3ter_dagster.cli.organization import Chosen, chosen, chosen_to_look, organization_option
from m3ter_dagster.cli.terminal import as_json, moment_text, print_json, print_table, printable, short

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from m3ter_dagster.history.jobs import ExportJob, Status

COLUMNS = ("export", "schedule", "due or started (UTC)", "took", "status", "delivered", "rows", "to")
MOST = 1_000_000
STATUSES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED")


@click.command()
@click.argument("export_id", metavar="[EXPORT]", required=False)
@click.option("--schedule", "code", metavar="CODE", help="Only exports of this Export Schedule.")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only exports in this state.")
@click.option("--limit", type=click.IntRange(1, MOST), default=20, show_default=True, help="The most exports to list.")
@organization_option
@as_json
def jobs(
    export_id: str | None,
    code: str | None,
    status: Status | None,
    limit: int,
    organization: str | None,
    as_json: bool,
) -> None:
    """List the last exports of the Organization, or EXPORT alone: when they ran, how they went, and why they failed.

    EXPORT is the id of one of its runs, or how that starts.
    """
    from m3ter_dagster.history.jobs import read_export_jobs, runs_of_others, with_rows

    if export_id is not None and (code is not None or status is not None):
        raise click.UsageError("one export is named by its id alone; leave out --schedule and --status.")
    of = chosen_to_look(organization)
    org_id, names = of.org_id, of.names
    with open_instance(looks_back=True) as instance:
        found = (
            read_export_jobs(instance, org_id=org_id, schedule=code, status=status, limit=limit, names=names)
            if export_id is None
            else _export_named(instance, export_id, of)
        )
        counted = with_rows(instance, found, names)
        others = runs_of_others(instance, org_id)
    if others and export_id is None:
        click.echo(f"{others} runs of Organizations other than {org_id} are not shown.", err=True)
    if not counted and code is not None:
        find_schedule(chosen(organization)[0], code)
    if as_json:
        print_json(counted)
    elif counted:
        _print(counted)
    else:
        click.echo("no such export jobs." if code or status or export_id else "no export jobs yet.")


def _export_named(instance: DagsterInstance, id: str, of: Chosen) -> list[ExportJob]:
    from m3ter_dagster.history.jobs import export_job
    from m3ter_dagster.history.log import NoSuchRun, run_named

    try:
        job = export_job(instance, run_named(instance, id), of.names)
    except NoSuchRun as error:
        raise click.UsageError(str(error)) from None
    return [job] if job else []


def _print(jobs: Sequence[ExportJob]) -> None:
    """The table, and below it why exports failed: the first line, or all of it where it is about one export."""
    print_table(COLUMNS, map(_row, jobs))
    for one in jobs:
        lines = one.error.splitlines()
        for line in lines if len(jobs) == 1 else lines[:1]:
            click.echo(printable(f"{short(one.id)} failed: {line}" if line is lines[0] else line))


def _row(job: ExportJob) -> tuple[str, ...]:
    count = len(job.delivered)
    return (
        short(job.id),
        job.schedule or "",
        moment_text(job.due or job.started),
        "" if job.seconds is None else str(timedelta(seconds=round(job.seconds))),
        job.status,
        f"{count} of {count + len(job.failed)}" if job.failed else str(count),
        "" if job.rows is None else f"{job.rows:,}",
        ", ".join(job.destinations),
    )
