"""Which runs Dagster retries from failure: those that end by what passes, never by what a person must correct."""

from __future__ import annotations

import dagster as dg

from m3ter_dagster.dagster_internals import add_tags, location_of
from m3ter_dagster.history.log import runs_of

MOST_RETRIES = 3
MAX_RETRIES_TAG, AFTER_STEPS_TAG = "dagster/max_retries", "dagster/retry_on_asset_or_op_failure"
RETRIED_ONCE = {MAX_RETRIES_TAG: "1", AFTER_STEPS_TAG: "false"}
"""Tags of a run that is launched: it is retried if its process dies before it can allow that itself."""
RETRY_NUMBER_TAG, WILL_RETRY_TAG = "dagster/retry_number", "dagster/will_retry"


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


def will_be_retried(run: dg.DagsterRun) -> bool:
    """Whether Dagster, which decides it when a run fails, launches a retry."""
    return run.tags.get(WILL_RETRY_TAG) == "true"
