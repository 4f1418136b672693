"""Times in columns of text, as m3ter and people write them."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest

from m3ter_dagster.frames.times import moment, written_since

NOON = datetime(2025, 1, 27, 12, 0, tzinfo=UTC)


def parsed(text: str | None) -> datetime | None:
    return pl.DataFrame({"time": [text]}, schema={"time": pl.String}).select(moment("time")).item()


@pytest.mark.parametrize(
    "text",
    [
        "2025-01-27T12:00:00Z",
        "2025-01-27T12:00:00.000Z",
        "2025-01-27T14:00:00+02:00",
        "2025-01-27 12:00:00+00:00",
        "2025-01-27T12:00:00",
        "2025-01-27T12:00:00.000",
        "2025-01-27 12:00:00",
        "2025-01-27T12:00",
        "2025-01-27 12:00",
    ],
)
def test_a_time_has_a_zone_or_is_utc(text: str) -> None:
    assert parsed(text) == NOON


def test_a_day_is_its_beginning_where_days_are_expected() -> None:
    frame = pl.DataFrame({"time": ["2025-01-27", "2025-01-27T12:00Z", "2025-01-27T12:00:00Z", "x"]})
    times = frame.select(moment("time", has_days=True)).to_series()
    assert times.to_list() == [datetime(2025, 1, 27, tzinfo=UTC), None, NOON, None]
    assert parsed("2025-01-27") is None


@pytest.mark.parametrize("text", [None, "", "soon", "2025-02-30", "27.01.2025", "1737979200", "2025-01-27T12:00:00Zx"])
def test_anything_else_is_no_time(text: str | None) -> None:
    assert parsed(text) is None


def test_a_row_is_written_since_when_one_of_its_times_is() -> None:
    before, at = "2025-01-27T11:59:59.999999Z", "2025-01-27T12:00:00Z"
    pairs = [(before, before), (at, before), (before, at), (None, at), (None, before), ("soon", None)]
    frame = pl.DataFrame(pairs, schema={"dtCreated": pl.String, "dtLastModified": pl.String}, orient="row")
    found = frame.select(written_since(NOON)).to_series()
    assert found.to_list() == [False, True, True, True, False, False]
