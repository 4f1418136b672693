"""A cron expression against Dagster's own reading of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from dagster._utils.schedules import is_valid_cron_string, schedule_execution_time_iterator
from hypothesis import example, given, settings
from hypothesis import strategies as st

from m3ter_dagster.model.cron import Cron

JUNE_1 = datetime(2024, 6, 1, 10, tzinfo=UTC)


def field(lowest: int, highest: int, *names: str) -> st.SearchStrategy[str]:
    numbers = st.integers(lowest, highest)
    value = st.one_of(numbers.map(str), st.sampled_from(names)) if names else numbers.map(str)
    # Dagster takes the weekday 0-0 for every day, and all seven not always.
    ends = st.tuples(numbers, numbers).filter(lambda ends: ends[0] < ends[1])
    ranges = ends.map(lambda ends: f"{ends[0]}-{ends[1]}")
    steps = st.tuples(st.one_of(st.just("*"), ranges), st.integers(2, highest)).map(lambda both: f"{both[0]}/{both[1]}")
    return st.lists(st.one_of(value, ranges, steps), min_size=1, max_size=3).map(",".join)


def any_or(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(st.just("*"), values)


expressions = st.tuples(
    st.integers(0, 59).map(str),
    any_or(field(0, 23)),
    any_or(field(1, 28)),
    any_or(field(1, 12, "JAN", "oct")),
    any_or(field(1, 5, "MON", "fri")),
).map(" ".join)


@settings(max_examples=100, deadline=None)
@given(
    expression=expressions,
    start=st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)),
)
@example(expression="0 0 1,15 * MON", start=JUNE_1)
@example(expression="0 0 */2 * 1", start=JUNE_1)
@example(expression="5/20 3 29 2 *", start=JUNE_1)
@example(expression="0 0 * * 5-7", start=JUNE_1)
def test_it_is_due_when_dagster_fires(expression: str, start: datetime) -> None:
    assert is_valid_cron_string(expression)
    fires = schedule_execution_time_iterator(start.timestamp(), expression, "UTC")
    fired = list(islice((one for one in fires if one > start), 4))
    cron, due = Cron(expression), [start]
    for _ in fired:
        due.append(cron.after(due[-1]))
    assert due[1:] == fired
    assert [cron.latest(later - timedelta(minutes=1)) for later in fired[1:]] == fired[:-1]
    assert all(cron.latest(one) == one for one in fired)
    assert all(cron.shortest <= later - one <= cron.longest for one, later in pairwise(fired))


@pytest.mark.parametrize(
    ("expression", "shortest", "longest"),
    [
        ("*/15 * * * *", timedelta(minutes=15), timedelta(minutes=15)),
        ("0 8-18 * * 1-5", timedelta(hours=1), timedelta(days=2, hours=14)),
        ("0 */5 * * *", timedelta(hours=4), timedelta(hours=5)),
        ("0,55 0,23 * * *", timedelta(minutes=5), timedelta(hours=22, minutes=5)),
        ("0,55 0,23 * * 1", timedelta(minutes=55), timedelta(days=6, minutes=5)),
        ("0 0 29 2 *", timedelta(days=1461), timedelta(days=1461)),
    ],
)
def test_the_times_between_two_due_times(expression: str, shortest: timedelta, longest: timedelta) -> None:
    assert (Cron(expression).shortest, Cron(expression).longest) == (shortest, longest)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 0 * *", "cron has five fields: minute, hour, day of the month, month, weekday"),
        ("0 0 * * * *", "cron has five fields"),
        ("@daily", "cron has five fields"),
        ("60 0 * * *", "'60' is no minute from 0 to 59"),
        ("0 0 * * 8", "'8' is no weekday from 0 to 7"),
        ("0 9-5 * * *", "'9-5' is no hour from 0 to 23"),
        ("0 0 L * *", "'L' is no day of the month"),
        ("0 0 * * FRI#2", "'FRI#2' is no weekday"),
        ("0 0 ? * *", "is no day of the month"),
        ("*/0 0 * * *", "is no minute"),
        ("0, 0 * * *", "is no minute"),
        ("0 0 31 2,4 *", "no month has such a day"),
    ],
)
def test_what_is_no_expression(expression: str, words: str) -> None:
    with pytest.raises(ValueError) as refused:
        Cron(expression)
    assert words in str(refused.value)
