"""Which runs Dagster retries from failure: those that end by what passes, never by what a person must correct."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import dagster as dg

from m3ter_dagster.dagster_internals import add_tags, events_of_run, location_of, report_failed, was_not_launched
from m3ter_dagster.history.log import root_id, run_records, runs_of

MOST_RETRIES = 3
MAX_RETRIES_TAG, AFTER_STEPS_TAG = "dagster/max_retries", "dagster/retry_on_asset_or_op_failure"
RETRIED_ONCE = {MAX_RETRIES_TAG: "1", AFTER_STEPS_TAG: "false"}
"""Tags of a run that is launched: it is retried if its process dies before it can allow that itself."""
MOST_REQUESTS = 10
"""How often Dagster is asked for the same retry: at a look of a sensor each, so for a quarter of an hour."""
_AFTER_A_STEP = {AFTER_STEPS_TAG: "false", "dagster/failure_reason": "STEP_FAILURE"}
"""Tags of a run that failed by what a person must correct."""
RETRY_NUMBER_TAG, WILL_RETRY_TAG = "dagster/retry_number", "dagster/will_retry"
NOT_RETRIED = "Dagster could not launch a retry; m3ter-dagster export --resume {} completes the export."


def retry_after_death(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """From now on the run is retried if its process dies, and not because a step fails.

    A retry inherits the tags of its run. Each run therefore allows only the next one: a retry has to allow its own.
    Runs of a terminal are not retried: a person is there, and Dagster's daemon cannot launch them.
    """
    if not location_of(run):
        return
    number = len(runs_of(instance, run.root_run_id or run.run_id))  # as Dagster counts them
    # Under an executor with a process per step each comes here, perhaps after a step that failed.
    if number <= MOST_RETRIES and run.tags.get(MAX_RETRIES_TAG) != str(number):
        add_tags(instance, run, {MAX_RETRIES_TAG: str(number), AFTER_STEPS_TAG: "false"})


def retry_after_failure(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """The run is retried although a step fails, because the cause of that passes."""
    if location_of(run):
        add_tags(instance, run, {AFTER_STEPS_TAG: "true"})


def never_retry(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """However the run ends, a person completes its export, which a retry would make a second time."""
    if location_of(run):
        add_tags(instance, run, {MAX_RETRIES_TAG: "0"})


def runs_to_ask_for(instance: dg.DagsterInstance, since: datetime) -> Iterator[dg.DagsterRun]:
    """The runs that have failed since then and are `to_be_asked_for`."""
    tags = {WILL_RETRY_TAG: "false", MAX_RETRIES_TAG: [str(number + 1) for number in range(MOST_RETRIES)]}
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], tags=tags, updated_after=since)
    yield from (one.dagster_run for one in run_records(instance, failed) if to_be_asked_for(instance, one.dagster_run))


def to_be_asked_for(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether Dagster has not retried the failed run only because it did not reach the code location.

    While that is restarted, Dagster launches neither a retry nor what waits in the queue, and tries each once.
    """
    if run.tags.get(WILL_RETRY_TAG) != "false" or run.tags.get(MAX_RETRIES_TAG, "0") == "0":
        return False
    if _AFTER_A_STEP.items() <= run.tags.items():
        return False  # what the log would say as well, which takes longer to read
    runs = [record.dagster_run for record in runs_of(instance, root_id(run))]
    # A retry that was made and not submitted Dagster submits when it is asked again.
    submitted = [one.run_id for one in runs if one.status != dg.DagsterRunStatus.NOT_STARTED]
    is_last = submitted[-1:] == [run.run_id]
    return is_last and len(submitted) <= MOST_RETRIES and was_not_launched(instance, run.run_id)


def ask_again(instance: dg.DagsterInstance, run: dg.DagsterRun, *, has_job: bool) -> None:
    """Let Dagster decide anew about a run `to_be_asked_for`; where that is of no use, let the alarm tell of it."""
    failures = sum(1 for _ in events_of_run(instance, run.run_id, {dg.DagsterEventType.RUN_FAILURE}))
    if has_job and failures <= MOST_REQUESTS:
        add_tags(instance, run, {MAX_RETRIES_TAG: str(len(runs_of(instance, root_id(run))))})
        report_failed(instance, run, "Dagster could not launch this run, or a retry of it, and is asked for one again.")
    else:
        never_retry(instance, run)
        report_failed(instance, run, NOT_RETRIED.format(run.run_id))


def will_be_retried(run: dg.DagsterRun) -> bool:
    """Whether Dagster, which decides it when a run fails, launches a retry."""
    return run.tags.get(WILL_RETRY_TAG) == "true"
