"""Sensors on runs that ended: a message for each that failed and, if wanted, for each that delivered."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg

from m3ter_dagster.alarms import messages
from m3ter_dagster.alarms.webhook import Notify
from m3ter_dagster.config.names import DELIVERED_EXPORTS, FAILED_EXPORTS, UNSAFE_REUSE
from m3ter_dagster.dagster_internals import Reaction, failed_tick
from m3ter_dagster.history.failures import failed_check
from m3ter_dagster.history.log import deliveries_of, root_id, unlisted
from m3ter_dagster.history.progress import REUSE
from m3ter_dagster.history.retries import will_be_retried


def failed_exports(notify: Notify, dagster_url: str | None) -> dg.SensorDefinition:
    @dg.run_failure_sensor(
        name=FAILED_EXPORTS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of each run that failed and is not retried: which entities, and why.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> Reaction | None:
        if will_be_retried(context.dagster_run):
            return None  # and no reason to skip it, which Dagster takes only from a tick that is about nothing else
        events = context.get_step_failure_events() or [context.failure_event]
        text = messages.failed(context.dagster_run, events, dagster_url)
        return _reaction(context.dagster_run, notify(context.log, text))

    return sensor


def delivered_exports(notify: Notify, dagster_url: str | None) -> dg.SensorDefinition:
    def text(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
        # The run that makes the manifest, if this one does not, is told of instead.
        deliveries = {} if unlisted(instance, run) else deliveries_of(instance, root_id(run))
        return messages.delivered(run, deliveries, dagster_url) if deliveries else None

    return _on_success(DELIVERED_EXPORTS, "each export that was delivered.", text, notify)


def unsafe_reuse(notify: Notify, dagster_url: str | None) -> dg.SensorDefinition:
    def text(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
        says = failed_check(instance, run.run_id, REUSE)
        return messages.unsafe_reuse(run, says, dagster_url) if says else None

    return _on_success(UNSAFE_REUSE, "each export whose comparison shows that rows must not be reused.", text, notify)


def _on_success(
    name: str, of_what: str, text: Callable[[dg.DagsterInstance, dg.DagsterRun], str | None], notify: Notify
) -> dg.SensorDefinition:
    """A sensor that sends what `text` gives for a run that succeeded, if anything."""

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name=name,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Notifies the webhook of {of_what}",
    )
    def sensor(context: dg.RunStatusSensorContext) -> Reaction | None:
        told = text(context.instance, context.dagster_run)
        return _reaction(context.dagster_run, notify(context.log, told)) if told else None

    return sensor


def _reaction(run: dg.DagsterRun, failure: str | None) -> Reaction | None:
    """A failed tick with the webhook's failure, if there is one; the run is not reported again.

    A failed tick also ends the evaluation, which Dagster gives one minute: the next run has the next one to itself.
    """
    return failed_tick(run, failure) if failure else None
