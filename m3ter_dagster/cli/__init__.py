"""m3ter-dagster: the exports from a terminal. Exit codes: 0 success, 1 something failed, 2 wrong use."""

from __future__ import annotations

import click

from m3ter_dagster.cli.configuration import check, pull, schema
from m3ter_dagster.cli.export import export
from m3ter_dagster.cli.jobs import jobs
from m3ter_dagster.cli.sandbox import demo, sandbox
from m3ter_dagster.cli.schedules import schedules
from m3ter_dagster.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="m3ter-dagster")
def main() -> None:
    """m3ter's Operational Data Export, run by you."""


for command in (export, schedules, jobs, pull, check, schema, verify, sandbox, demo):
    main.add_command(command)
