"""Spans of OpenTelemetry: none without its API, and without an SDK its API makes none."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

try:
    from opentelemetry import context, trace
except ImportError:  # the extra `telemetry` is not installed
    context = trace = None

_SCOPE = "m3ter_dagster"


class Span:
    """What was done, and how much of it."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def set(self, **attributes: Any) -> None:
        if self._span:
            self._span.set_attributes(_ours(attributes))

    def failed(self, error: BaseException) -> None:
        """Notes the kind of the error only: its words may show cells, and traces go to other people than exports."""
        if trace and self._span:
            self._span.set_status(trace.StatusCode.ERROR)
            self._span.set_attribute("error.type", type(error).__qualname__)


@contextmanager
def span(name: str, within: Any = None, **attributes: Any) -> Generator[Span]:
    """A span around the block, below the span of this thread or that `here` returned in another."""
    if trace is None:
        yield Span()
        return
    with trace.get_tracer(_SCOPE).start_as_current_span(
        name, within, attributes=_ours(attributes), record_exception=False, set_status_on_exception=False
    ) as current:
        found = Span(current)
        try:
            yield found
        except BaseException as error:
            found.failed(error)
            raise


def here() -> Any:
    """What spans of other threads are `within`."""
    return context.get_current() if context else None


def _ours(attributes: dict[str, Any]) -> dict[str, Any]:
    return {f"m3ter.{name}": value for name, value in attributes.items() if value is not None}
