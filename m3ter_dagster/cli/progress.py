"""What the terminal shows of a run: a live table, or in a log a line per entity; then the result."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from m3ter_dagster.history.progress import EntityResult, RunResult
from m3ter_dagster.verification.findings import counted

_COLUMNS = ("entity", "status", "rows", "bytes", "seconds", "checks", "objects")


class Progress:
    """Shows a run's progress; to be called at each change."""

    def __init__(self, console: Console, live: Live | None) -> None:
        self._console = console
        self._live = live
        self._printed: set[str] = set()

    def __call__(self, result: RunResult, entity: str) -> None:
        if self._live:
            self._live.update(result_table(result))
            return
        one = result.entities[entity]
        if one.status in ("delivered", "failed") and entity not in self._printed:
            self._printed.add(entity)
            what = _delivered(one) if one.status == "delivered" else one.error.splitlines()[0]
            line = f"[{len(self._printed)}/{len(result.entities)}] {entity} {one.status}: {what}"
            self._console.print(line, soft_wrap=True, highlight=False)


@contextmanager
def progress(console: Console) -> Generator[Progress]:
    if not console.is_terminal:
        yield Progress(console, None)
        return
    with Live(console=console, transient=True) as live:
        yield Progress(console, live)


def print_result(console: Console, result: RunResult) -> None:
    console.print(result_table(result), soft_wrap=not console.is_terminal)
    for one in result.entities.values():
        if one.status == "failed":
            console.print(Text(f"{one.entity} failed: {one.error}", style="red"), soft_wrap=True)
    if result.error:
        console.print(Text(result.error, style="red"), soft_wrap=True)
    for uri in result.manifest:
        console.print(f"manifest: {uri}", soft_wrap=True, highlight=False)
    delivered = sum(one.status == "delivered" for one in result.entities.values())
    rows = sum(one.rows or 0 for one in result.entities.values())
    summary = f"{delivered} of {len(result.entities)} entities delivered, {rows:,} rows, run {result.run_id}"
    console.print(summary, soft_wrap=True, highlight=False)
    if result.run_id and not result.is_complete:
        advice = f"Once the cause is gone, `m3ter-dagster export --resume {result.run_id}` completes this export."
        console.print(advice, soft_wrap=True, highlight=False)


def result_table(result: RunResult) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        justify = "right" if column in ("rows", "bytes", "seconds") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "objects", overflow="fold")
    for one in result.entities.values():
        table.add_row(*_cells(one))
    return table


def _delivered(one: EntityResult) -> str:
    changes = "" if one.changes is None else f", {counted(one.changes, 'change')}"
    return f"{one.rows:,} rows, {one.bytes:,} bytes{changes}"


def _cells(one: EntityResult) -> tuple[str, ...]:
    rows = "" if one.rows is None else f"{one.rows:,}"
    size = "" if one.bytes is None else f"{one.bytes:,}"
    seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
    passed = f"{sum(one.checks)} of {len(one.checks)}" if one.checks else ""
    return one.entity, one.status, rows, size, seconds, passed, "\n".join(one.uris)
