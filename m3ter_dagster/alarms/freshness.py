"""How old the last export of an asset may be, for the freshness that Dagster shows on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from m3ter_dagster.config import Exports, grace


def freshness_policies(exports: Exports) -> Mapping[str, dg.FreshnessPolicy]:
    """By asset: the period of its most frequent schedule, and the grace. An asset without a schedule has none."""
    periods: dict[str, timedelta] = {}
    for schedule in exports.schedules:
        period = schedule.cadence.interval
        for name in schedule.asset_names:
            periods[name] = min(period, periods.get(name, period))
    return {name: _fresh_within(period + grace(period, exports.notifications)) for name, period in periods.items()}


def _fresh_within(window: timedelta) -> dg.FreshnessPolicy:
    return dg.FreshnessPolicy.time_window(fail_window=window)
