"""m3ter-dagster prune: removes the records of old exports, and the keys files that only the next export compares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click
import msgspec

from m3ter_dagster.cli.instance import open_instance
from m3ter_dagster.cli.organization import chosen, organization_option
from m3ter_dagster.cli.terminal import as_json, moment_text, print_json, print_table
from m3ter_dagster.config.fields import AGES, age

if TYPE_CHECKING:
    from m3ter_dagster.history.pruning import Old, OldExport, Removed

BY_HAND = "(by hand)"


class Age(click.ParamType):
    """A number of days or weeks, such as 90d or 12w."""

    name = "age"

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        try:
            return age(value)
        except ValueError:
            self.fail(f"{value!r} is no age; {AGES}.", param, ctx)


@click.command()
@click.option("--keep", type=Age(), default="90d", show_default=True, help="Keep younger exports: 90d, 12w.")
@click.option("--yes", is_flag=True, help="Remove what is otherwise only listed.")
@click.option("--leave-files", is_flag=True, help="Leave the keys files in the destinations.")
@organization_option
@as_json
def prune(keep: timedelta, yes: bool, leave_files: bool, organization: str | None, as_json: bool) -> None:
    """Remove old exports from Dagster's records, and their keys files; never data nor manifests.

    The last whole export of each schedule stays, however old. What is removed can be neither listed nor resumed.
    """
    from m3ter_dagster.delivery.destinations import Destinations
    from m3ter_dagster.history.pruning import old_exports, remove

    exports, of = chosen(organization)
    org_id = of.org_id
    with open_instance(looks_back=True, compute_logs=True) as instance:
        before = datetime.now(UTC) - keep
        old = old_exports(instance, before, org_id=org_id, with_keys=not leave_files, names=of.names)
        if not as_json:
            _print_old(old)
        destinations = Destinations({one.code: one for one in exports.destinations})
        removed = remove(instance, old.exports, destinations) if yes and old.exports else None
    if as_json:
        print_json({**msgspec.to_builtins(old), "removed": removed})
    elif removed:
        _print_removed(removed)
    else:
        click.echo("Nothing was removed; --yes removes this." if old.exports else "There is nothing to remove.")
    if removed and removed.stay:
        stay = f"{removed.stay} exports stay until their keys files can be removed"
        raise click.ClickException(f"{stay}; with --leave-files those stay instead.")


def _print_old(old: Old) -> None:
    by_schedule: dict[str, list[OldExport]] = defaultdict(list)
    sizes: dict[str, list[int]] = defaultdict(list)
    for export in old.exports:
        by_schedule[export.schedule or BY_HAND].append(export)
        for file in export.keys:
            sizes[file.destination].append(file.bytes)
    if by_schedule:
        columns = ("schedule", "exports", "runs", "first began (UTC)", "last began", "log files, bytes")
        print_table(columns, [_row(schedule, found) for schedule, found in sorted(by_schedule.items())])
    if sizes:
        columns = ("destination", "keys files", "bytes")
        print_table(columns, [(code, str(len(found)), f"{sum(found):,}") for code, found in sorted(sizes.items())])
    if old.needed:
        click.echo(f"{old.needed} as old must stay: later exports need them, or they have not ended.")


def _row(schedule: str, exports: Sequence[OldExport]) -> tuple[str, ...]:
    began = [one.began for one in exports]
    runs, size = sum(len(one.runs) for one in exports), sum(one.log_bytes for one in exports)
    return schedule, str(len(exports)), str(runs), moment_text(min(began)), moment_text(max(began)), f"{size:,}"


def _print_removed(removed: Removed) -> None:
    click.echo(
        f"{removed.exports} exports were removed: {removed.runs} runs with their logs, {removed.keys} keys files."
    )
    if removed.runs:
        click.echo(
            "Databases keep their size and fill the room again. To shrink those of SQLite, stop Dagster and run VACUUM "
            "in history/runs/index.db and history/runs.db of DAGSTER_HOME."
        )
    for words in removed.left:
        click.echo(words, err=True)
