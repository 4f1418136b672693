"""When exports are due, by an arithmetic of its own: what must have been launched, and what may have been."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GRACE = timedelta(minutes=6)
"""So long after a due time its export is there, whoever launches it. A new cadence may begin so long ago."""
MEASUREMENTS = ("usage_raw",)
"""Instead of entities: those of the day before."""
WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")


@dataclass(frozen=True)
class Cron:
    """At this minute of these hours on these weekdays, from 0."""

    minute: int
    hours: tuple[int, ...]
    weekdays: tuple[int, ...]

    def yaml(self) -> str:
        weekdays = ",".join(WEEKDAYS[one] for one in self.weekdays)
        return f'    cronExpression: "{self.minute} {",".join(map(str, self.hours))} * * {weekdays}"\n'

    def moments(self, first: datetime, last: datetime) -> Iterable[datetime]:
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
        days = (midnight + number * DAY for number in range((last - midnight) // DAY + 1))
        times = [hour * HOUR + timedelta(minutes=self.minute) for hour in self.hours]
        return (day + time for day in days if day.weekday() in self.weekdays for time in times)


@dataclass(frozen=True)
class Schedule:
    """One of exports.yaml."""

    code: str
    entities: tuple[str, ...]
    destinations: tuple[str, ...]
    hours: int
    created: datetime
    changes: bool = False
    completeness: str = "previous"
    reuse: bool = False

    offset: int = 0
    """Hours after midnight where whole days are the period, else minutes after the full hour."""
    cron: Cron | None = None
    """Instead of hours."""

    def due(self, after: datetime, until: datetime) -> list[datetime]:
        """The due times in this stretch, without its beginning. The first export of all is none of them."""
        return [one for one in self._moments(until) if max(after, self.created) < one <= until]

    def _moments(self, until: datetime) -> Iterable[datetime]:
        if self.cron:
            return self.cron.moments(self.created, until)
        origin = self.created
        if self.offset and self._is_by_day:
            origin = origin.replace(hour=self.offset, minute=0)
        elif self.offset:
            origin = origin.replace(minute=self.offset)
        count = (until - origin) // HOUR // self.hours
        return (origin + number * self.hours * HOUR for number in range(count + 1))

    @property
    def _is_by_day(self) -> bool:
        return self.hours % 24 == 0

    @property
    def when(self) -> str:
        """The lines of exports.yaml."""
        if self.cron:
            return self.cron.yaml()
        unit, period = ("DAY", self.hours // 24) if self._is_by_day else ("HOUR", self.hours)
        offset = f"    offset: {self.offset}\n" if self.offset else ""
        return f"    scheduleType: {unit}\n    period: {period}\n{offset}"

    def yaml(self) -> str:
        return f"""
  - code: {self.code}
    destinations: [{", ".join(self.destinations)}]
    dtCreated: {self.created.isoformat()}
{self.when}{self._what()}"""

    def _what(self) -> str:
        if self.entities == MEASUREMENTS:
            return "    sourceType: USAGE\n    timePeriod: YESTERDAY\n"
        reuse = "    reuse: unchangedBills\n    fullEvery: 3\n" if self.reuse else ""
        return f"""\
    operationalDataTypes: [{", ".join(self.entities)}]
    changes: {str(self.changes).lower()}
    completeness: {self.completeness}
{reuse}"""


@dataclass(frozen=True)
class Seen:
    """A schedule as the daemon saw it last."""

    schedule: Schedule
    at: datetime


Due = tuple[str, datetime]


class DueTimes:
    """What a daemon owes that looks at the schedules from time to time. After a standstill only the latest is made up
    for; a schedule that is new to the daemon owes its first export, once per code and dtCreated."""

    def __init__(self) -> None:
        self.owed: dict[Due, Schedule] = {}
        self.possible: dict[Due, Schedule] = {}
        """Those that a change of the cadence, a switch or a late first export makes possible."""
        self.firsts: dict[tuple[str, datetime], Schedule] = {}
        """First exports by code and dtCreated."""
        self._seen: Mapping[str, Seen] = {}

    def look(self, schedules: Iterable[Schedule], now: datetime, off: Collection[str] = ()) -> None:
        """The daemon looks now, and these are the schedules that it finds. `off` are switched off."""
        found = {one.code: one for one in schedules if one.code not in off}
        for code, one in found.items():
            before = self._seen.get(code)
            is_first = (code, one.created) not in self.firsts and one.created <= now
            if is_first:
                self.firsts[code, one.created] = one
            if before is None:
                continue
            if not is_first:
                self.owed |= {(code, moment): one for moment in one.due(before.at, now)[-1:]}
            if before.schedule != one or is_first:
                self.possible |= {(code, moment): one for moment in one.due(before.at - GRACE, now)}
        for due in [due for due in self.owed if due[0] in off and due[1] > now - GRACE]:
            self.possible[due] = self.owed.pop(due)
        self._seen = {code: Seen(one, now) for code, one in found.items()}
