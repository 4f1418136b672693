"""Sensors on runs that ended: a message for each that failed and, if wanted, for each that delivered."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import dagster as dg

from m3ter_dagster.alarms import messages
from m3ter_dagster.alarms.webhook import Notify
from m3ter_dagster.config.names import DELIVERED_EXPORTS, FAILED_EXPORTS, PRUNE_HISTORY, UNSAFE_REUSE
from m3ter_dagster.dagster_internals import Reaction, failed_tick, has_job, planned_steps
from m3ter_dagster.history.failures import failed_check
from m3ter_dagster.history.log import deliveries_of, root_id, unlisted
from m3ter_dagster.history.progress import REUSE
from m3ter_dagster.history.retries import NOT_RETRIED, to_be_asked_for, will_be_retried
from m3ter_dagster.names import DEFAULT, Names


def failed_exports(
    notify: Notify, dagster_url: str | None, steps: Collection[str] | None = None, names: Names = DEFAULT
) -> dg.SensorDefinition:
    """The sensor of runs that failed. Of a run of another's assets, too, only the failures of our `steps` are told."""

    @dg.run_failure_sensor(
        name=names.own(FAILED_EXPORTS),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook of each run that failed and is not retried: which entities, and why.",
    )
    def sensor(context: dg.RunFailureSensorContext) -> Reaction | None:
        run = context.dagster_run
        is_to_be_retried = will_be_retried(run)
        if (is_to_be_retried and has_job(context, run.job_name)) or to_be_asked_for(context.instance, run):
            return None  # and no reason to skip it, which Dagster takes only from a tick that is about nothing else
        prunes = run.job_name == names.own(PRUNE_HISTORY)
        events = _failures(context, None if prunes else steps)
        if not events:
            return None
        text = messages.failed(run, events, dagster_url, prunes=prunes, has_lost_its_job=is_to_be_retried)
        return _reaction(run, notify(context.log, text))

    return sensor


def _failures(context: dg.RunFailureSensorContext, steps: Collection[str] | None) -> Sequence[dg.DagsterEvent]:
    """The failures of these steps (None: of any), or that of the run where no step failed and it has some of these."""
    failures = context.get_step_failure_events()
    if failures:
        ours = [one for one in failures if steps is None or one.step_key in steps]
        is_given_up = context.failure_event.message == NOT_RETRIED.format(context.dagster_run.run_id)
        return [*ours, context.failure_event] if ours and is_given_up else ours
    is_ours = steps is None or not planned_steps(context.instance, context.dagster_run).isdisjoint(steps)
    return [context.failure_event] if is_ours else []


def delivered_exports(notify: Notify, dagster_url: str | None, names: Names = DEFAULT) -> dg.SensorDefinition:
    def text(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
        # The run that makes the manifest, if this one does not, is told of instead.
        deliveries = {} if unlisted(instance, run, names) else deliveries_of(instance, root_id(run), names=names)
        return messages.delivered(run, deliveries, dagster_url) if deliveries else None

    return _on_success(names.own(DELIVERED_EXPORTS), "each export that was delivered.", text, notify)


def unsafe_reuse(notify: Notify, dagster_url: str | None, names: Names = DEFAULT) -> dg.SensorDefinition:
    def text(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
        says = failed_check(instance, run.run_id, REUSE, names)
        return messages.unsafe_reuse(run, says, dagster_url) if says else None

    what = "each export whose comparison shows that rows must not be reused."
    return _on_success(names.own(UNSAFE_REUSE), what, text, notify)


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
