"""Times in text columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

TIMES = ("dtCreated", "dtLastModified")
"""The fields by which m3ter says when a record was written."""
_WITH_ZONE, _DAY = "%+", "%Y-%m-%d"
_WITHOUT_ZONE = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")


def moment(column: str, *, has_days: bool = False) -> pl.Expr:
    """The time in a column of text, in UTC, or null: ISO 8601 with a zone, or without one, which is UTC then.

    With `has_days` a date alone is a time too: its midnight.
    """
    text = pl.col(column).str
    times = [text.to_datetime(_WITH_ZONE, time_unit="us", time_zone="UTC", strict=False)]
    for format_ in (*_WITHOUT_ZONE, *([_DAY] if has_days else [])):
        times.append(text.to_datetime(format_, time_unit="us", strict=False).dt.replace_time_zone("UTC"))
    return pl.coalesce(times)


def written_since(since: datetime, columns: Sequence[str] = TIMES) -> pl.Expr:
    """Whether one of these times is at or after `since`; text that is no time never is."""
    return pl.any_horizontal(moment(column) >= since for column in columns).fill_null(False)
