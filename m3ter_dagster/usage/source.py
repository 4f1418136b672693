"""The Dagster resource that reads measurements of the Organization."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from m3ter_dagster.config import UsageSelection, load_m3ter_settings
from m3ter_dagster.m3ter.errors import M3terError
from m3ter_dagster.model.time_periods import Window, midnight, month_start, week_start
from m3ter_dagster.usage.columns import Meter, UsageTable
from m3ter_dagster.usage.jobs import UsageExports
from m3ter_dagster.usage.requests import aggregations_of, chosen_meters, request_body, table_of
from m3ter_dagster.usage.rows import Usage, no_usage, read_usage

_BUCKETS = {
    "ORIGINAL": lambda moment: moment,
    "HOUR": lambda moment: moment.replace(minute=0, second=0, microsecond=0),
    "DAY": midnight,
    "WEEK": week_start,
    "MONTH": month_start,
}
"""When the bucket began that a moment is in."""


@dataclass(frozen=True)
class UsageReading:
    """The measurements of one window, validated. Their frame lives as long as the run."""

    table: UsageTable
    usage: Usage
    selection: UsageSelection
    window: Window
    job_id: str | None
    """m3ter's export job; None where m3ter was not asked, since there can be nothing."""
    unknown_meters: Sequence[str]
    unknown_accounts: Sequence[str] | None
    """None where the accounts could not be read."""
    started: datetime
    finished: datetime


class UsageSource:
    """Reads measurements of the Organization of the M3TER_* environment variables."""

    def __init__(self, *, wait: Callable[[float], None] | None = None) -> None:
        self._wait = wait
        self._exports: UsageExports | None = None
        self._folder: Path | None = None
        self._meters: list[Meter] | None = None
        self._accounts: set[str] | None = None

    def read(
        self, name: str, selection: UsageSelection, window: Window, *, tell: Callable[[str], None]
    ) -> UsageReading:
        """ConfigError, M3terError and UsageBreached say why there is none."""
        started, exports = datetime.now(UTC), self._open()
        self._meters = self._meters or exports.meters()
        meters = chosen_meters(selection, self._meters)
        table = table_of(name, selection, meters)
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
            unknown_meters=sorted(usage.meter_ids - {meter.id for meter in self._meters}),
            unknown_accounts=self._unknown_accounts(usage.account_ids),
            started=started,
            finished=datetime.now(UTC),
        )

    def close(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _export(
        self,
        table: UsageTable,
        selection: UsageSelection,
        window: Window,
        meters: Sequence[Meter],
        tell: Callable[[str], None],
    ) -> tuple[str, Usage]:
        assert self._folder
        file = self._folder / f"{table.name}.csv"
        job_id = self._open().export(request_body(selection, window, meters), file, tell=tell)
        buckets = Window(_BUCKETS[selection.aggregation_frequency](window.start), window.end)
        try:
            return job_id, read_usage(file, table, buckets, self._folder / f"{table.name}-{job_id}.parquet")
        finally:
            file.unlink(missing_ok=True)

    def _unknown_accounts(self, ids: frozenset[str]) -> Sequence[str] | None:
        """Only a warning hangs on the accounts, so nothing is lost with them."""
        try:
            if self._accounts is None and ids:
                self._accounts = self._open().account_ids()
        except M3terError:
            return None
        return sorted(ids - (self._accounts or set()))

    def _open(self) -> UsageExports:
        if self._exports is None:
            self._exports = UsageExports(load_m3ter_settings(), stop=threading.Event(), wait=self._wait)
            self._folder = Path(tempfile.mkdtemp(prefix="m3ter-usage-"))
        return self._exports


@dg.resource(description="Reads measurements of the m3ter Organization by m3ter's own ad-hoc usage exports.")
def usage_resource(_context: dg.InitResourceContext) -> Generator[UsageSource]:
    source = UsageSource()
    try:
        yield source
    finally:
        source.close()
