"""Sensors on runs that ended: one message for each that failed and, if wanted, for each that delivered."""

from __future__ import annotations

import dagster as dg

from m3ter_dagster.alarms import messages
from m3ter_dagster.alarms.telling import Tell
from m3ter_dagster.config.names import DELIVERED_EXPORTS, FAILED_EXPORTS
from m3ter_dagster.resources.export_history import deliveries_of, root_id


def failed_exports(tell: Tell, dagster_url: str | None) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=FAILED_EXPORTS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the webhook of each run that failed: which entities, and why.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        events = context.get_step_failure_events() or [context.failure_event]
        return _skipped(tell(context.log, messages.failed(context.dagster_run, events, dagster_url)))

    return sensor


def delivered_exports(tell: Tell, dagster_url: str | None) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=DELIVERED_EXPORTS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells the webhook of each export that was delivered.",
    )
    def sensor(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        deliveries = deliveries_of(context.instance, root_id(context.dagster_run))
        if not deliveries:
            return None
        return _skipped(tell(context.log, messages.delivered(context.dagster_run, deliveries, dagster_url)))

    return sensor


def _skipped(failure: str | None) -> dg.SkipReason | None:
    """Dagster gives an evaluation a minute: one that has waited for the webhook in vain leaves the rest to the next."""
    return dg.SkipReason(failure) if failure else None
