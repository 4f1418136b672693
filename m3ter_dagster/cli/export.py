"""An export now, from the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console

from m3ter_dagster.cli.wrong_use import configured, listed, wrong_use
from m3ter_dagster.config import load_exports, load_m3ter_settings
from m3ter_dagster.entities import UnknownEntity, entities, find_entity


@click.command()
@click.option("--entities", "names", metavar="NAMES", help="Comma-separated: account,BILLS,... Without it: all.")
@click.option("--destinations", "codes", metavar="CODES", help="Comma-separated. Without it: defaultDestinations.")
@click.option("--verbose", is_flag=True, help="Show Dagster's own log.")
def export(names: str | None, codes: str | None, verbose: bool) -> None:
    """Export entities to destinations now; exit code 0 only if all was delivered."""
    exports = configured(load_exports)
    known = [one.code for one in exports.destinations]
    destinations = _destinations(codes, known) if codes is not None else list(exports.default_destinations)
    chosen = _entities(names)
    configured(load_m3ter_settings)
    raise SystemExit(run_export(chosen, destinations, verbose=verbose))


def run_export(names: Sequence[str], destinations: Sequence[str], *, verbose: bool = False) -> int:
    """Run the export job in this process, showing how it goes; the exit code."""
    from m3ter_dagster.cli.progress import print_result, progress
    from m3ter_dagster.instance import open_instance
    from m3ter_dagster.runs import export_now

    console = _console()
    with open_instance() as instance, progress(console) as changed:
        result = export_now(instance, names, destinations, verbose=verbose, changed=changed)
    print_result(console, result)
    return 0 if result.is_complete else 1


def _console() -> Console:
    """Nothing is cut off in a log."""
    console = Console()
    return console if console.is_terminal else Console(width=400)


def _entities(names: str | None) -> list[str]:
    if names is None or names == "ALL":
        return list(entities())
    try:
        return list(dict.fromkeys(find_entity(name).name for name in listed("--entities", names)))
    except UnknownEntity as error:
        wrong_use(f"--entities: {error}")


def _destinations(codes: str, known: Sequence[str]) -> list[str]:
    chosen = listed("--destinations", codes)
    for code in chosen:
        if code not in known:
            wrong_use(f"--destinations: there is no destination {code!r}; known are {', '.join(sorted(known))}.")
    return chosen
