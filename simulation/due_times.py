"""When exports are due, by an arithmetic of its own: what must have been launched, and what may have been."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

CHECKPOINT = timedelta(minutes=71)
"""Dagster notes each hour, more or less, how far a schedule was looked at: a new cadence may begin there."""
MEASUREMENTS = ("usage_raw",)
"""Instead of entities: those of the day before."""


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

    def due(self, after: datetime, until: datetime) -> list[datetime]:
        """The due times in this stretch, without its beginning. The first export of all is none of them."""
        count = int((until - self.created) / timedelta(hours=self.hours))
        moments = (self.created + number * timedelta(hours=self.hours) for number in range(1, count + 1))
        return [moment for moment in moments if after < moment <= until]

    def yaml(self) -> str:
        unit, period = ("DAY", self.hours // 24) if self.hours % 24 == 0 else ("HOUR", self.hours)
        return f"""
  - code: {self.code}
    destinations: [{", ".join(self.destinations)}]
    scheduleType: {unit}
    period: {period}
    dtCreated: {self.created.isoformat()}
{self._what()}"""

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
        """Those that a change of the cadence makes possible."""
        self.firsts: dict[tuple[str, datetime], Schedule] = {}
        """First exports by code and dtCreated."""
        self._seen: Mapping[str, Seen] = {}

    def look(self, schedules: Iterable[Schedule], now: datetime) -> None:
        """The daemon looks now, and these are the schedules that it finds."""
        found = {one.code: one for one in schedules}
        for code, one in found.items():
            before = self._seen.get(code)
            if (code, one.created) not in self.firsts and one.created <= now:
                self.firsts[code, one.created] = one
            if before is None:
                continue
            due = one.due(before.at, now)
            self.owed |= {(code, moment): one for moment in due[-1:]}
            if before.schedule.hours != one.hours:
                self.possible |= {(code, moment): one for moment in one.due(before.at - CHECKPOINT, now)}
        self._seen = {code: Seen(one, now) for code, one in found.items()}
