"""Failures in Dagster in words: for its own pages and the terminal, and for notifications."""

from __future__ import annotations

import dagster as dg

from m3ter_dagster.dagster_internals import Failure, failure_of

NOTIFICATION = "m3ter/notification"
"""In the metadata of a failure whose own words quote a value: the words for a notification, which leaves Dagster."""


def failure_text(event: dg.DagsterEvent) -> str:
    """The words of a failure without its traceback: those of the innermost cause are the ones written for people."""
    failure = failure_of(event)
    if _is_interruption(failure):
        return "it was interrupted."
    return failure.description or failure.message.strip().split(": ", 1)[-1] or event.message or ""


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


def _is_interruption(failure: Failure) -> bool:
    return failure.error == dg.DagsterExecutionInterruptedError.__name__
