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

SCHEMA, PRIMARY_KEY, ROW_COUNT = "schema", "primary_key", "row_count"
_DESCRIPTIONS = {
    SCHEMA: "Every cell fits the type of its column.",
    PRIMARY_KEY: "Every row has an id, and no other row has it.",
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
    yield dg.AssetCheckResult(passed=True, check_name=PRIMARY_KEY, metadata={"rows": rows})
    yield _row_count(rows, rows_before)


def failed_checks(entity: Entity, breached: SchemaBreached) -> Iterator[dg.AssetCheckResult]:
    """The results for an entity that breaks its schema; every breach belongs to one of the checks."""
    for name, is_of_key in ((SCHEMA, False), (PRIMARY_KEY, True)):
        mine = [breach for breach in breached.breaches if (breach.column == entity.primary_key) is is_of_key]
        metadata = breach_metadata(breached, mine) if mine else {}
        yield dg.AssetCheckResult(passed=not mine, check_name=name, metadata=metadata)
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
