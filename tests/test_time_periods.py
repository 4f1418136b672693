"""Each time period at awkward moments, against the examples of m3ter's API reference."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from m3ter_dagster.model.time_periods import TIME_PERIODS, Window, WindowBackwards, window_of

# Time period, due, start, end.
TABLE = [
    # The reference's own examples.
    ("PREVIOUS_WEEK", "2024-06-12T09:30", "2024-06-03T00:00", "2024-06-10T00:00"),
    ("WEEK_TO_DATE", "2024-10-16T10:00", "2024-10-14T00:00", "2024-10-16T10:00"),
    ("LAST_30_DAYS", "2024-06-15T17:45", "2024-05-16T00:00", "2024-06-15T00:00"),
    # The last day of a month whose predecessor is shorter.
    ("TODAY", "2025-03-31T10:00", "2025-03-31T00:00", "2025-03-31T10:00"),
    ("YESTERDAY", "2025-03-31T10:00", "2025-03-30T00:00", "2025-03-31T00:00"),
    ("MONTH_TO_DATE", "2025-03-31T10:00", "2025-03-01T00:00", "2025-03-31T10:00"),
    ("PREVIOUS_MONTH", "2025-03-31T10:00", "2025-02-01T00:00", "2025-03-01T00:00"),
    ("PREVIOUS_QUARTER", "2025-03-31T10:00", "2024-10-01T00:00", "2025-01-01T00:00"),
    ("PREVIOUS_QUARTER", "2025-04-01T00:00", "2025-01-01T00:00", "2025-04-01T00:00"),
    ("PREVIOUS_YEAR", "2025-03-31T10:00", "2024-01-01T00:00", "2025-01-01T00:00"),
    ("LAST_35_DAYS", "2025-03-31T10:00", "2025-02-24T00:00", "2025-03-31T00:00"),
    ("LAST_YEAR", "2025-03-31T10:00", "2024-03-31T00:00", "2025-03-31T00:00"),
    # The first moment of a year, a Wednesday.
    ("TODAY", "2025-01-01T00:00", "2025-01-01T00:00", "2025-01-01T00:00"),
    ("YESTERDAY", "2025-01-01T00:00", "2024-12-31T00:00", "2025-01-01T00:00"),
    ("WEEK_TO_DATE", "2025-01-01T00:00", "2024-12-30T00:00", "2025-01-01T00:00"),
    ("MONTH_TO_DATE", "2025-01-01T00:00", "2025-01-01T00:00", "2025-01-01T00:00"),
    ("YEAR_TO_DATE", "2025-01-01T00:00", "2025-01-01T00:00", "2025-01-01T00:00"),
    ("PREVIOUS_WEEK", "2025-01-01T00:00", "2024-12-23T00:00", "2024-12-30T00:00"),
    ("PREVIOUS_MONTH", "2025-01-01T00:00", "2024-12-01T00:00", "2025-01-01T00:00"),
    ("PREVIOUS_QUARTER", "2025-01-01T00:00", "2024-10-01T00:00", "2025-01-01T00:00"),
    ("PREVIOUS_YEAR", "2025-01-01T00:00", "2024-01-01T00:00", "2025-01-01T00:00"),
    ("LAST_12_HOURS", "2025-01-01T00:00", "2024-12-31T12:00", "2025-01-01T00:00"),
    ("LAST_7_DAYS", "2025-01-01T00:00", "2024-12-25T00:00", "2025-01-01T00:00"),
    ("LAST_YEAR", "2025-01-01T00:00", "2024-01-01T00:00", "2025-01-01T00:00"),
    # Monday, midnight, and the moment before.
    ("WEEK_TO_DATE", "2024-06-10T00:00", "2024-06-10T00:00", "2024-06-10T00:00"),
    ("PREVIOUS_WEEK", "2024-06-10T00:00", "2024-06-03T00:00", "2024-06-10T00:00"),
    ("PREVIOUS_WEEK", "2024-06-09T23:59", "2024-05-27T00:00", "2024-06-03T00:00"),
    # Leap days.
    ("YESTERDAY", "2024-03-01T00:00", "2024-02-29T00:00", "2024-03-01T00:00"),
    ("PREVIOUS_MONTH", "2024-03-31T12:00", "2024-02-01T00:00", "2024-03-01T00:00"),
    ("LAST_YEAR", "2024-02-29T08:00", "2023-02-28T00:00", "2024-02-29T00:00"),
    ("LAST_90_DAYS", "2024-02-29T08:00", "2023-12-01T00:00", "2024-02-29T00:00"),
    ("LAST_120_DAYS", "2024-02-29T08:00", "2023-11-01T00:00", "2024-02-29T00:00"),
    ("YEAR_TO_DATE", "2024-02-29T08:00", "2024-01-01T00:00", "2024-02-29T08:00"),
    # Up to the start of the hour.
    ("LAST_12_HOURS", "2024-06-12T09:59", "2024-06-11T21:00", "2024-06-12T09:00"),
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("time_period", "due", "start", "end"), TABLE)
def test_what_an_export_due_then_holds(time_period: str, due: str, start: str, end: str) -> None:
    assert window_of(time_period, utc(due)) == Window(utc(start), utc(end))


def test_the_table_has_every_period_of_the_api() -> None:
    assert {row[0] for row in TABLE} == set(TIME_PERIODS)


def test_days_are_those_of_utc() -> None:
    due = datetime(2024, 6, 12, 1, tzinfo=timezone(timedelta(hours=2)))
    assert window_of("TODAY", due) == Window(utc("2024-06-11T00:00"), utc("2024-06-11T23:00"))


def test_a_window_without_anything_in_it() -> None:
    assert window_of("TODAY", utc("2024-06-12T00:00")).is_empty
    assert not window_of("YESTERDAY", utc("2024-06-12T00:00")).is_empty


def test_a_window_in_words() -> None:
    assert str(window_of("TODAY", utc("2024-06-12T09:30:07"))) == "2024-06-12 00:00 to 2024-06-12 09:30:07 UTC"


@pytest.mark.parametrize(
    ("start", "end"),
    [(utc("2024-06-12"), utc("2024-06-11")), (datetime(2024, 6, 12), utc("2024-06-13"))],
)
def test_what_is_no_window(start: datetime, end: datetime) -> None:
    with pytest.raises(
        WindowBackwards, match="is impossible; its ends need a time zone, and the second must not be before"
    ):
        Window(start, end)


def test_a_due_time_without_a_zone() -> None:
    with pytest.raises(WindowBackwards):
        window_of("TODAY", datetime(2024, 6, 12))
