"""Alarms: what the webhook of exports.yaml is notified of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from m3ter_dagster.alarms.configuration import broken_configuration
from m3ter_dagster.alarms.late_exports import late_exports
from m3ter_dagster.alarms.lateness import freshness_policies
from m3ter_dagster.alarms.run_alarms import delivered_exports, failed_exports, unsafe_reuse
from m3ter_dagster.alarms.webhook import Webhook, notify
from m3ter_dagster.config import Exports, ExportSchedule, Unloadable

__all__ = ["alarm_sensors", "freshness_policies"]


def alarm_sensors(
    exports: Exports,
    org_id: str | None = None,
    unloadable: Unloadable | None = None,
    *,
    clock: Callable[[], datetime] | None = None,
    webhook: Webhook | None = None,
) -> list[dg.SensorDefinition]:
    """The sensors that `notifications` in exports.yaml asks for; none without it."""
    wanted = exports.notifications
    if wanted is None:
        return []
    notify_webhook = partial(notify, webhook or Webhook(wanted.webhook_url))
    sensors = [
        failed_exports(notify_webhook, wanted.dagster_url),
        broken_configuration(unloadable, notify_webhook),
    ]
    if wanted.on_success:
        sensors.append(delivered_exports(notify_webhook, wanted.dagster_url))
    if any(isinstance(one, ExportSchedule) and one.reused for one in exports.schedules):
        sensors.append(unsafe_reuse(notify_webhook, wanted.dagster_url))
    if exports.schedules:
        sensors.append(
            late_exports(exports.schedules, wanted, notify_webhook, org_id, clock=clock or partial(datetime.now, UTC))
        )
    return sensors
