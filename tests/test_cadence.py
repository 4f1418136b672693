from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise, takewhile

import pytest
from dagster._utils.schedules import is_valid_cron_schedule, schedule_execution_time_iterator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3ter_dagster.model.cadence import Cadence

JUNE_1 = datetime(2024, 6, 1, 10, tzinfo=UTC)
FIVE_DAYS = Cadence("DAY", 5, JUNE_1)
LENGTHS = {"HOUR": timedelta(hours=1), "DAY": timedelta(days=1)}

moments = st.datetimes(datetime(2015, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC))
periods = st.one_of(
    st.tuples(st.just("HOUR"), st.integers(1, 200)),
    st.tuples(st.just("DAY"), st.integers(1, 400)),
)


def test_the_documents_example() -> None:
    assert FIVE_DAYS.due_times(JUNE_1, 3) == [JUNE_1 + timedelta(days=days) for days in (5, 10, 15)]
    assert FIVE_DAYS.is_due(datetime(2024, 6, 6, 10, tzinfo=UTC))
    assert not FIVE_DAYS.is_due(datetime(2024, 6, 6, 11, tzinfo=UTC))
    assert not FIVE_DAYS.is_due(datetime(2024, 5, 27, 10, tzinfo=UTC))


@pytest.mark.parametrize(
    ("unit", "period", "words"),
    [
        ("DAY", 5, "every 5 days since 2024-06-01 10:00 UTC"),
        ("DAY", 1, "every day since 2024-06-01 10:00 UTC"),
        ("HOUR", 1, "every hour since 2024-06-01 10:00 UTC"),
        ("HOUR", 36, "every 36 hours since 2024-06-01 10:00 UTC"),
    ],
)
def test_words(unit: str, period: int, words: str) -> None:
    assert Cadence(unit, period, JUNE_1).words() == words


@pytest.mark.parametrize(
    ("unit", "period", "lines"),
    [
        ("HOUR", 1, ["0 * * * *"]),
        ("HOUR", 8, ["0 2,10,18 * * *"]),
        ("HOUR", 24, ["0 10 * * *"]),
        ("DAY", 1, ["0 10 * * *"]),
        ("DAY", 7, ["0 10 * * 6"]),
        ("HOUR", 168, ["0 10 * * 6"]),
        ("MINUTE", 15, ["0,15,30,45 * * * *"]),
        ("MINUTE", 1, ["* * * * *"]),
        ("DAY", 90, ["0 10 26 2 *", "0 10 27 5 *", "0 10 1 6 *", "0 10 30 8 *", "0 10 28 11 *"]),
        ("DAY", 365, ["0 10 1 6 *"]),
        (
            "DAY",
            5,
            [
                "0 10 2,7,12,17,22,27 1,4,5 *",
                "0 10 1,6,11,16,21,26 2,6 *",
                "0 10 3,8,13,18,23,28 3,11,12 *",
                "0 10 1,6,11,16,21,26,31 7 *",
                "0 10 5,10,15,20,25,30 8 *",
                "0 10 4,9,14,19,24,29 9,10 *",
            ],
        ),
    ],
)
def test_lines(unit: str, period: int, lines: list[str]) -> None:
    assert sorted(Cadence(unit, period, JUNE_1).cron_lines(JUNE_1)) == sorted(lines)


def test_seconds_of_the_anchor_are_floored() -> None:
    cadence = Cadence("HOUR", 2, JUNE_1.replace(second=59, microsecond=999_999))
    assert cadence.anchor == JUNE_1
    assert cadence.is_due(JUNE_1 + timedelta(hours=2))


def test_zones_do_not_matter() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    assert Cadence("DAY", 5, JUNE_1.astimezone(there)) == FIVE_DAYS
    assert FIVE_DAYS.is_due((JUNE_1 + timedelta(days=5)).astimezone(there))


def test_nothing_is_due_before_the_anchor() -> None:
    before = JUNE_1 - timedelta(days=5)
    assert not FIVE_DAYS.is_due(before)
    assert FIVE_DAYS.previous_due(JUNE_1 - timedelta(minutes=1)) is None
    assert FIVE_DAYS.next_due(before) == JUNE_1


@pytest.mark.parametrize(
    ("unit", "period", "anchor"),
    [("WEEK", 1, JUNE_1), ("DAY", 0, JUNE_1), ("DAY", 1, datetime(2024, 6, 1))],
)
def test_what_is_no_cadence(unit: str, period: int, anchor: datetime) -> None:
    with pytest.raises(ValueError, match="needs a unit of MINUTE, HOUR, DAY"):
        Cadence(unit, period, anchor)


def test_a_period_beyond_a_year_has_the_line_of_its_next_due_time() -> None:
    cadence = Cadence("DAY", 400, JUNE_1)
    assert cadence.cron_lines(JUNE_1 + timedelta(days=1)) == ["0 10 6 7 *"]
    assert cadence.is_due(datetime(2025, 7, 6, 10, tzinfo=UTC))


def test_an_anchor_in_the_far_future_has_its_own_line() -> None:
    assert Cadence("DAY", 5, JUNE_1).cron_lines(datetime(2020, 1, 1, tzinfo=UTC)) == ["0 10 1 6 *"]


@given(cadence=periods, anchor=moments, at=moments)
def test_due_times_are_plain_arithmetic(cadence: tuple[str, int], anchor: datetime, at: datetime) -> None:
    unit, period = cadence
    this, floored, step = Cadence(unit, period, anchor), anchor.replace(second=0, microsecond=0), period * LENGTHS[unit]
    upcoming = this.due_times(at, 4)
    assert all(this.is_due(tick) and not this.is_due(tick + timedelta(minutes=1)) for tick in upcoming)
    assert all((tick - floored) % step == timedelta(0) and tick >= floored for tick in upcoming)
    assert [later - earlier for earlier, later in pairwise(upcoming)] == [step] * 3
    assert upcoming[0] > at
    assert upcoming[0] == floored or upcoming[0] - step <= at
    previous = this.previous_due(at)
    assert previous is None if at < floored else previous is not None and previous + step == upcoming[0]


@settings(max_examples=150, deadline=None)
@given(cadence=periods, anchor=moments, start=moments)
@example(cadence=("DAY", 5), anchor=JUNE_1, start=JUNE_1)
@example(cadence=("DAY", 2), anchor=datetime(2023, 12, 31, 23, 59, tzinfo=UTC), start=datetime(2024, 2, 29, tzinfo=UTC))
@example(cadence=("DAY", 1), anchor=datetime(2024, 2, 29, 12, tzinfo=UTC), start=datetime(2024, 2, 29, 12, tzinfo=UTC))
@example(cadence=("HOUR", 25), anchor=datetime(2023, 3, 1, tzinfo=UTC), start=datetime(2023, 3, 1, tzinfo=UTC))
@example(cadence=("DAY", 366), anchor=datetime(2024, 2, 29, tzinfo=UTC), start=datetime(2024, 1, 1, tzinfo=UTC))
@example(
    cadence=("HOUR", 7), anchor=datetime(2015, 1, 1, tzinfo=UTC), start=datetime(2024, 2, 29, 1, 0, 0, 1, tzinfo=UTC)
)
def test_the_lines_fire_at_the_due_times_and_at_no_other(
    cadence: tuple[str, int], anchor: datetime, start: datetime
) -> None:
    this = Cadence(*cadence, anchor)
    lines = this.cron_lines(start)
    due = due_within(this, start, year_after(start))
    fired = [tick for tick in fires(lines, start, year_after(start)) if tick >= this.anchor]
    if due or len(lines) > 1:
        assert fired == due
    else:
        assert not any(this.is_due(tick) for tick in fired)


@settings(max_examples=50, deadline=None)
@given(cadence=periods, anchor=moments, start=moments)
def test_the_lines_are_few(cadence: tuple[str, int], anchor: datetime, start: datetime) -> None:
    unit, period = cadence
    hours = period * (24 if unit == "DAY" else 1)
    lines = Cadence(unit, period, anchor).cron_lines(start)
    assert is_valid_cron_schedule(lines)
    assert len(lines) <= (1 if 24 % hours == 0 or hours == 168 else 13 if hours % 24 == 0 else 400)


SIXTY = [("HOUR", n) for n in range(1, 37)] + [("DAY", n) for n in (*range(1, 20), 28, 30, 31, 100, 365)]


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "period"), SIXTY)
def test_dagster_fires_at_every_due_time_and_at_no_other(unit: str, period: int) -> None:
    """Over two years with a leap day in one of them, with the lines made anew after the first."""
    cadence = Cadence(unit, period, datetime(2023, 5, 31, 21, 47, tzinfo=UTC))
    first, second, end = (datetime(year, 7, 1, tzinfo=UTC) for year in (2023, 2024, 2025))
    fired = [*dagster_fires(cadence, first, second), *dagster_fires(cadence, second, end)]
    assert fired == due_within(cadence, first, end)


def dagster_fires(cadence: Cadence, start: datetime, end: datetime) -> Iterator[datetime]:
    ticks = schedule_execution_time_iterator(start.timestamp(), cadence.cron_lines(start), "UTC")
    return takewhile(lambda tick: tick < end, ticks)


def due_within(cadence: Cadence, start: datetime, end: datetime) -> list[datetime]:
    """Counted from the anchor, without the code under test."""
    step = cadence.period * LENGTHS[cadence.unit]
    count = max(0, -((cadence.anchor - start) // step) - 1) if start > cadence.anchor else 0
    tick, found = cadence.anchor + count * step, []
    while tick < end:
        if tick >= start:
            found.append(tick)
        tick += step
    return found


def fires(lines: list[str], start: datetime, end: datetime) -> list[datetime]:
    """Each minute of [start, end) that a line names, in order; a cron of its own, day by day."""
    parsed = [[None if part == "*" else {int(n) for n in part.split(",")} for part in line.split()] for line in lines]
    day = start.replace(hour=0, minute=0, second=0, microsecond=0)
    found: list[datetime] = []
    while day < end:
        for minutes, hours, days, months, weekdays in parsed:
            dates = ((days, day.day), (months, day.month), (weekdays, day.isoweekday() % 7))
            if all(wanted is None or value in wanted for wanted, value in dates):
                hour_list = range(24) if hours is None else hours
                minute_list = range(60) if minutes is None else minutes
                found += [day.replace(hour=hour, minute=minute) for hour in hour_list for minute in minute_list]
        day += timedelta(days=1)
    return sorted(tick for tick in found if start <= tick < end)


def year_after(moment: datetime) -> datetime:
    leap_day = (moment.month, moment.day) == (2, 29)
    return datetime(moment.year + 1, 3, 1, tzinfo=UTC) if leap_day else moment.replace(year=moment.year + 1)
