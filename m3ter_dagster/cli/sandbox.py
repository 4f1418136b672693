"""The sandbox and the demo. Only these commands need the `sandbox` extra (flask, moto)."""

from __future__ import annotations

from collections.abc import Sequence

import click

accounts_option = click.option("--accounts", default=60, show_default=True, help="Size of the sample organization.")


@click.command(context_settings={"ignore_unknown_options": True})
@accounts_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def sandbox(accounts: int, command: Sequence[str]) -> None:
    """Run a sample m3ter organization and a sample S3, until stopped or while COMMAND runs."""
    from m3ter_sandbox.serving import serve

    raise SystemExit(serve(accounts, command))


@click.command()
@accounts_option
@click.option("--output", default="demo-output", show_default=True, help="Folder for copies of the delivered files.")
def demo(accounts: int, output: str) -> None:
    """Export the sample organization to the sample S3, all through Dagster."""
    from m3ter_sandbox.demo import run_demo

    raise SystemExit(run_demo(accounts, output))
