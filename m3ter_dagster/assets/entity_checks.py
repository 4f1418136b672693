"""The checks of one entity by itself before it is delivered, and the report of the rows that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from m3ter_dagster.frames.references import SHOWN_ROWS
from m3ter_dagster.frames.schema import Breach, SchemaBreached
from m3ter_dagster.history import captions
from m3ter_dagster.history.failures import NOTIFICATION
from m3ter_dagster.history.progress import CHECKED, REUSE
from m3ter_dagster.model.entities import Entity
from m3ter_dagster.reading.reading import Reading

SCHEMA, ROW_COUNT, COMPLETE = "schema", "row_count", "complete"
_DESCRIPTIONS = {
    SCHEMA: "Every cell fits its column; every row has an id, and no other row has it.",
    ROW_COUNT: "Not fewer than half the rows of the previous export of the same schedule.",
    COMPLETE: "It is proven that nothing is missing, although rows are deleted and added while lists are read.",
    REUSE: "The rows that reuse would take from the previous export are those of m3ter: for exports that read all.",
}


def check_specs(entity: Entity, *, is_reused: bool = False) -> list[dg.AssetCheckSpec]:
    """The checks of an entity. The one that stops the delivery is blocking; the others are for a person to judge."""
    return [
        dg.AssetCheckSpec(name, asset=entity.name, description=text, blocking=name == SCHEMA)
        for name, text in _DESCRIPTIONS.items()
        if name != REUSE or is_reused
    ]


def passed_checks(reading: Reading, *, rows_before: int | None) -> Iterator[dg.AssetCheckResult]:
    yield dg.AssetCheckResult(passed=True, check_name=SCHEMA, metadata={"rows": reading.rows})
    yield _row_count(reading.rows, rows_before)
    yield _complete(reading)


def failed_checks(breached: SchemaBreached, *, is_reused: bool = False) -> Iterator[dg.AssetCheckResult]:
    yield dg.AssetCheckResult(passed=False, check_name=SCHEMA, metadata=breach_metadata(breached))
    for name in (ROW_COUNT, COMPLETE, REUSE) if is_reused else (ROW_COUNT, COMPLETE):
        yield dg.AssetCheckResult(
            passed=False,
            check_name=name,
            severity=dg.AssetCheckSeverity.WARN,
            description="Not checked: the export breaks its schema.",
            metadata={CHECKED: False},
        )


def reuse_check(reading: Reading) -> dg.AssetCheckResult:
    """Fails where m3ter has other rows than those that would have been taken from the previous export."""
    reuse = reading.reuse
    if reuse is None or reuse.differing is None:
        taken = f"{reuse.rows:,} rows were taken from export {reuse.export}" if reuse else "nothing was reused"
        words = f"Not checked: {taken}; only an export that reads everything to compare is."
        return dg.AssetCheckResult(passed=True, check_name=REUSE, description=words, metadata={CHECKED: False})
    parent = (reading.entity.listing.parent or "").replace("_", " ")
    words = f"{len(reuse.differing):,} of {reuse.parents:,} unchanged {parent} records have other rows than in export"
    advice = " Reuse is not safe here: take it out of exports.yaml." if reuse.differing else ""
    numbers = {"rows before": reuse.rows, "unchanged": reuse.parents, "unchanged with other rows": len(reuse.differing)}
    first = captions.table((parent,), ({parent: one} for one in reuse.differing[:SHOWN_ROWS]))
    return dg.AssetCheckResult(
        passed=not reuse.differing,
        check_name=REUSE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{words} {reuse.export}.{advice}",
        metadata={**numbers, **({"first of them": first} if reuse.differing else {})},
    )


def _complete(reading: Reading) -> dg.AssetCheckResult:
    found, deleted = reading.completeness, reading.deleted
    assert found
    note = f" But {deleted.note}." if deleted and deleted.note else ""
    return dg.AssetCheckResult(
        passed=found.is_proven and not note,
        check_name=COMPLETE,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{'Proven' if found.is_proven else 'Not proven'}: {found.why}.{note}",
        metadata={"rows recovered": found.recovered, "times the list was read": found.passes},
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
