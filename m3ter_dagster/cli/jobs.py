"""m3ter-dagster jobs: past exports, one line each, with their latest state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from m3ter_dagster.cli.export import find_schedule
from m3ter_dagster.cli.instance import open_instance
from m3ter_dagster.cli.terminal import configured, moment_text, print_table
from m3ter_dagster.config import load_exports, organization_id

if TYPE_CHECKING:
    from m3ter_dagster.history.jobs import ExportJob, Status

COLUMNS = ("export", "schedule", "due (UTC)", "started", "finished", "status", "delivered", "failed")
MOST = 1_000_000
STATUSES = ("PENDING", "RUNNING", "SUCCEEDED", "FAILED")


@click.command()
@click.option("--schedule", "code", metavar="CODE", help="Only exports of this Export Schedule.")
@click.option("--status", type=click.Choice(STATUSES, case_sensitive=False), help="Only exports in this state.")
@click.option("--limit", type=click.IntRange(1, MOST), default=20, show_default=True, help="The most exports to list.")
def jobs(code: str | None, status: Status | None, limit: int) -> None:
    """List the last exports of the Organization: when they ran, how they went, and what was delivered."""
    from m3ter_dagster.history.jobs import read_export_jobs, runs_of_others

    org_id = organization_id()
    with open_instance() as instance:
        found = read_export_jobs(instance, org_id=org_id, schedule=code, status=status, limit=limit)
        others = runs_of_others(instance, org_id)
    if others:
        click.echo(f"{others} runs of Organizations other than {org_id} are not shown.", err=True)
    if not found and code is not None:
        find_schedule(configured(load_exports), code)
    if not found:
        click.echo("no such export jobs." if code or status else "no export jobs yet.")
        return
    print_table(COLUMNS, map(_row, found))


def _row(job: ExportJob) -> tuple[str, ...]:
    return (
        job.id,
        job.schedule or "",
        moment_text(job.due),
        moment_text(job.started),
        moment_text(job.finished),
        job.status,
        str(len(job.delivered)),
        f"{len(job.failed)}: {', '.join(job.failed)}" if job.failed else "0",
    )
