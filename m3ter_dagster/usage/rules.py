"""What each cell of m3ter's usage file must be, as expressions over columns of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from m3ter_dagster.frames.times import moment
from m3ter_dagster.model.time_periods import Window
from m3ter_dagster.usage.columns import TIME, UsageTable


def rules(table: UsageTable, header: Sequence[str], window: Window) -> list[tuple[str, str, pl.Expr]]:
    """A rule: its columns, what they must be, and where they are not."""
    found: list[tuple[str, str, pl.Expr]] = []
    for column in table.columns:
        cell = pl.col(column.name)
        if column.name not in header:
            continue
        if column.required:
            found.append((column.name, "must not be missing or empty", cell.fill_null("") == ""))
        if column.type == "number":
            number = cell.cast(pl.Float64, strict=False)
            is_there = cell.fill_null("") != ""
            found.append((column.name, "must be a number", is_there & ~number.is_finite().fill_null(False)))
    if TIME in header:
        time = moment(TIME, has_days=True)
        inside = (time >= window.start) & (time < window.end)
        found.append((TIME, f"must be a time in the window of the export, {window}", ~inside.fill_null(False)))
    return found


def breaks_a_rule(table: UsageTable, header: Sequence[str], window: Window) -> pl.Expr:
    return pl.any_horizontal(pl.lit(False), *(broken for _, _, broken in rules(table, header, window)))
