"""The words of what failed in Dagster."""

from __future__ import annotations

from typing import Any

import dagster as dg


def failure_text(event: dg.DagsterEvent) -> str:
    """The words of a failure without its trace: the innermost cause is the one that was written for people."""
    data: Any = event.event_specific_data
    described = getattr(getattr(data, "user_failure_data", None), "description", None)
    error = getattr(data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    if error is not None and error.cls_name == dg.DagsterExecutionInterruptedError.__name__:
        return "it was interrupted."
    return described or (error.message.strip().split(": ", 1)[-1] if error else event.message or "")
