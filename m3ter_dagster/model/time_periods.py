"""m3ter's time periods of usage exports: each as a window of UTC time before the moment an export is due. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY = timedelta(days=1)


class WindowBackwards(ValueError):
    """A window that ends before it begins, or whose ends could be any of 24 hours."""

    def __init__(self, start: datetime, end: datetime) -> None:
        super().__init__(
            f"the window from {start.isoformat()} to {end.isoformat()} is impossible; its ends need a time zone, and "
            "the second must not be before the first."
        )


@dataclass(frozen=True)
class Window:
    """The time from `start` up to, but not including, `end`. UTC."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() is None or self.end.utcoffset() is None or self.end < self.start:
            raise WindowBackwards(self.start, self.end)
        object.__setattr__(self, "start", self.start.astimezone(UTC))
        object.__setattr__(self, "end", self.end.astimezone(UTC))

    @property
    def is_empty(self) -> bool:
        return self.start == self.end

    def __str__(self) -> str:
        return f"{_shown(self.start)} to {_shown(self.end)} UTC"


def window_of(time_period: str, due: datetime) -> Window:
    """The window of an export due at this time, as m3ter's API reference describes the period."""
    if due.utcoffset() is None:
        raise WindowBackwards(due, due)
    return TIME_PERIODS[time_period](due.astimezone(UTC))


def midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def week_start(moment: datetime) -> datetime:
    """The start of the week, which runs from Monday to Monday."""
    return midnight(moment) - moment.weekday() * DAY


def month_start(moment: datetime) -> datetime:
    return midnight(moment).replace(day=1)


def _quarter_start(moment: datetime) -> datetime:
    return month_start(moment).replace(month=(moment.month - 1) // 3 * 3 + 1)


def _year_start(moment: datetime) -> datetime:
    return month_start(moment).replace(month=1)


def _to_date(start: Callable[[datetime], datetime]) -> Callable[[datetime], Window]:
    """A window that ends at the moment itself."""
    return lambda due: Window(start(due), due)


def _previous(start: Callable[[datetime], datetime]) -> Callable[[datetime], Window]:
    """The whole period before the current one, which `due` is in."""
    return lambda due: Window(start(start(due) - DAY), start(due))


def _last_days(count: int) -> Callable[[datetime], Window]:
    """Whole days up to the last midnight."""
    return lambda due: Window(midnight(due) - count * DAY, midnight(due))


def _last_12_hours(due: datetime) -> Window:
    hour = due.replace(minute=0, second=0, microsecond=0)
    return Window(hour - timedelta(hours=12), hour)


def _last_year(due: datetime) -> Window:
    """A window from the same date a year before; for a leap day, from February 28."""
    end = midnight(due)
    is_leap_day = (end.month, end.day) == (2, 29)
    return Window(end.replace(year=end.year - 1, day=28 if is_leap_day else end.day), end)


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}".removesuffix(":00")


TIME_PERIODS: Mapping[str, Callable[[datetime], Window]] = {
    "TODAY": _to_date(midnight),
    "YESTERDAY": _previous(midnight),
    "WEEK_TO_DATE": _to_date(week_start),
    "MONTH_TO_DATE": _to_date(month_start),
    "YEAR_TO_DATE": _to_date(_year_start),
    "PREVIOUS_WEEK": _previous(week_start),
    "PREVIOUS_MONTH": _previous(month_start),
    "PREVIOUS_QUARTER": _previous(_quarter_start),
    "PREVIOUS_YEAR": _previous(_year_start),
    "LAST_12_HOURS": _last_12_hours,
    "LAST_7_DAYS": _last_days(7),
    "LAST_30_DAYS": _last_days(30),
    "LAST_35_DAYS": _last_days(35),
    "LAST_90_DAYS": _last_days(90),
    "LAST_120_DAYS": _last_days(120),
    "LAST_YEAR": _last_year,
}
