"""Measurements of one window: what is asked of m3ter, and the rows that come back, validated."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from m3ter_dagster.config import UsageSelection
from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.errors import M3terError
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity, Listing
from m3ter_dagster.model.time_periods import Window, midnight, month_start, week_start
from m3ter_dagster.reading.collectors import Collector, RecordIds
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.usage.columns import UsageTable
from m3ter_dagster.usage.jobs import UsageExports
from m3ter_dagster.usage.meters import Meter, MeterRecords
from m3ter_dagster.usage.requests import aggregations_of, chosen_meters, request_body, table_of
from m3ter_dagster.usage.rows import Usage, no_usage, read_usage

_BUCKETS = {
    "ORIGINAL": lambda moment: moment,
    "HOUR": lambda moment: moment.replace(minute=0, second=0, microsecond=0),
    "DAY": midnight,
    "WEEK": week_start,
    "MONTH": month_start,
}
"""When the bucket that a moment is in started."""


@dataclass(frozen=True)
class UsageReading:
    """The measurements of one window, validated. Their frame lives as long as the run."""

    table: UsageTable
    usage: Usage
    selection: UsageSelection
    window: Window
    job_id: str | None
    """m3ter's export job; None if m3ter was not asked because there can be no rows."""
    unknown_meters: Sequence[str]
    unknown_accounts: Sequence[str] | None
    """Accounts that the Organization does not have; None if its accounts could not be read."""
    started: datetime
    finished: datetime

    @property
    def frame(self) -> pl.LazyFrame:
        return self.usage.frame

    @property
    def delivered(self) -> Sequence[pl.LazyFrame]:
        """The rows of the export, one part after the other."""
        return self.usage.parts

    @property
    def sums(self) -> dict[str, Any]:
        """Sums together with what was selected: exports of equal selections can be compared, meter by meter."""
        return {
            "window": [self.window.start.isoformat(), self.window.end.isoformat()],
            "accounts": sorted(self.selection.account_ids),
            "filters": sorted(one.model_dump_json() for one in self.selection.dimension_filters),
            "meters": list(self.selection.meter_ids),
            "sums": {meter: dict(columns) for meter, columns in self.usage.sums.items()},
        }


class UsageReader:
    """Reads measurements through m3ter's own ad-hoc exports, and meters and accounts through `reader`."""

    def __init__(
        self,
        client: M3terClient,
        reader: OrganizationReader,
        folder: Path,
        *,
        wait: Callable[[float], None] | None = None,
    ) -> None:
        self._exports = UsageExports(client, wait=wait)
        self._reader = reader
        self._folder = folder

    @staticmethod
    def needs(chosen: Collection[Entity]) -> Sequence[tuple[Listing, type[Collector]]]:
        """What to collect from the lists that are read for `chosen`, besides the meters, so that none is read twice."""
        meters, accounts = entities()["meter"].listing, entities()["account"].listing
        reads_accounts = any(accounts in (one.listing, _parent_listing(one)) for one in chosen)
        return [(meters, MeterRecords), *([(accounts, RecordIds)] if reads_accounts else [])]

    def read(
        self, asset: str, selection: UsageSelection, window: Window, *, tell: Callable[[str], None]
    ) -> UsageReading:
        """The measurements of a window; M3terError and SchemaBreached say why there are none."""
        started = datetime.now(UTC)
        known = self._reader.collected(entities()["meter"].listing, MeterRecords).meters()
        meters = chosen_meters(selection, known)
        table = table_of(asset, selection, meters)
        if window.is_empty or not meters or not (selection.is_raw or aggregations_of(selection, meters)):
            job_id, usage = None, no_usage(table)
        else:
            job_id, usage = self._export(table, selection, window, meters, tell)
        return UsageReading(
            table=table,
            usage=usage,
            selection=selection,
            window=window,
            job_id=job_id,
            unknown_meters=sorted(usage.meter_ids - {meter.id for meter in known}),
            unknown_accounts=self._unknown_accounts(usage.account_ids),
            started=started,
            finished=datetime.now(UTC),
        )

    def _export(
        self,
        table: UsageTable,
        selection: UsageSelection,
        window: Window,
        meters: Sequence[Meter],
        tell: Callable[[str], None],
    ) -> tuple[str, Usage]:
        file = self._folder / f"{table.name}.csv"
        job_id = self._exports.export(request_body(selection, window, meters), file, tell=tell)
        buckets = Window(_BUCKETS[selection.aggregation_frequency](window.start), window.end)
        try:
            return job_id, read_usage(file, table, buckets, self._folder / f"{table.name}-{job_id}")
        finally:
            file.unlink(missing_ok=True)

    def _unknown_accounts(self, ids: frozenset[str]) -> Sequence[str] | None:
        """The ids of accounts, or None if they cannot be read: only a warning depends on them."""
        if not ids:
            return []
        try:
            accounts = self._reader.collected(entities()["account"].listing, RecordIds)
        except M3terError:
            return None
        return sorted(ids.difference(accounts.unique()))


def _parent_listing(entity: Entity) -> Listing | None:
    return entities()[entity.listing.for_each.entity].listing if entity.listing.for_each else None
