"""What the terminal shows of a run: a live table, or in a log a line per entity; then the result."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from m3ter_dagster.cli.terminal import printable, short
from m3ter_dagster.history.progress import EntityResult, RunResult
from m3ter_dagster.verification.findings import counted

_COLUMNS = ("entity", "status", "rows", "size", "seconds", "checks")


_A_LINE_EVERY = 10.0
"""Seconds: in a log, the longest time without a line."""
_LEFT_OUT_FIRST = ("delivered", "waiting", "running", "failed")
"""Of a live table, where the terminal has too few lines for all entities."""
_LINES_AROUND = 4
"""Of a terminal with a live table: its header, and how far the run is."""


class Progress:
    """Shows a run's progress; to be called at each change, and every second with None."""

    def __init__(self, console: Console, live: Live | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._live = live
        self._clock = clock
        self._started = self._last_line = clock()
        self._printed: dict[str, str] = {}
        """The reasons of the failures, each without the name of its entity, by the entities that are printed."""

    def __call__(self, result: RunResult, entity: str | None) -> None:
        now = self._clock()
        if self._live:
            shown = _fitting(result.entities.values(), self._console.height - _LINES_AROUND)
            self._live.update(Group(result_table(shown), Text(under_way(result, now - self._started))))
        elif entity is not None:
            self._print_end(result, result.entities[entity])
        elif now - self._last_line >= _A_LINE_EVERY:
            self._print(under_way(result, now - self._started))

    def _print(self, line: str) -> None:
        self._last_line = self._clock()
        self._console.print(line, soft_wrap=True, highlight=False)

    def _print_end(self, result: RunResult, one: EntityResult) -> None:
        entity = one.entity
        if one.status in ("delivered", "failed") and entity not in self._printed:
            is_new = _reason(one) not in self._printed.values()
            self._printed[entity] = _reason(one)
            what = _delivered(one) if one.status == "delivered" else one.error.splitlines()[0]
            line = f"[{len(self._printed)}/{len(result.entities)}] {entity} {one.status}"
            line += f": {what}" if one.status == "delivered" or is_new else ", as before"
            self._print(line)


@contextmanager
def progress(console: Console) -> Generator[Progress]:
    if not console.is_terminal:
        yield Progress(console, None)
        return
    with Live(console=console, transient=True) as live:
        yield Progress(console, live)


def print_result(console: Console, result: RunResult, *, with_objects: bool) -> None:
    """The table, what is wrong, where the files are, and a summary. Each address and each reason stands there once."""
    results = result.entities.values()
    console.print(result_table(results), soft_wrap=not console.is_terminal)
    for one in results:
        for name, check in one.checks.items():
            if not check.passed and one.status != "failed":
                words = f": {check.words}" if check.words else ""
                console.print(Text(printable(f"{one.entity}: {name}{words}"), style="yellow"), soft_wrap=True)
    for line in [*_failures(results), *([result.error] if result.error else [])]:
        console.print(Text(line, style="red"), soft_wrap=True)
    for line in _objects(results) if with_objects else _folders(results):
        console.print(line, soft_wrap=True, highlight=False)
    for stored in result.manifests:
        console.print(f"manifest: {stored.uri}", soft_wrap=True, highlight=False)
    delivered = sum(one.status == "delivered" for one in results)
    rows, run = sum(one.rows or 0 for one in results), short(result.run_id)
    summary = f"{delivered} of {len(results)} entities delivered, {rows:,} rows, run {run}"
    console.print(summary, soft_wrap=True, highlight=False)
    if result.run_id and not result.is_complete:
        advice = f"Once the cause is gone, `m3ter-dagster export --resume {run}` completes this export."
        console.print(advice, soft_wrap=True, highlight=False)


def _fitting(results: Iterable[EntityResult], lines: int) -> list[EntityResult]:
    """As many entities as there are lines, in their order: those that are done are missed least."""
    results = list(results)
    by_news = sorted(results, key=lambda one: _LEFT_OUT_FIRST.index(one.status))
    left_out = {one.entity for one in by_news[: len(results) - max(lines, 1)]} if len(results) > lines else set()
    return [one for one in results if one.entity not in left_out]


def result_table(results: Iterable[EntityResult]) -> Table:
    """One line per entity, for a terminal of 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in ("rows", "size", "seconds") else "left", no_wrap=True)
    for one in results:
        table.add_row(*_cells(one))
    return table


def _cells(one: EntityResult) -> tuple[str, ...]:
    found = _rows(one) if one.status != "failed" else None
    rows = "" if found is None else f"{found:,}"
    size = "" if one.bytes is None else decimal(one.bytes)
    seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
    passed = sum(check.passed for check in one.checks.values())
    return one.entity, one.status, rows, size, seconds, f"{passed} of {len(one.checks)}" if one.checks else ""


def under_way(result: RunResult, seconds: float) -> str:
    """How far the run is after so many seconds; how long it will take only if all that is missing had rows before."""
    entities = result.entities.values()
    delivered = sum(one.status == "delivered" for one in entities)
    rows = sum(_rows(one) or 0 for one in entities)
    parts = [f"{delivered} of {len(entities)} delivered"]
    if rows:
        requests = sum(one.requests or 0 for one in entities)
        parts += [f"{counted(rows, 'row')} in {counted(requests, 'request')}", f"{rows / seconds:,.0f} rows a second"]
    missing = [one for one in entities if one.status not in ("delivered", "failed")]
    if rows and missing and all(one.rows_before is not None for one in missing):
        left = sum(max((one.rows_before or 0) - (one.rows_read or 0), 0) for one in missing) * seconds / rows
        parts += [f"about {_clock_text(left)} left"] if left >= 1 else []
    if result.silent_seconds is not None:
        parts += [f"m3ter has not answered for {result.silent_seconds:.0f} s"]
    return f"{_clock_text(seconds)}: {', '.join(parts)}{f'; {result.waits_for}' if result.waits_for else ''}"


def _clock_text(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _rows(one: EntityResult) -> int | None:
    """The rows that were delivered or, until then, read."""
    return one.rows_read if one.rows is None else one.rows


def _delivered(one: EntityResult) -> str:
    changes = "" if one.changes is None else f", {counted(one.changes, 'change')}"
    return f"{one.rows:,} rows, {decimal(one.bytes or 0)}{changes}"


def _reason(one: EntityResult) -> str:
    """Why it failed, in words that are the same for every entity that failed for the same reason."""
    return one.error.replace(one.entity, "")


def _failures(results: Iterable[EntityResult]) -> Iterator[str]:
    """Each reason once, in the words of the first entity that failed for it."""
    alike: Mapping[str, list[EntityResult]] = defaultdict(list)
    for one in results:
        if one.status == "failed":
            alike[_reason(one)].append(one)
    for first, *others in alike.values():
        yield f"{first.entity} failed: {first.error}"
        if others:
            yield f"For the same reason failed: {', '.join(one.entity for one in others)}"


def _objects(results: Iterable[EntityResult]) -> Iterator[str]:
    yield from (stored.uri for one in results for stored in one.objects)


def _folders(results: Iterable[EntityResult]) -> Iterator[str]:
    """For each destination, the folder that all its files have in common, or its only file."""
    uris: Mapping[str, list[str]] = defaultdict(list)
    for one in results:
        for stored in one.objects:
            uris[stored.destination].append(stored.uri)
    for destination, found in uris.items():
        common = os.path.commonprefix(found)  # noqa: RUF071 - cut at a slash below; commonpath makes s3:/ of s3://
        yield f"{destination}: {common if len(found) == 1 else common[: common.rindex('/') + 1]}"
