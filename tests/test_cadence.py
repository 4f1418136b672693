from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise, takewhile

import pytest
from dagster._utils.schedules import is_valid_cron_schedule, schedule_execution_time_iterator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3ter_dagster.model.cadence import MOST_LINES, Cadence, Period
from m3ter_dagster.model.cron import Cron

JUNE_1 = datetime(2024, 6, 1, 10, tzinfo=UTC)
LENGTHS = {"MINUTE": timedelta(minutes=1), "HOUR": timedelta(hours=1), "DAY": timedelta(days=1)}
AHEAD = timedelta(weeks=3)
"""The lines of every cadence are right for at least so long."""


def every(unit: str, period: int, anchor: datetime = JUNE_1, offset: int = 0) -> Cadence:
    return Cadence(Period(unit, period, anchor, offset), anchor)


FIVE_DAYS = every("DAY", 5)

moments = st.datetimes(datetime(2015, 1, 1), datetime(2035, 12, 31), timezones=st.just(UTC))
periods = st.one_of(
    st.tuples(st.just("MINUTE"), st.integers(15, 3000)),
    st.tuples(st.just("HOUR"), st.integers(1, 200)),
    st.tuples(st.just("DAY"), st.integers(1, 400)),
)


def test_the_documents_example() -> None:
    assert FIVE_DAYS.due_times(JUNE_1, 3) == [JUNE_1 + timedelta(days=days) for days in (5, 10, 15)]
    assert FIVE_DAYS.is_due(datetime(2024, 6, 6, 10, tzinfo=UTC))
    assert not FIVE_DAYS.is_due(datetime(2024, 6, 6, 11, tzinfo=UTC))
    assert not FIVE_DAYS.is_due(datetime(2024, 5, 27, 10, tzinfo=UTC))


@pytest.mark.parametrize(
    ("cadence", "words"),
    [
        (every("DAY", 5), "every 5 days since 2024-06-01 10:00 UTC"),
        (every("DAY", 1), "every day since 2024-06-01 10:00 UTC"),
        (every("HOUR", 1), "every hour since 2024-06-01 10:00 UTC"),
        (every("HOUR", 36), "every 36 hours since 2024-06-01 10:00 UTC"),
        (every("MINUTE", 15), "every 15 minutes since 2024-06-01 10:00 UTC"),
        (every("DAY", 2, offset=5), "every 2 days at 05:00 since 2024-06-01 10:00 UTC"),
        (every("HOUR", 5, offset=15), "every 5 hours at minute 15 since 2024-06-01 10:00 UTC"),
        (Cadence(Cron("0 8 * * 1"), JUNE_1), "by the cron expression 0 8 * * 1 since 2024-06-01 10:00 UTC"),
    ],
)
def test_words(cadence: Cadence, words: str) -> None:
    assert cadence.words() == words


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
        ("MINUTE", 90, ["0 1,4,7,10,13,16,19,22 * * *", "30 2,5,8,11,14,17,20,23 * * *"]),
        ("MINUTE", 50, ["0,10,20,30,40,50 * * * *"]),
        ("MINUTE", 17, ["* * * * *"]),
        (
            "HOUR",
            7,
            [
                "0 0,7,14,21 * * 0",
                "0 4,11,18 * * 1",
                "0 1,8,15,22 * * 2",
                "0 5,12,19 * * 3",
                "0 2,9,16,23 * * 4",
                "0 6,13,20 * * 5",
                "0 3,10,17 * * 6",
            ],
        ),
        ("DAY", 90, ["0 10 1 6 *"]),
        ("DAY", 5, ["0 10 6,11,16,21,26 6 *", "0 10 1 6,7 *"]),
    ],
)
def test_lines(unit: str, period: int, lines: list[str]) -> None:
    assert every(unit, period).cron_lines(JUNE_1) == lines


def test_seconds_of_the_anchor_are_floored() -> None:
    cadence = every("HOUR", 2, JUNE_1.replace(second=59, microsecond=999_999))
    assert cadence.anchor == JUNE_1
    assert cadence.is_due(JUNE_1 + timedelta(hours=2))


def test_zones_do_not_matter() -> None:
    there = timezone(timedelta(hours=5, minutes=30))
    assert every("DAY", 5, JUNE_1.astimezone(there)) == FIVE_DAYS
    assert FIVE_DAYS.is_due((JUNE_1 + timedelta(days=5)).astimezone(there))


def test_nothing_is_due_before_the_anchor() -> None:
    before = JUNE_1 - timedelta(days=5)
    assert not FIVE_DAYS.is_due(before)
    assert FIVE_DAYS.previous_due(JUNE_1 - timedelta(minutes=1)) is None
    assert FIVE_DAYS.next_due(before) == JUNE_1


@pytest.mark.parametrize(
    ("cadence", "due"),
    [
        (every("DAY", 2, offset=5), ["06-01 10:00", "06-03 05:00", "06-05 05:00"]),
        (every("DAY", 1, offset=23), ["06-01 10:00", "06-01 23:00", "06-02 23:00"]),
        (every("HOUR", 5, JUNE_1.replace(minute=20), offset=15), ["06-01 10:20", "06-01 15:15", "06-01 20:15"]),
        (every("HOUR", 5, JUNE_1.replace(minute=20), offset=45), ["06-01 10:20", "06-01 10:45", "06-01 15:45"]),
        (Cadence(Cron("0 8-18/5 * * MON-FRI"), JUNE_1), ["06-01 10:00", "06-03 08:00", "06-03 13:00"]),
    ],
)
def test_the_first_is_due_when_created_and_the_others_as_offset_and_cron_say(cadence: Cadence, due: list[str]) -> None:
    found = cadence.due_times(JUNE_1 - timedelta(days=1), 3)
    assert [f"{one:%m-%d %H:%M}" for one in found] == due
    assert all(cadence.is_due(one) and not cadence.is_due(one + timedelta(minutes=1)) for one in found)
    assert [cadence.previous_due(one + timedelta(minutes=1)) for one in found] == found


@pytest.mark.parametrize(
    ("unit", "period", "anchor"),
    [("WEEK", 1, JUNE_1), ("DAY", 0, JUNE_1), ("DAY", 1, datetime(2024, 6, 1))],
)
def test_what_is_no_period(unit: str, period: int, anchor: datetime) -> None:
    with pytest.raises(ValueError, match="needs a unit of MINUTE, HOUR, DAY"):
        Period(unit, period, anchor)


def test_a_long_period_has_the_line_of_its_next_due_time() -> None:
    cadence = every("DAY", 400)
    assert cadence.cron_lines(JUNE_1 + timedelta(days=1)) == ["0 10 6 7 *"]
    assert cadence.is_due(datetime(2025, 7, 6, 10, tzinfo=UTC))


@given(cadence=periods, anchor=moments, at=moments)
def test_due_times_are_plain_arithmetic(cadence: tuple[str, int], anchor: datetime, at: datetime) -> None:
    unit, period = cadence
    this, floored, step = every(unit, period, anchor), anchor.replace(second=0, microsecond=0), period * LENGTHS[unit]
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
@example(cadence=("HOUR", 23), anchor=datetime(2023, 3, 1, tzinfo=UTC), start=datetime(2023, 12, 15, tzinfo=UTC))
@example(cadence=("HOUR", 25), anchor=datetime(2023, 3, 1, tzinfo=UTC), start=datetime(2023, 3, 1, tzinfo=UTC))
@example(cadence=("DAY", 366), anchor=datetime(2024, 2, 29, tzinfo=UTC), start=datetime(2024, 1, 1, tzinfo=UTC))
@example(cadence=("DAY", 371), anchor=datetime(2023, 3, 16, tzinfo=UTC), start=datetime(2030, 5, 1, tzinfo=UTC))
@example(cadence=("MINUTE", 45), anchor=datetime(2024, 2, 29, tzinfo=UTC), start=datetime(2024, 1, 1, tzinfo=UTC))
@example(cadence=("MINUTE", 17), anchor=JUNE_1, start=JUNE_1)
def test_the_lines_are_few_and_fire_at_every_due_time_of_weeks(
    cadence: tuple[str, int], anchor: datetime, start: datetime
) -> None:
    """And at no other after the anchor, but for cadences of odd minutes, and of years: lines of cron have none."""
    unit, period = cadence
    this = every(unit, period, anchor)
    lines = this.cron_lines(start)
    assert is_valid_cron_schedule(lines)
    assert len(lines) <= MOST_LINES
    due = due_within(unit, period, this.anchor, start, start + AHEAD)
    fired = [tick for tick in fires(lines, start, start + AHEAD) if tick >= this.anchor]
    assert set(due) <= set(fired)
    is_frequent = unit == "MINUTE" and period % 60 and lines[0].endswith(" * * * *")
    assert fired == due or is_frequent or (unit == "DAY" and period >= 365)


COMMON = [
    *(("MINUTE", n) for n in (15, 45, 50, 90)),
    *(("HOUR", n) for n in (*range(1, 13), 23, 25, 36)),
    *(("DAY", n) for n in (1, 2, 3, 5, 7, 30)),
]


@pytest.mark.parametrize(("unit", "period"), COMMON)
def test_dagster_fires_at_every_due_time(unit: str, period: int) -> None:
    """Around a leap day, with lines that are made anew after three weeks."""
    cadence = every(unit, period, datetime(2023, 5, 31, 21, 47, tzinfo=UTC))
    first = datetime(2024, 2, 12, tzinfo=UTC)
    fired = [*dagster_fires(cadence, first), *dagster_fires(cadence, first + AHEAD)]
    assert [tick for tick in fired if cadence.is_due(tick)] == due_within(
        unit, period, cadence.anchor, first, first + 2 * AHEAD
    )


def dagster_fires(cadence: Cadence, start: datetime) -> Iterator[datetime]:
    ticks = schedule_execution_time_iterator(start.timestamp(), cadence.cron_lines(start), "UTC")
    return takewhile(lambda tick: tick < start + AHEAD, ticks)


def due_within(unit: str, period: int, anchor: datetime, start: datetime, end: datetime) -> list[datetime]:
    """Counted from the anchor, without the code under test."""
    step = period * LENGTHS[unit]
    tick, found = anchor + max(0, (start - anchor) // step) * step, []
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
