"""What an export would take, by what the last ones of each entity took. Nobody is asked for anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from math import ceil

import dagster as dg
import msgspec

from m3ter_dagster.config import AnySchedule, ExportSchedule
from m3ter_dagster.history.log import last_deliveries
from m3ter_dagster.history.record import Delivery
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Listing
from m3ter_dagster.names import DEFAULT, Names

_LOOKED_BACK = 30
"""Deliveries among which one is looked for that took rows from the export before, or took none."""


class PlannedEntity(msgspec.Struct, frozen=True, rename="camel"):
    """An entity, or measurements; None is unknown, and everything is where it was never exported."""

    entity: str
    last_exported: datetime | None = None
    rows: int | None = None
    pages: int | None = None
    """Of its list, where that has a record per row and is not asked for parent by parent."""
    requests: int | None = None
    """Those that prove that nothing is missing among them; None for measurements, too."""
    bytes: int | None = None
    """Of one copy of its file."""
    seconds: float | None = None
    """To read and to deliver it, beside others."""
    saved_by_reuse: int | None = None
    """Requests that the schedule's `reuse` saves, once there was an export with and one without it."""


def planned_entities(
    instance: dg.DagsterInstance,
    assets: Sequence[str],
    org_id: str | None,
    schedule: AnySchedule | None = None,
    names: Names = DEFAULT,
) -> list[PlannedEntity]:
    """What each of the assets took last for the Organization (None: for any)."""
    return [_planned(instance, one, org_id, schedule, names) for one in assets]


def read_besides(names: Sequence[str]) -> list[str]:
    """The entities whose ids are needed to ask for the lists of these, and that are not exported with them."""
    parents = [entities()[name].listing.for_each for name in names if name in entities()]
    return sorted({parent.entity for parent in parents if parent} - set(names))


def requests_of(planned: Sequence[PlannedEntity]) -> int:
    """The known requests of all; entities that come with one list are read from the same pages."""
    found: dict[Listing, int] = {}
    for one in planned:
        if one.entity in entities():
            listing = entities()[one.entity].listing
            found[listing] = max(found.get(listing, 0), one.requests or 0)
    return sum(found.values())


def _planned(
    instance: dg.DagsterInstance, name: str, org_id: str | None, schedule: AnySchedule | None, names: Names
) -> PlannedEntity:
    recent = list(islice(last_deliveries(instance, name, org_id, names=names), _LOOKED_BACK))
    if not recent:
        return PlannedEntity(name)
    last = recent[0]
    by_reuse = {bool(one.reading.reused_in_a_row): one for one in reversed(recent)}
    reuses = isinstance(schedule, ExportSchedule) and name in {one.name for one in schedule.reused}
    is_full = not isinstance(schedule, ExportSchedule) or last.reading.reused_in_a_row + 1 >= schedule.full_every
    alike = by_reuse.get(reuses and not is_full, last)
    return PlannedEntity(
        entity=name,
        last_exported=last.reading.finished,
        rows=last.rows,
        pages=_pages(last),
        requests=alike.reading.requests,
        bytes=last.objects[0].bytes,
        seconds=round(alike.reading.seconds + alike.seconds_to_deliver, 1),
        saved_by_reuse=_saved(by_reuse) if reuses else None,
    )


def _pages(last: Delivery) -> int | None:
    entity = entities().get(last.asset)
    if entity is None or entity.elements or entity.listing.for_each:
        return None
    return max(1, ceil(last.rows / entity.listing.page_size))


def _saved(by_reuse: Mapping[bool, Delivery]) -> int | None:
    without, with_reuse = (by_reuse[one].reading.requests if one in by_reuse else None for one in (False, True))
    return None if without is None or with_reuse is None else without - with_reuse
