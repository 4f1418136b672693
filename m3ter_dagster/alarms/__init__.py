"""Alarms: what the webhook of exports.yaml is notified of."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial

import dagster as dg

from m3ter_dagster.alarms.configuration import broken_configuration
from m3ter_dagster.alarms.late_exports import late_exports
from m3ter_dagster.alarms.lateness import freshness_policies
from m3ter_dagster.alarms.run_alarms import delivered_exports, failed_exports, unsafe_reuse
from m3ter_dagster.alarms.webhook import Webhook, notify
from m3ter_dagster.config import Exports, ExportSchedule, Unloadable
from m3ter_dagster.names import DEFAULT, Names

__all__ = ["alarm_sensors", "configuration_alarm", "freshness_policies"]


def alarm_sensors(
    exports: Exports,
    org_id: str | None = None,
    *,
    clock: Callable[[], datetime] | None = None,
    webhook: Webhook | None = None,
    steps: Collection[str] | None = None,
    names: Names = DEFAULT,
) -> list[dg.SensorDefinition]:
    """The sensors on one Organization's exports that `notifications` in exports.yaml asks for; none without it.

    `steps` are those whose failures are ours (None: those of every run of the code location).
    """
    wanted = exports.notifications
    if wanted is None:
        return []
    notify_webhook = partial(notify, webhook or Webhook(wanted.webhook_url))
    sensors = [failed_exports(notify_webhook, wanted.dagster_url, steps, names)]
    if wanted.on_success:
        sensors.append(delivered_exports(notify_webhook, wanted.dagster_url, names))
    if any(isinstance(one, ExportSchedule) and one.reused for one in exports.schedules):
        sensors.append(unsafe_reuse(notify_webhook, wanted.dagster_url, names))
    if exports.schedules:
        read_clock = clock or partial(datetime.now, UTC)
        sensors.append(late_exports(exports.schedules, wanted, notify_webhook, org_id, clock=read_clock, names=names))
    return sensors


def configuration_alarm(
    exports: Exports,
    unloadable: Unloadable | None,
    *,
    webhook: Webhook | None = None,
    names: Names = DEFAULT,
) -> list[dg.SensorDefinition]:
    """The sensor on exports.yaml itself, one for all Organizations in it; none without `notifications`."""
    wanted = exports.notifications
    if wanted is None:
        return []
    return [broken_configuration(unloadable, partial(notify, webhook or Webhook(wanted.webhook_url)), names)]
