"""A cron expression as arithmetic: when it is due, and how often. UTC."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise

DAY = timedelta(days=1)
_PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[1-9]\d?))?", re.ASCII)
_FIELDS = {"minute": (0, 59), "hour": (0, 23), "day of the month": (1, 31), "month": (1, 12), "weekday": (0, 7)}
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_NAMES = {
    "month": {name: number for number, name in enumerate(_MONTHS, 1)},
    "weekday": {name: number for number, name in enumerate(_WEEKDAYS)},
}
_LEAP_DAYS_APART = 8 * 366
"""Days: 1904 follows 1896."""


@dataclass(frozen=True)
class Cron:
    """Due as an expression of five fields says: numbers, names, ranges, steps and lists of them.

    A day of the month and a weekday: either of them is enough, as in Dagster. ValueError says what is wrong.
    """

    expression: str

    def __post_init__(self) -> None:
        if next(self._days(date(2024, 1, 1), 1), None) is None:
            raise ValueError("no month has such a day")

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`."""
        return next(time for day in self._days(moment.date(), 1) for time in self._times(day) if time > moment)

    def latest(self, moment: datetime) -> datetime:
        """The last time that is not later than `moment`."""
        return next(time for day in self._days(moment.date(), -1) for time in self._times(day)[::-1] if time <= moment)

    @property
    def shortest(self) -> timedelta:
        """The shortest time from one due time to the next."""
        return _gaps(self)[0]

    @property
    def longest(self) -> timedelta:
        return _gaps(self)[1]

    def words(self) -> str:
        return f"by the cron expression {self.expression}"

    def cron_lines(self, start: datetime) -> list[str]:  # noqa: ARG002
        return [self.expression]

    def _days(self, first: date, step: int) -> Iterator[date]:
        """The days from `first` on, or back from it."""
        _, _, days, months, weekdays = _parsed(self.expression)
        either = len(days) < 31 and len(weekdays) < 7
        for number in range(_LEAP_DAYS_APART + 1):
            day = first + step * number * DAY
            is_day, is_weekday = day.day in days, day.isoweekday() % 7 in weekdays
            if day.month in months and ((is_day or is_weekday) if either else (is_day and is_weekday)):
                yield day

    def _times(self, day: date) -> list[datetime]:
        minutes, hours, *_ = _parsed(self.expression)
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return [midnight.replace(hour=hour, minute=minute) for hour in sorted(hours) for minute in sorted(minutes)]


@cache
def _parsed(expression: str) -> tuple[frozenset[int], ...]:
    """The minutes, hours, days of the month, months and weekdays (0: Sunday) of an expression."""
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"cron has five fields: {', '.join(_FIELDS)}")
    minutes, hours, days, months, weekdays = (
        frozenset(value for part in field.split(",") for value in _values(part, name))
        for name, field in zip(_FIELDS, fields, strict=True)
    )
    return minutes, hours, days, months, frozenset(day % 7 for day in weekdays)


def _values(part: str, name: str) -> range:
    """The values of a part of the field, such as `8-18/2`, `*/15` or `MON`."""
    lowest, highest = _FIELDS[name]
    found = _PART.fullmatch(part)
    names = _NAMES.get(name, {})
    ends = [names.get(one.upper(), one) for one in found.group("first", "last") if one] if found else ["-"]
    if not found or not all(isinstance(one, int) or one.isdecimal() for one in ends):
        raise ValueError(f"{part!r} is no {name}")
    first, last = (int(ends[0]), int(ends[-1])) if ends else (lowest, 6 if name == "weekday" else highest)
    if len(ends) == 1 and found["step"]:
        last = highest
    if not lowest <= first <= last <= highest:
        raise ValueError(f"{part!r} is no {name} from {lowest} to {highest}")
    return range(first, last + 1, int(found["step"] or 1))


@cache
def _gaps(cron: Cron) -> tuple[timedelta, timedelta]:
    """The shortest and the longest time from one due time to the next, over all combinations of days that there are."""
    days = list(cron._days(date(2024, 1, 1), 1))
    first, *_, last = times if len(times := cron._times(days[0])) > 1 else times * 2
    within = [later - time for time, later in pairwise(times)]
    overnight = {later - day for day, later in pairwise(days)} or {_LEAP_DAYS_APART * DAY}
    gaps = [*within, *(apart - (last - first) for apart in overnight)]
    return min(gaps), max(gaps)
