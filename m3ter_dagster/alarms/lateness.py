"""When an export is late: arithmetic on due times, and what to remember from one look to the next."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from m3ter_dagster.model.cadence import Cadence


class Watch(msgspec.Struct, frozen=True):
    """A schedule that is looked after."""

    cadence: str
    """In words: a schedule that is changed owes nothing for its new past."""
    since: datetime
    """When it was first seen like this, switched on."""
    is_new: bool
    """Nothing was known of the schedule before, so its first export is launched at once."""
    told: datetime | None = None
    """The due time that was told as late and has not recovered."""


def watched(before: Watch | None, cadence: Cadence, *, is_on: bool, now: datetime) -> Watch:
    """What is to be remembered of a schedule. What was due while it was off is never made up for, so not owed."""
    if before and is_on and before.cadence == cadence.words():
        return before
    return Watch(cadence.words(), now, is_new=before is None and is_on)


def owed(watch: Watch, cadence: Cadence, *, now: datetime, grace: timedelta) -> datetime | None:
    """The last due time whose grace is over, if its export was to be launched."""
    due = cadence.previous_due(now - grace)
    if due is None:
        return None
    is_first_overdue = watch.is_new and watch.since <= now - grace
    return due if due >= watch.since or is_first_overdue else None
