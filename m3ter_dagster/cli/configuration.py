"""exports.yaml: whether it is right, its JSON Schema, and one made from m3ter's hosted exports."""

from __future__ import annotations

import json
import threading

import click

from m3ter_dagster.cli.terminal import configured, connection
from m3ter_dagster.config import (
    exports_json_schema,
    exports_path,
    home_warning,
    load_exports,
    load_m3ter_settings,
    load_settings,
    pace_folder,
)
from m3ter_dagster.delivery.signatures import signer_of
from m3ter_dagster.model.entities import entities


@click.command()
@click.option("--without-environment", is_flag=True, help="Leave out the M3TER_* variables.")
@click.option("--connect", is_flag=True, help="Also try m3ter's lists and every destination.")
@click.option("--notify", is_flag=True, help="With --connect: also send the webhook a message.")
def check(without_environment: bool, connect: bool, notify: bool) -> None:
    """Validate exports.yaml, the environment and the descriptors in schemas/.

    With --connect, m3ter is asked for a token and a row of each list that the schedules read (without schedules: of
    all), and an object is written to each destination, read and removed. Exit code 1 if anything of that fails.
    """
    if notify and not connect:
        raise click.UsageError("--notify sends a message through the webhook; give --connect with it.")
    if connect and without_environment:
        raise click.UsageError("--connect needs the environment; leave out --without-environment.")
    warning = home_warning()
    known = configured(entities)
    click.echo(f"schemas/: {len(known)} entities, {sum(len(one.columns) for one in known.values())} columns")
    exports = configured(load_exports)
    click.echo(f"{exports_path()}: {len(exports.destinations)} destinations, {len(exports.schedules)} schedules")
    if not without_environment:
        settings = configured(connection)
        click.echo(f"environment: Organization {settings.org_id} at {settings.base_url}")
        if signer := configured(lambda: signer_of(load_settings())):
            click.echo(f"manifests are signed with the key {signer.fingerprint}")
        if warning:
            click.echo(f"Warning: {warning}", err=True)
        if connect:
            from m3ter_dagster.cli.connections import print_connections

            raise SystemExit(print_connections(settings, exports, notify=notify))


@click.command()
def schema() -> None:
    """Print the JSON Schema of exports.yaml, for editors (docs/exports.schema.json)."""
    click.echo(json.dumps(exports_json_schema(), indent=2))


@click.command()
def pull() -> None:
    """Print the Organization's existing destinations and schedules in m3ter as an exports.yaml."""
    from m3ter_dagster.cli.exports_yaml import exports_yaml
    from m3ter_dagster.cli.hosted_exports import destination_items, schedule_items
    from m3ter_dagster.m3ter.client import open_client
    from m3ter_dagster.m3ter.data_exports import read_data_exports
    from m3ter_dagster.m3ter.errors import M3terError

    settings = configured(load_m3ter_settings)
    try:
        found = read_data_exports(open_client(settings, stop=threading.Event(), pace_folder=pace_folder()))
    except M3terError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    destinations = destination_items(found.destinations)
    schedules = schedule_items(found.schedules, destinations)
    click.echo(exports_yaml(settings.org_id, destinations.values(), schedules), nl=False)
    usable = [sum(item.is_usable for item in items) for items in (destinations.values(), schedules)]
    click.echo(
        f"{usable[0]} of {len(destinations)} destinations and {usable[1]} of {len(schedules)} schedules are carried "
        "over; comments say what is different.",
        err=True,
    )
    if not usable[0]:
        click.echo("exports.yaml needs a destination before it can be used; write one.", err=True)
        raise SystemExit(1)
