"""m3ter-dagster: the exports from a terminal. Exit codes: 0 success, 1 something failed, 2 wrong use."""

from __future__ import annotations

import atexit
import gc

import click

from m3ter_dagster.cli.configuration import check, pull, schema
from m3ter_dagster.cli.downstream import data_contract, dbt_sources
from m3ter_dagster.cli.edit import destination, schedule
from m3ter_dagster.cli.export import export
from m3ter_dagster.cli.jobs import jobs
from m3ter_dagster.cli.plan import plan
from m3ter_dagster.cli.project import init, ui
from m3ter_dagster.cli.prune import prune
from m3ter_dagster.cli.sandbox import demo, sandbox
from m3ter_dagster.cli.schedules import schedules
from m3ter_dagster.cli.terminal import configured
from m3ter_dagster.cli.verify import verify
from m3ter_dagster.config import read_env_file

OF_THE_SANDBOX = (sandbox, demo)
"""Commands that are to find nothing of a person's own m3ter."""


def run() -> None:
    """A process that is nothing but this command.

    What it imports lives until it ends, so looking for garbage among a million objects again and again, and at the end
    of the process once more, would only cost time: a quarter of the CPU time of an export of nothing.
    """
    gc.set_threshold(50_000, 20, 50)
    atexit.register(gc.freeze)
    main()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="m3ter-dagster")
@click.pass_context
def main(context: click.Context) -> None:
    """m3ter's Operational Data Export, run by you. Variables that the environment lacks are read from .env here."""
    if context.invoked_subcommand not in [one.name for one in OF_THE_SANDBOX]:
        configured(read_env_file)


OF_EXPORTS_YAML = (init, check, schedules, schedule, destination, pull, schema)
OF_SCHEMAS = (dbt_sources, data_contract)
for command in (*OF_EXPORTS_YAML, plan, export, ui, jobs, prune, verify, *OF_SCHEMAS, *OF_THE_SANDBOX):
    main.add_command(command)
