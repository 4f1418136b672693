"""m3ter-dagster: the exports from a terminal. Exit codes: 0 all delivered, 1 something failed, 2 wrong use."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import click
from rich.console import Console

T = TypeVar("T")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="m3ter-dagster")
def main() -> None:
    """m3ter's Operational Data Export, run by you."""


@main.command()
@click.option("--entities", metavar="NAMES", help="Comma-separated: account,BILLS,... Without it: all.")
@click.option("--destinations", metavar="CODES", help="Comma-separated. Without it: defaultDestinations.")
@click.option("--verbose", is_flag=True, help="Show Dagster's own log.")
def export(entities: str | None, destinations: str | None, verbose: bool) -> None:
    """Export entities to destinations now."""
    from m3ter_dagster.config import load_exports, load_m3ter_settings

    exports = _configured(load_exports)
    _configured(load_m3ter_settings)
    chosen = _entities(entities)
    codes = _destinations(destinations, [one.code for one in exports.destinations], exports.default_destinations)
    raise SystemExit(run_export(chosen, codes, verbose=verbose))


@main.command()
@click.option("--without-environment", is_flag=True, help="Leave out the M3TER_* variables.")
def check(without_environment: bool) -> None:
    """Validate exports.yaml, the environment and the descriptors in schemas/."""
    from m3ter_dagster.config import load_exports, load_m3ter_settings
    from m3ter_dagster.entities import entities

    known = _configured(entities)
    exports = _configured(load_exports)
    click.echo(f"schemas/: {len(known)} entities, {sum(len(one.columns) for one in known.values())} columns")
    click.echo(f"exports.yaml: {len(exports.destinations)} destinations, {len(exports.schedules)} schedules")
    if without_environment:
        return
    settings = _configured(load_m3ter_settings)
    click.echo(f"environment: Organization {settings.org_id} at {settings.base_url}")


@main.command()
def schema() -> None:
    """Print the JSON Schema of exports.yaml, for editors (docs/exports.schema.json)."""
    from m3ter_dagster.config import exports_json_schema

    click.echo(json.dumps(exports_json_schema(), indent=2))


@main.command(context_settings={"ignore_unknown_options": True})
@click.option("--accounts", default=60, show_default=True, help="Size of the sample organization.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def sandbox(accounts: int, command: Sequence[str]) -> None:
    """Run a sample m3ter organization and a sample S3, until stopped or while COMMAND runs."""
    from m3ter_dagster.sandbox.serving import serve

    raise SystemExit(serve(accounts, command))


@main.command()
@click.option("--accounts", default=60, show_default=True, help="Size of the sample organization.")
@click.option("--output", default="demo-output", show_default=True, help="Folder for copies of the delivered files.")
def demo(accounts: int, output: str) -> None:
    """Export the sample organization to the sample S3, all through Dagster."""
    from m3ter_dagster.sandbox.demo import run_demo

    raise SystemExit(run_demo(accounts, output))


def run_export(entities: Sequence[str], destinations: Sequence[str], *, verbose: bool = False) -> int:
    from m3ter_dagster.instance import open_instance
    from m3ter_dagster.progress import print_result, progress
    from m3ter_dagster.runs import export_now

    console = _console()
    with open_instance() as instance, progress(console) as changed:
        result = export_now(instance, entities, destinations, verbose=verbose, changed=changed)
    print_result(console, result)
    return 0 if result.is_complete else 1


def _console() -> Console:
    """Nothing is cut off in a log."""
    console = Console()
    return console if console.is_terminal else Console(width=400)


def _entities(names: str | None) -> list[str]:
    from m3ter_dagster.entities import UnknownEntity, entities, find_entity

    if names is None or names == "ALL":
        return list(entities())
    try:
        return list(dict.fromkeys(find_entity(name).name for name in _listed("--entities", names)))
    except UnknownEntity as error:
        _wrong_use(f"--entities: {error}")


def _destinations(codes: str | None, known: Sequence[str], default: Sequence[str]) -> list[str]:
    chosen = list(default) if codes is None else list(dict.fromkeys(_listed("--destinations", codes)))
    for code in chosen:
        if code not in known:
            _wrong_use(f"--destinations: there is no destination {code!r}; known are {', '.join(sorted(known))}.")
    return chosen


def _listed(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return names or _wrong_use(f"{option} names nothing; give at least one.")


def _configured(load: Callable[[], T]) -> T:
    from m3ter_dagster.config import ConfigError
    from m3ter_dagster.entities import DescriptorError

    try:
        return load()
    except (ConfigError, DescriptorError) as error:
        _wrong_use(str(error))


def _wrong_use(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(2)
