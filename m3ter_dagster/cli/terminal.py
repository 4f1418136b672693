"""What all commands share: reading the configuration, lists of names, wrong use, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from m3ter_dagster.config import ConfigError
from m3ter_dagster.model.descriptors import DescriptorError

WIDE = 400

T = TypeVar("T")


as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON (docs/terminal.md).")
with_objects = click.option("--objects", "with_objects", is_flag=True, help="List the address of every file.")


class Unusable(click.ClickException):
    """A correct command that cannot be carried out, because of the configuration, credentials or the disk."""

    exit_code = 2


def configured(load: Callable[[], T]) -> T:
    """What `load` returns; if the configuration is wrong, the command ends and says how."""
    try:
        return load()
    except (ConfigError, DescriptorError) as error:
        # Not a UsageError: showing the usage of the command would not help.
        raise Unusable(str(error)) from None


def listed(option: str, text: str) -> list[str]:
    """The names of a comma-separated option, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.UsageError(f"{option} names nothing; give at least one.")
    return list(dict.fromkeys(names))


def open_console(*, stderr: bool = False) -> Console:
    """A console fitted to a terminal; in a log nothing is cut off, and values are never read as markup."""
    console = Console(markup=False, emoji=False, highlight=False, stderr=stderr)
    if not console.is_terminal:
        console.width = WIDE
    return console


def short(id: str) -> str:
    """A run's id as Dagster's pages show it; commands take it, too."""
    return id[:8]


def printable(text: str) -> str:
    """Text from elsewhere without what would move, colour or clear the terminal: that is shown as `\\x1b` and so on."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def print_json(value: Any) -> None:
    """The one thing on stdout of a command with --json: dataclasses, msgspec's structs, times."""
    click.echo(msgspec.json.format(msgspec.json.encode(value)))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    open_console().print(table, highlight=False)


def moment_text(moment: datetime | None) -> str:
    """A time in UTC, to the second; empty for None."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""
