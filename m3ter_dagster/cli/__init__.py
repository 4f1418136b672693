"""m3ter-dagster: the exports from a terminal. Exit codes: 0 success, 1 something failed, 2 wrong use."""

from __future__ import annotations

import atexit
import gc

import click

from m3ter_dagster.cli.configuration import check, pull, schema
from m3ter_dagster.cli.export import export
from m3ter_dagster.cli.jobs import jobs
from m3ter_dagster.cli.prune import prune
from m3ter_dagster.cli.sandbox import demo, sandbox
from m3ter_dagster.cli.schedules import schedules
from m3ter_dagster.cli.verify import verify


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
def main() -> None:
    """m3ter's Operational Data Export, run by you."""


for command in (export, schedules, jobs, prune, pull, check, schema, verify, sandbox, demo):
    main.add_command(command)
