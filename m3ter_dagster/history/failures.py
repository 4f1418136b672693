"""Failures in Dagster in words: for its own pages and the terminal, and for notifications."""

from __future__ import annotations

import re

import dagster as dg

from m3ter_dagster.dagster_internals import Failure, events_of_run, failure_of
from m3ter_dagster.model.entities import entities
from m3ter_dagster.names import DEFAULT, Names

NOTIFICATION = "m3ter/notification"
"""In the metadata of a failure whose own words quote a value: the words for a notification, which leaves Dagster."""


def failure_text(event: dg.DagsterEvent) -> str:
    """The words of a failure without its traceback: those of the innermost cause are the ones written for people."""
    failure = failure_of(event)
    if _is_interruption(failure):
        return "it was interrupted."
    # Of errors in workers, Dagster makes one whose text has their stack traces.
    message = re.sub(r"(?s)\s+Stack Trace:.*?(?=\n\[|\Z)", "", failure.message)
    return failure.description or message.strip().split(": ", 1)[-1] or event.message or ""


def notification_text(event: dg.DagsterEvent) -> str:
    """The words of a failure without any value of a row: an error that nobody worded is named only by its class."""
    failure = failure_of(event)
    if NOTIFICATION in failure.metadata:
        return str(failure.metadata[NOTIFICATION].value)
    # Dagster's record of an error begins with the module of its class.
    is_worded = failure.error == dg.Failure.__name__ or failure.message.startswith("m3ter_dagster.")
    if not failure.error or failure.description or is_worded or _is_interruption(failure):
        return failure_text(event)
    return f"it failed with {failure.error}; the run has the details."


def failed_check(instance: dg.DagsterInstance, run_id: str, name: str, names: Names = DEFAULT) -> str | None:
    """What the check of this name says of an entity where it failed in the run."""
    for event, _ in events_of_run(instance, run_id, {dg.DagsterEventType.ASSET_CHECK_EVALUATION}):
        check = event.asset_check_evaluation_data
        if check.check_name == name and not check.passed and names.asset(check.asset_key) in entities():
            return check.description
    return None


def _is_interruption(failure: Failure) -> bool:
    return failure.error == dg.DagsterExecutionInterruptedError.__name__
