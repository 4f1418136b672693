"""When a schedule is due: first at a moment, then every N minutes, hours or days, or by cron. UTC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from math import gcd

from m3ter_dagster.model.cron import Cron
from m3ter_dagster.model.cron_lines import lines_of_dates, lines_of_weekdays

UNITS = {"MINUTE": timedelta(minutes=1), "HOUR": timedelta(hours=1), "DAY": timedelta(days=1)}
OFFSETS = {"HOUR": "MINUTE", "DAY": "HOUR"}
"""The unit of an offset, by that of the period: m3ter's minutes after the full hour, hours after midnight."""
DAY, WEEK = timedelta(days=1), timedelta(weeks=1)
MOST_LINES = 25
"""More of them nobody reads in Dagster's UI."""
WEEKS = (5, 4, 3)
"""How many the lines of a cadence are right for that is not the same each week: as many as fit into the lines."""


@dataclass(frozen=True)
class Period:
    """Due every `count` units: from `origin` on or, with an offset, from so long after the hour or day of it began."""

    unit: str
    count: int
    origin: datetime
    offset: int = 0

    def __post_init__(self) -> None:
        if self.unit not in UNITS or self.count < 1 or self.origin.tzinfo is None:
            raise ValueError(f"{self} is no period; it needs a unit of {', '.join(UNITS)}, 1 or more, a time zone.")
        origin = _floored(self.origin)
        if self.offset:
            start = origin.replace(minute=0, hour=0 if self.unit == "DAY" else origin.hour)
            origin = start + self.offset * UNITS[OFFSETS[self.unit]]
        object.__setattr__(self, "origin", origin)

    @property
    def shortest(self) -> timedelta:
        """The shortest time from one due time to the next."""
        return self.count * UNITS[self.unit]

    @property
    def longest(self) -> timedelta:
        return self.shortest

    def after(self, moment: datetime) -> datetime:
        """The first time later than `moment`."""
        return self.latest(moment) + self.shortest

    def latest(self, moment: datetime) -> datetime:
        """The last time that is not later than `moment`."""
        return self.origin + (moment - self.origin) // self.shortest * self.shortest

    def words(self) -> str:
        unit = self.unit.lower()
        every = f"every {unit}" if self.count == 1 else f"every {self.count} {unit}s"
        at = f" at {self.origin:%H:%M}" if self.unit == "DAY" else f" at minute {self.origin.minute}"
        return every + (at if self.offset else "")

    def cron_lines(self, start: datetime) -> list[str]:
        """Lines that fire at exactly the due times, for ever where each week is alike, else for weeks from `start`.

        Where these are too many, one line fires more often. Cron knows no year: ask at each tick whether it is due.
        """
        if WEEK % self.shortest == timedelta(0):
            lines = lines_of_weekdays(self._from(start, start + WEEK))
            return lines if len(lines) <= MOST_LINES else [self._frequent_line()]
        for weeks in WEEKS:
            due = list(self._from(start, start + weeks * WEEK)) or [self.after(start)]
            if len(lines := lines_of_dates(due)) <= MOST_LINES:
                return lines
        return [self._frequent_line()]

    def _from(self, start: datetime, end: datetime) -> Iterator[datetime]:
        first = self.after(start - UNITS["MINUTE"])
        return takewhile(
            lambda due: due < end, (first + n * self.shortest for n in range((end - start) // self.shortest + 1))
        )

    def _frequent_line(self) -> str:
        """A line that fires at each due time, and at others."""
        step = gcd(self.shortest // UNITS["MINUTE"], 60)
        minutes = range(self.origin.minute % step, 60, step)
        return f"{'*' if step == 1 else ','.join(map(str, minutes))} * * * *"


@dataclass(frozen=True)
class Cadence:
    """Due at `anchor`, and at the times of a recurrence after it. Cron knows no seconds: it is cut to the minute."""

    recurrence: Period | Cron
    anchor: datetime

    def __post_init__(self) -> None:
        object.__setattr__(self, "anchor", _floored(self.anchor))

    @property
    def shortest(self) -> timedelta:
        """The shortest time from one due time to the next, but for the first."""
        return self.recurrence.shortest

    @property
    def longest(self) -> timedelta:
        return self.recurrence.longest

    def is_due(self, tick: datetime) -> bool:
        return self.previous_due(tick) == tick

    def next_due(self, after: datetime) -> datetime:
        """The first due time later than `after`."""
        return self.anchor if after < self.anchor else self.recurrence.after(after)

    def previous_due(self, at: datetime) -> datetime | None:
        """The last due time that is not later than `at`, if there was one."""
        return max(self.anchor, self.recurrence.latest(at)) if at >= self.anchor else None

    def due_times(self, after: datetime, count: int) -> list[datetime]:
        """The next `count` due times later than `after`."""
        return list(islice(self._later(after), count))

    def words(self) -> str:
        return f"{self.recurrence.words()} since {self.anchor:%Y-%m-%d %H:%M} UTC"

    def cron_lines(self, start: datetime) -> list[str]:
        """Lines of cron that fire at the due times of the next weeks, or for ever. Ask `is_due` at each tick."""
        return self.recurrence.cron_lines(start)

    def _later(self, after: datetime) -> Iterator[datetime]:
        while True:
            after = self.next_due(after)
            yield after


def _floored(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(second=0, microsecond=0)
