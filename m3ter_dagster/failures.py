"""The words of what failed in Dagster: for its own pages and the terminal, and for notifications."""

from __future__ import annotations

from typing import Any

import dagster as dg

NOTIFICATION = "m3ter/notification"
"""In the metadata of a failure whose own words quote a value: the words for a notification, which leaves Dagster."""


def failure_text(event: dg.DagsterEvent) -> str:
    """The words of a failure without its trace: the innermost cause is the one that was written for people."""
    error = _innermost_error(event)
    if _is_interruption(error):
        return "it was interrupted."
    return _description(event) or (_words(error) if error else event.message or "")


def notification_text(event: dg.DagsterEvent) -> str:
    """The same without any value of a row. An error that nobody worded may quote one, so only its class is named."""
    failure: Any = getattr(event.event_specific_data, "user_failure_data", None)
    if failure and NOTIFICATION in failure.metadata:
        return str(failure.metadata[NOTIFICATION].value)
    error = _innermost_error(event)
    if error is None or _description(event) or _is_interruption(error) or _is_worded(error):
        return failure_text(event)
    return f"it failed with {error.cls_name}; the run has the details."


def _innermost_error(event: dg.DagsterEvent) -> Any:
    error = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return error


def _description(event: dg.DagsterEvent) -> str | None:
    return getattr(getattr(event.event_specific_data, "user_failure_data", None), "description", None)


def _is_interruption(error: Any) -> bool:
    return error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__


def _is_worded(error: Any) -> bool:
    """Is it one of this project's errors, or a Failure? Dagster's record of an error begins with the class's module."""
    return error.cls_name == dg.Failure.__name__ or error.message.startswith("m3ter_dagster.")


def _words(error: Any) -> str:
    return error.message.strip().split(": ", 1)[-1]
