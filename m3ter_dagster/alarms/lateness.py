"""When an export is late, and how old the last one of an asset may be: arithmetic on due times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import dagster as dg
import msgspec

from m3ter_dagster.config import Exports, grace
from m3ter_dagster.model.cadence import Cadence


class Watch(msgspec.Struct, frozen=True):
    """What the sensor remembers of a schedule from one tick to the next."""

    cadence: str
    """In words: a schedule that was changed owes nothing for times before the change."""
    since: datetime
    """When it was first seen switched on and with this cadence."""
    is_new: bool
    """The schedule was unknown before, so its first export is launched at once."""
    reported: datetime | None = msgspec.field(default=None, name="told")
    """The due time that was reported as late and has not recovered."""


def watched(before: Watch | None, cadence: Cadence, *, is_on: bool, now: datetime) -> Watch:
    """What to remember of a schedule now. Exports due while it was off are never made up for, so they are not owed."""
    if before and is_on and before.cadence == cadence.words():
        return before
    return Watch(cadence.words(), now, is_new=before is None and is_on)


def owed(watch: Watch, cadence: Cadence, *, now: datetime, grace: timedelta) -> datetime | None:
    """The last due time whose grace period is over, if an export was to be launched for it."""
    due = cadence.previous_due(now - grace)
    if due is None:
        return None
    is_first_overdue = watch.is_new and watch.since <= now - grace
    return due if due >= watch.since or is_first_overdue else None


def freshness_policies(exports: Exports) -> Mapping[str, dg.FreshnessPolicy]:
    """How old the last export of each scheduled asset may be: the longest time between two, plus the grace."""
    periods: dict[str, timedelta] = {}
    for schedule in exports.schedules:
        period = schedule.cadence.longest
        for name in schedule.asset_names:
            periods[name] = min(period, periods.get(name, period))
    windows = {name: period + grace(period, exports.notifications) for name, period in periods.items()}
    return {name: dg.FreshnessPolicy.time_window(fail_window=window) for name, window in windows.items()}
