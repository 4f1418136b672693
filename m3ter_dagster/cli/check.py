"""Whether the configuration is right, before Dagster is asked to use it."""

from __future__ import annotations

import json

import click

from m3ter_dagster.cli.wrong_use import configured
from m3ter_dagster.config import exports_json_schema, exports_path, load_exports, load_m3ter_settings
from m3ter_dagster.model.entities import entities


@click.command()
@click.option("--without-environment", is_flag=True, help="Leave out the M3TER_* variables.")
def check(without_environment: bool) -> None:
    """Validate exports.yaml, the environment and the descriptors in schemas/."""
    known = configured(entities)
    click.echo(f"schemas/: {len(known)} entities, {sum(len(one.columns) for one in known.values())} columns")
    exports = configured(load_exports)
    click.echo(f"{exports_path()}: {len(exports.destinations)} destinations, {len(exports.schedules)} schedules")
    if not without_environment:
        settings = configured(load_m3ter_settings)
        click.echo(f"environment: Organization {settings.org_id} at {settings.base_url}")


@click.command()
def schema() -> None:
    """Print the JSON Schema of exports.yaml, for editors (docs/exports.schema.json)."""
    click.echo(json.dumps(exports_json_schema(), indent=2))
