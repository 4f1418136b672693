"""Alarms: exports that failed, are late or were delivered, told to the webhook of exports.yaml."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from m3ter_dagster.alarms.freshness import freshness_policies
from m3ter_dagster.alarms.late_exports import late_exports
from m3ter_dagster.alarms.run_alarms import delivered_exports, failed_exports
from m3ter_dagster.alarms.telling import tell
from m3ter_dagster.alarms.webhook import Webhook
from m3ter_dagster.config import Exports

__all__ = ["alarm_sensors", "freshness_policies"]


def alarm_sensors(
    exports: Exports, *, clock: Callable[[], datetime] | None = None, webhook: Webhook | None = None
) -> list[dg.SensorDefinition]:
    """The sensors that exports.yaml asks for: none without notifications."""
    wanted = exports.notifications
    if wanted is None:
        return []
    tell_webhook = partial(tell, webhook or Webhook(wanted.webhook_url))
    sensors = [failed_exports(tell_webhook, wanted.dagster_url)]
    if wanted.on_success:
        sensors.append(delivered_exports(tell_webhook, wanted.dagster_url))
    if exports.schedules:
        sensors.append(late_exports(exports.schedules, wanted, tell_webhook, clock=clock or _utc_now))
    return sensors


def _utc_now() -> datetime:
    return datetime.now(UTC)
