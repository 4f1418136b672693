"""Times in text columns. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from m3ter_dagster.model.entity import DATE, DATE_TIME, Column

TIMES = ("dtCreated", "dtLastModified")
"""The fields by which m3ter says when a record was written."""
EXAMPLES = {DATE: "2024-06-01", DATE_TIME: "2024-06-01T10:00:00.000Z"}
_FORMS = {DATE: r"^\d{4}-\d\d-\d\d$", DATE_TIME: r"^\d{4}-\d\d-\d\dT\d\d:\d\d:[0-5]\d(\.\d{3}|\.\d{6})?Z$"}
_BEFORE_FRACTIONS = len("2024-06-01T10:00:00.")
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


def time_in(column: Column) -> pl.Expr:
    """The date, or the time in UTC, of a text column that is documented as such; null where the text is none.

    Times have 0, 3 or 6 digits of a second and end with Z, as m3ter sends them: of others the text could not be made.
    """
    text = pl.col(column.name)
    if column.format == DATE:
        time = text.str.to_date(_DAY, strict=False)
    else:
        time = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.fZ", time_unit="us", strict=False).dt.replace_time_zone("UTC")
    return pl.when(text.str.contains(_FORMS[str(column.format)])).then(time).alias(column.name)


def digits_of_fractions(column: str) -> pl.Expr:
    """How many digits the fraction of a second has in each text that `time_in` takes."""
    return (pl.col(column).str.len_bytes().cast(pl.Int64) - _BEFORE_FRACTIONS - 1).clip(0)


def time_text(column: str, digits: Sequence[int] | None) -> pl.Expr:
    """The text of which `time_in` made the column; `digits` are those its fractions had, None for dates.

    Where they had different ones, each is as short as it can be, which is how Java writes them.
    """
    time = pl.col(column)
    if digits is None:
        return time.dt.to_string(_DAY)
    *shorter, longest = sorted(digits) or [0]
    text = time.dt.to_string(_seconds(longest))
    for some in reversed(shorter):
        text = (
            pl.when(time.dt.microsecond() % 10 ** (6 - some) == 0)
            .then(time.dt.to_string(_seconds(some)))
            .otherwise(text)
        )
    return text.alias(column)


def _seconds(digits: int) -> str:
    return f"%Y-%m-%dT%H:%M:%S{f'%.{digits}f' if digits else ''}Z"
