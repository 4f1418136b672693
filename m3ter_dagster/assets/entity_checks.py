"""The checks of one entity by itself before it is delivered, and the report of the rows that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from m3ter_dagster.frames.schema import Breach, SchemaBreached
from m3ter_dagster.history import captions
from m3ter_dagster.history.failures import NOTIFICATION
from m3ter_dagster.history.progress import CHECKED
from m3ter_dagster.model.entities import Entity

SCHEMA, ROW_COUNT = "schema", "row_count"
_DESCRIPTIONS = {
    SCHEMA: "Every cell fits its column; every row has an id, and no other row has it.",
    ROW_COUNT: "Not fewer than half the rows of the previous export of the same schedule.",
}


def check_specs(entity: Entity) -> list[dg.AssetCheckSpec]:
    """The checks of an entity. Those that stop the delivery are blocking; the row count is for a person to judge."""
    return [
        dg.AssetCheckSpec(name, asset=entity.name, description=text, blocking=name != ROW_COUNT)
        for name, text in _DESCRIPTIONS.items()
    ]


def passed_checks(rows: int, *, rows_before: int | None) -> Iterator[dg.AssetCheckResult]:
    yield dg.AssetCheckResult(passed=True, check_name=SCHEMA, metadata={"rows": rows})
    yield _row_count(rows, rows_before)


def failed_checks(breached: SchemaBreached) -> Iterator[dg.AssetCheckResult]:
    yield dg.AssetCheckResult(passed=False, check_name=SCHEMA, metadata=breach_metadata(breached))
    yield dg.AssetCheckResult(
        passed=False,
        check_name=ROW_COUNT,
        severity=dg.AssetCheckSeverity.WARN,
        description="Not checked: the export breaks its schema.",
        metadata={CHECKED: False},
    )


def _row_count(rows: int, before: int | None) -> dg.AssetCheckResult:
    if before is None:
        description = "Not checked: there is no previous export by the same schedule."
        return dg.AssetCheckResult(
            passed=True, check_name=ROW_COUNT, description=description, metadata={"rows": rows, CHECKED: False}
        )
    return dg.AssetCheckResult(
        passed=2 * rows >= before,
        check_name=ROW_COUNT,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{rows:,} rows, {before:,} in the previous export.",
        metadata={"rows": rows, "rows before": before},
    )


def breach_metadata(breached: SchemaBreached, breaches: Sequence[Breach] | None = None) -> dict[str, Any]:
    """The report of cells that break a schema: of these `breaches`, or of all that are kept."""
    shown = breached.breaches if breaches is None else breaches
    rows = [{"row id": one.row_id or "", "column": one.column, "value": one.value, "rule": one.rule} for one in shown]
    report = captions.table(("row id", "column", "value", "rule"), rows)
    return {
        NOTIFICATION: breached.notification,
        "cells that break the schema": breached.total,
        "report": report,
    }
