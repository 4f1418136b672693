"""How old the last export of an entity may be, for the freshness that Dagster shows on the asset."""

from __future__ import annotations

from collections.abc import Mapping

import dagster as dg

from m3ter_dagster.config import Exports, grace
from m3ter_dagster.entities import entities
from m3ter_dagster.schedules import cadence_of


def freshness_policies(exports: Exports) -> Mapping[str, dg.FreshnessPolicy]:
    """By entity: the period of its most frequent schedule, and the grace. An entity without a schedule has none."""
    policies: dict[str, dg.FreshnessPolicy] = {}
    for name in entities():
        mine = (one for one in exports.schedules if name in one.asset_names)
        period = min((cadence_of(one).interval for one in mine), default=None)
        if period is not None:
            window = period + grace(period, exports.notifications)
            policies[name] = dg.FreshnessPolicy.time_window(fail_window=window)
    return policies
