"""exports.yaml: whether it is right, its JSON Schema, and one made from m3ter's hosted exports."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import msgspec

from m3ter_dagster.cli.organization import chosen, chosen_to_look, organization_option
from m3ter_dagster.cli.terminal import as_json, configured, print_json
from m3ter_dagster.config import (
    exports_json_schema,
    exports_path,
    home_warning,
    load_exports,
    pace_folder,
)
from m3ter_dagster.delivery.signatures import signer_of
from m3ter_dagster.model.entities import entities

if TYPE_CHECKING:
    from m3ter_dagster.cli.connections import Connection


class Checked(msgspec.Struct, frozen=True, rename="camel"):
    """A configuration that is right."""

    file: str
    destinations: int
    schedules: int
    entities: int
    """In schemas/."""
    columns: int
    org_id: str | None = None
    """None of these is known --without-environment."""
    base_url: str | None = None
    signed_by: str | None = None
    """The fingerprint of the key that signs manifests, if they are signed."""
    warning: str | None = None
    connections: Sequence[Connection] | None = None
    """What --connect tried."""


@click.command()
@click.option("--without-environment", is_flag=True, help="Leave out the M3TER_* variables.")
@click.option("--connect", is_flag=True, help="Also try m3ter's lists and every destination.")
@click.option("--notify", is_flag=True, help="With --connect: also send the webhook a message.")
@organization_option
@as_json
def check(without_environment: bool, connect: bool, notify: bool, organization: str | None, as_json: bool) -> None:
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
    columns = sum(len(one.columns) for one in known.values())
    click.echo(f"schemas/: {len(known)} entities, {columns} columns", err=as_json)
    exports = configured(load_exports)
    counts = f"{len(exports.destinations)} destinations, {len(exports.schedules)} schedules"
    click.echo(f"{exports_path()}: {counts}", err=as_json)
    found = Checked(str(exports_path()), len(exports.destinations), len(exports.schedules), len(known), columns)
    if not without_environment:
        found = _with_environment(found, organization, warning, connect=connect, notify=notify, as_json=as_json)
    if as_json:
        print_json(found)
    raise SystemExit(1 if any(one.fails for one in found.connections or ()) else 0)


def _with_environment(
    found: Checked, organization: str | None, warning: str | None, *, connect: bool, notify: bool, as_json: bool
) -> Checked:
    exports, of = chosen(organization)
    settings, signer = of.connection(), configured(lambda: signer_of(of.settings()))
    click.echo(f"environment: Organization {settings.org_id} at {settings.base_url}", err=as_json)
    if signer:
        click.echo(f"manifests are signed with the key {signer.fingerprint}", err=as_json)
    if warning:
        click.echo(f"Warning: {warning}", err=True)
    tried = None
    if connect:
        from m3ter_dagster.cli.connections import connections, print_connections

        tried = connections(settings, exports, notify=notify)
        if not as_json:
            print_connections(tried)
    return msgspec.structs.replace(
        found,
        org_id=settings.org_id,
        base_url=settings.base_url,
        signed_by=signer.fingerprint if signer else None,
        warning=warning,
        connections=tried,
    )


@click.command()
def schema() -> None:
    """Print the JSON Schema of exports.yaml, for editors (docs/exports.schema.json)."""
    click.echo(json.dumps(exports_json_schema(), indent=2))


@click.command()
@organization_option
def pull(organization: str | None) -> None:
    """Print the Organization's existing destinations and schedules in m3ter as an exports.yaml."""
    from m3ter_dagster.cli.exports_yaml import exports_yaml
    from m3ter_dagster.cli.hosted_exports import destination_items, schedule_items
    from m3ter_dagster.m3ter.client import open_client
    from m3ter_dagster.m3ter.data_exports import read_data_exports
    from m3ter_dagster.m3ter.errors import M3terError

    settings = configured(chosen_to_look(organization).settings().connection)
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
