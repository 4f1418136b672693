"""Every N hours or days since a moment: due times by arithmetic, and the cron lines that fire at them. UTC."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import permutations

UNITS = {"MINUTE": timedelta(minutes=1), "HOUR": timedelta(hours=1), "DAY": timedelta(days=1)}
HOUR, DAY, WEEK = timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)

Box = tuple[frozenset[int], ...]
"""Months, days, hours and minutes; a box stands for every combination of one of each."""
MINUTES = 3
"""The index of the minutes in a box. They are merged first, since all those of an hour are on one line anyway."""


@dataclass(frozen=True)
class Cadence:
    """Due at `anchor` and every `period` units after it. Cron knows no seconds, so the anchor is cut to the minute."""

    unit: str
    period: int
    anchor: datetime

    def __post_init__(self) -> None:
        if self.unit not in UNITS or self.period < 1 or self.anchor.tzinfo is None:
            raise ValueError(
                f"{self} is no cadence; it needs a unit of {', '.join(UNITS)}, a period above 0, a time zone."
            )
        object.__setattr__(self, "anchor", self.anchor.astimezone(UTC).replace(second=0, microsecond=0))

    @property
    def interval(self) -> timedelta:
        return self.period * UNITS[self.unit]

    def is_due(self, tick: datetime) -> bool:
        """Whether `tick` is the anchor + n periods, for some n >= 0."""
        return tick >= self.anchor and (tick - self.anchor) % self.interval == timedelta(0)

    def next_due(self, after: datetime) -> datetime:
        """The first due time later than `after`."""
        if after < self.anchor:
            return self.anchor
        return self.anchor + ((after - self.anchor) // self.interval + 1) * self.interval

    def previous_due(self, at: datetime) -> datetime | None:
        """The last due time that is not later than `at`, if there was one."""
        if at < self.anchor:
            return None
        return self.anchor + (at - self.anchor) // self.interval * self.interval

    def due_times(self, after: datetime, count: int) -> list[datetime]:
        """The next `count` due times later than `after`."""
        first = self.next_due(after)
        return [first + n * self.interval for n in range(count)]

    def words(self) -> str:
        unit = self.unit.lower()
        every = f"every {unit}" if self.period == 1 else f"every {self.period} {unit}s"
        return f"{every} since {self.anchor:%Y-%m-%d %H:%M} UTC"

    def cron_lines(self, start: datetime) -> list[str]:
        """Cron lines that fire at exactly the due times of the twelve months from `start`.

        Cron knows no year: in other years, and before the anchor, they fire at other times too, so ask `is_due`
        at each tick. If nothing is due in the twelve months, the one line is that of the next due time.
        """
        simple = self._simple_line()
        if simple:
            return [simple]
        due = list(self._due_from(start, _a_year_after(start))) or [self.next_due(start)]
        return sorted(map(_line, _fewest_boxes(due)), key=_in_order_of_months)

    def _due_from(self, start: datetime, end: datetime) -> Iterator[datetime]:
        tick = self.next_due(start - timedelta(microseconds=1))
        while tick < end:
            yield tick
            tick += self.interval

    def _simple_line(self) -> str | None:
        """One line that is right in every year, if there is one."""
        minute, hour = self.anchor.minute, self.anchor.hour
        if HOUR % self.interval == timedelta(0):
            return f"{_cycle(minute, self.interval // UNITS['MINUTE'], 60)} * * * *"
        if DAY % self.interval == timedelta(0) and self.interval % HOUR == timedelta(0):
            return f"{minute} {_cycle(hour, self.interval // HOUR, 24)} * * *"
        if self.interval == WEEK:
            return f"{minute} {hour} * * {self.anchor.isoweekday() % 7}"
        return None


def _cycle(first: int, step: int, size: int) -> str:
    return "*" if step == 1 else _listed(range(first % step, size, step))


def _a_year_after(start: datetime) -> datetime:
    """A year after `start`; after February 29 the next March 1, since cron could not tell two equal dates apart."""
    try:
        return start.replace(year=start.year + 1)
    except ValueError:
        return datetime(start.year + 1, 3, 1, tzinfo=start.tzinfo)


def _fewest_boxes(times: Iterable[datetime]) -> set[Box]:
    """The times as boxes: those that differ in one dimension become one, in the order that leaves the fewest."""
    points = {tuple(frozenset({part}) for part in (t.month, t.day, t.hour, t.minute)) for t in times}
    merged = (reduce(_merge, (MINUTES, *order), points) for order in permutations((2, 1, 0)))
    return min(merged, key=len)


def _merge(boxes: set[Box], dimension: int) -> set[Box]:
    alike: dict[Box, frozenset[int]] = defaultdict(frozenset)
    for box in boxes:
        alike[box[:dimension] + box[dimension + 1 :]] |= box[dimension]
    return {(*rest[:dimension], values, *rest[dimension:]) for rest, values in alike.items()}


def _line(box: Box) -> str:
    months, days, hours, minutes = map(_listed, box)
    return f"{minutes} {hours} {days} {months} *"


def _listed(values: Iterable[int]) -> str:
    return ",".join(map(str, sorted(values)))


def _in_order_of_months(line: str) -> list[list[int]]:
    """The order of boxes: by month, day, hour and minute, read from right to left."""
    return [[int(value) for value in part.split(",")] for part in reversed(line.split()[:4])]
