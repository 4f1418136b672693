"""Sensors on runs that ended: a message for each that failed and, if wanted, for each that delivered."""

from __future__ import annotations

import dagster as dg

from m3ter_dagster.alarms import messages
from m3ter_dagster.alarms.webhook import Notify
from m3ter_dagster.config.names import DELIVERED_EXPORTS, FAILED_EXPORTS, UNSAFE_REUSE
from m3ter_dagster.dagster_internals import Reaction, failed_tick
from m3ter_dagster.history.failures import failed_check
from m3ter_dagster.history.log import deliveries_of, root_id
from m3ter_dagster.history.progress import REUSE


def failed_exports(notify: Notify, dagster_url: str | None) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=FAILED_EXPORTS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of each run that failed: which entities, and why.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> Reaction | None:
        events = context.get_step_failure_events() or [context.failure_event]
        text = messages.failed(context.dagster_run, events, dagster_url)
        return _reaction(context.dagster_run, notify(context.log, text))

    return sensor


def delivered_exports(notify: Notify, dagster_url: str | None) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=DELIVERED_EXPORTS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of each export that was delivered.",
    )
    def sensor(context: dg.RunStatusSensorContext) -> Reaction | None:
        deliveries = deliveries_of(context.instance, root_id(context.dagster_run))
        if not deliveries:
            return None
        text = messages.delivered(context.dagster_run, deliveries, dagster_url)
        return _reaction(context.dagster_run, notify(context.log, text))

    return sensor


def unsafe_reuse(notify: Notify, dagster_url: str | None) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=UNSAFE_REUSE,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of each export whose comparison shows that rows must not be reused.",
    )
    def sensor(context: dg.RunStatusSensorContext) -> Reaction | None:
        says = failed_check(context.instance, context.dagster_run.run_id, REUSE)
        if says is None:
            return None
        return _reaction(
            context.dagster_run, notify(context.log, messages.unsafe_reuse(context.dagster_run, says, dagster_url))
        )

    return sensor


def _reaction(run: dg.DagsterRun, failure: str | None) -> Reaction | None:
    """A failed tick with the webhook's failure, if there is one; the run is not reported again.

    A failed tick also ends the evaluation, which Dagster gives one minute: the next run has the next one to itself.
    """
    return failed_tick(run, failure) if failure else None
