"""The CSV of m3ter's usage export -> typed rows on disk, and what is wrong with them. Pure but for its files.

Everything is streamed: memory does not grow with the measurements, however many there are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from m3ter_dagster.frames.schema import Breach, SchemaBreached, frame_schema, shown
from m3ter_dagster.frames.times import moment
from m3ter_dagster.frames.uniqueness import repeated_values
from m3ter_dagster.model.time_periods import Window
from m3ter_dagster.usage.columns import ACCOUNT, METER, TIME, UID, YEAR, UsageTable
from m3ter_dagster.usage.files import (
    chunks,
    first_broken_row,
    has_whole_rows,
    header_breaches,
    is_blank,
    missing_columns,
    read_header,
    row_of_file,
)
from m3ter_dagster.usage.rules import breaks_a_rule, rules

SHOWN_BREACHES = 100
_BAD = "m3ter:bad"


def _breached(table: UsageTable, breaches: Sequence[Breach], total: int) -> SchemaBreached:
    return SchemaBreached(
        table.name,
        breaches,
        total,
        what="m3ter's file breaks the published Measurement schema",
        advice="Re-execute it, and report it to m3ter's support if it stays so.",
    )


@dataclass(frozen=True)
class Usage:
    """The rows of one usage export, validated. Its frames are scanned from disk."""

    frame: pl.LazyFrame
    parts: Sequence[pl.LazyFrame]
    """The same rows, one part after the other."""
    rows: int
    unknown_columns: tuple[str, ...]
    """Columns of m3ter's file that the table does not have."""
    empty_columns: tuple[str, ...]
    """Columns of the table that the file does not have, or has without any value."""
    meter_ids: frozenset[str]
    account_ids: frozenset[str]
    sums: Mapping[str, Mapping[str, float]]
    """The sum of each column of numbers, by meter."""


def no_usage(table: UsageTable) -> Usage:
    return Usage(pl.LazyFrame(schema=frame_schema(table)), (), 0, (), (), frozenset(), frozenset(), {})


def read_usage(path: Path, table: UsageTable, window: Window, to: Path) -> Usage:
    """The rows of the file at `path`, kept in a folder `to`. SchemaBreached if one does not fit the table or window."""
    if is_blank(path):
        return no_usage(table)
    header = read_header(path)
    _refuse(table, header_breaches(header, table))
    kept = _kept(path, table, header, window, to)
    rows, bad = kept.select(pl.len().alias("rows"), pl.col(_BAD).sum()).collect(engine="streaming").row(0)
    if bad:
        raise _breached(table, _breaches(path, kept, table, header, window), bad)
    if rows:
        _refuse(table, missing_columns(header, table))
    frame = kept.drop(_BAD)
    if table.primary_key and (repeated := repeated_values(frame, UID, rows=rows)).values:
        rule, key = "is the primary key and must be unique", next(one for one in table.columns if one.name == UID)
        named = sorted(repeated.values, key=lambda one: one.first_row)[:SHOWN_BREACHES]
        breaches = [Breach(row_of_file(one.first_row), UID, shown(one.value, key), rule) for one in named]
        raise _breached(table, breaches, repeated.total)
    return Usage(
        frame=frame,
        parts=[pl.scan_parquet(part).drop(_BAD) for part in sorted(to.iterdir())],
        rows=rows,
        unknown_columns=tuple(name for name in header if name not in frame_schema(table)),
        empty_columns=_empty(frame, rows),
        meter_ids=_distinct(frame, METER),
        account_ids=_distinct(frame, ACCOUNT) if ACCOUNT in frame_schema(table) else frozenset(),
        sums=_sums(frame, table),
    )


def _kept(path: Path, table: UsageTable, header: Sequence[str], window: Window, to: Path) -> pl.LazyFrame:
    """The rows on disk, read once, some at a time: polars itself would take more memory for more rows."""
    shutil.rmtree(to, ignore_errors=True)  # what an earlier try has left
    to.mkdir()
    columns = [_cell(column.name, column.type, header) for column in table.columns]
    is_whole = True
    for number, rows in enumerate(chunks(path)):
        if is_whole and not has_whole_rows(rows, len(header)):
            is_whole = False
            # Polars fills up rows that are cut off, and says little of what it cannot read.
            _refuse(table, [first_broken_row(path, header, table)])
        text = pl.scan_csv(rows, **_as_text(header, skip_rows=0 if number else 1), raise_if_empty=False)
        typed = text.select(*columns, breaks_a_rule(table, header, window).alias(_BAD))
        try:
            typed.sink_parquet(to / f"{number:06}.parquet", compression="lz4", statistics=False)
        except pl.exceptions.PolarsError as error:
            unreadable = Breach(None, "unknown", f"{type(error).__name__} of polars", "must be CSV")
            _refuse(table, [first_broken_row(path, header, table) or unreadable])
    return pl.scan_parquet(to / "*.parquet")


def _as_text(header: Sequence[str], *, skip_rows: int) -> dict[str, Any]:
    """How polars reads m3ter's file. It reads a quote in a header's name as two, so the header is skipped."""
    return {"schema": dict.fromkeys(header, pl.String), "has_header": False, "skip_rows": skip_rows}


def _refuse(table: UsageTable, breaches: Iterable[Breach | None]) -> None:
    """Raise SchemaBreached if there are breaches."""
    if found := [breach for breach in breaches if breach]:
        raise _breached(table, found, len(found))


def _cell(name: str, type_: str, header: Sequence[str]) -> pl.Expr:
    if name not in header:
        if name == YEAR and type_ == "string" and TIME in header:
            return moment(TIME, has_days=True).dt.year().cast(pl.String).alias(name)
        return pl.lit(None, pl.String if type_ == "string" else pl.Float64).alias(name)
    return pl.col(name).cast(pl.Float64, strict=False) if type_ == "number" else pl.col(name)


def _breaches(path: Path, kept: pl.LazyFrame, table: UsageTable, header: Sequence[str], window: Window) -> list[Breach]:
    """The first breaches, looked up in the file."""
    checked = rules(table, header, window)
    numbers = (
        kept.with_row_index("row").filter(_BAD).select("row").head(SHOWN_BREACHES).collect(engine="streaming")["row"]
    )
    names = list(dict.fromkeys([name for name, _, _ in checked]))
    found = [rule.alias(f"rule {index}") for index, (_, _, rule) in enumerate(checked)]
    text = pl.scan_csv(path, **_as_text(header, skip_rows=1))
    rows = text.with_row_index("row").filter(pl.col("row").is_in(numbers.implode())).select("row", *names, *found)
    columns = {column.name: column for column in table.columns}
    breaches: list[Breach] = []
    for row in rows.collect(engine="streaming").iter_rows(named=True):
        for index, (name, says, _) in enumerate(checked):
            if row[f"rule {index}"]:
                breaches.append(Breach(row_of_file(row["row"]), name, shown(row[name], columns[name]), says))
    return breaches


def _empty(frame: pl.LazyFrame, rows: int) -> tuple[str, ...]:
    nulls = frame.null_count().collect(engine="streaming").row(0, named=True)
    return tuple(name for name, count in nulls.items() if rows and count == rows)


def _distinct(frame: pl.LazyFrame, column: str) -> frozenset[str]:
    """Distinct values: their number depends on the Organization, not on the measurements."""
    return frozenset(frame.select(pl.col(column).drop_nulls().unique()).collect(engine="streaming")[column])


def _sums(frame: pl.LazyFrame, table: UsageTable) -> dict[str, dict[str, float]]:
    numbers = [column.name for column in table.columns if column.type == "number"]
    if not numbers:
        return {}
    summed: Any = frame.group_by(METER).agg(pl.col(*numbers).sum()).sort(METER).collect(engine="streaming")
    return {row[METER]: {name: row[name] for name in numbers} for row in summed.iter_rows(named=True)}
