"""From m3ter's hosted exports to this project in one step."""

from __future__ import annotations

import threading

import click

from m3ter_dagster.cli.wrong_use import configured
from m3ter_dagster.config import load_m3ter_settings


@click.command()
def pull() -> None:
    """Print the Organization's existing destinations and schedules in m3ter as an exports.yaml."""
    from m3ter_dagster.cli.carried_over import carried_destinations, carried_schedules
    from m3ter_dagster.cli.exports_yaml import exports_yaml
    from m3ter_dagster.m3ter.client import open_client
    from m3ter_dagster.m3ter.data_exports import read_data_exports
    from m3ter_dagster.m3ter.errors import M3terError

    settings = configured(load_m3ter_settings)
    try:
        found = read_data_exports(open_client(settings, stop=threading.Event()))
    except M3terError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    destinations = carried_destinations(found.destinations)
    schedules = carried_schedules(found.schedules, destinations)
    click.echo(exports_yaml(settings.org_id, destinations.values(), schedules), nl=False)
    usable = [sum(item.is_usable for item in items) for items in (destinations.values(), schedules)]
    _report(usable, [len(destinations), len(schedules)])


def _report(usable: list[int], found: list[int]) -> None:
    click.echo(
        f"{usable[0]} of {found[0]} destinations and {usable[1]} of {found[1]} schedules are carried over; "
        "comments say what is different.",
        err=True,
    )
    if not usable[0]:
        click.echo("exports.yaml needs a destination before it can be used; write one.", err=True)
        raise SystemExit(1)
