"""How commands print tables: fitted to a terminal, whole where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 400


def open_console() -> Console:
    """Nothing is cut off in a log, and values are never read as markup."""
    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    return console


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    open_console().print(table, highlight=False)


def moment_text(moment: datetime | None) -> str:
    """To the second, UTC, as the column's neighbours are."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""
