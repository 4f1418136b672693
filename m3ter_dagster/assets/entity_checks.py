"""The checks of one entity by itself before it is delivered, and the report of the rows that fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from m3ter_dagster.frames.references import SHOWN_ROWS
from m3ter_dagster.frames.schema import Breach, SchemaBreached
from m3ter_dagster.history import captions
from m3ter_dagster.history.failures import NOTIFICATION
from m3ter_dagster.history.progress import REUSE
from m3ter_dagster.reading.reading import Reading

SCHEMA, ROW_COUNT, COMPLETE = "schema", "row_count", "complete"
Result = dg.AssetCheckResult | dg.Output[None]
"""The result of a check, or `not_checked`."""
_DESCRIPTIONS = {
    SCHEMA: "Every cell fits its column; every row has an id, and no other row has it. "
    "A warning names fields that m3ter has and the schema does not.",
    ROW_COUNT: "Not fewer than half the rows of the previous export of the same schedule.",
    COMPLETE: "It is proven that nothing is missing, although rows are deleted and added while lists are read.",
    REUSE: "The rows that reuse would take from the previous export are those of m3ter: for exports that read all.",
}


def check_specs(asset: dg.AssetKey, *, is_reused: bool = False) -> list[dg.AssetCheckSpec]:
    """The checks of an entity. The one that stops the delivery is blocking; the others are for a person to judge."""
    return [
        dg.AssetCheckSpec(name, asset=asset, description=text, blocking=name == SCHEMA)
        for name, text in _DESCRIPTIONS.items()
        if name != REUSE or is_reused
    ]


def passed_checks(asset: dg.AssetKey, reading: Reading, *, rows_before: int | None) -> Iterator[Result]:
    yield _schema(reading)
    yield _row_count(asset, reading, rows_before)
    yield _complete(reading)


def _schema(reading: Reading) -> dg.AssetCheckResult:
    """What is delivered fits its schema; a warning names the fields that it leaves out. It stops nothing."""
    unknown = sorted(reading.unknown_fields)
    shown = ", ".join(unknown[:SHOWN_ROWS]) + (", ..." if len(unknown) > SHOWN_ROWS else "")
    return dg.AssetCheckResult(
        passed=not unknown,
        check_name=SCHEMA,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Not exported, since the schema does not have it: {shown}." if unknown else None,
        metadata={"rows": reading.rows, **({"API fields not in the schema": len(unknown)} if unknown else {})},
    )


def failed_schema_check(breached: SchemaBreached) -> dg.AssetCheckResult:
    """The only result where the schema is broken: there is nothing that the other checks could be about."""
    return dg.AssetCheckResult(passed=False, check_name=SCHEMA, metadata=breach_metadata(breached))


def not_checked(asset: dg.AssetKey, check: str, why: str) -> dg.Output[None]:
    """Stands for the result of a check that had nothing to look at.

    Dagster wants an output for each check, and shows one without a result as skipped; the run's log says why.
    """
    spec = dg.AssetCheckSpec(check, asset=asset)
    return dg.Output(None, output_name=spec.get_python_identifier(), metadata={"not checked": why})


def reuse_check(asset: dg.AssetKey, reading: Reading) -> Result:
    """Fails where m3ter has other rows than those that would have been taken from the previous export."""
    reuse = reading.reuse
    if reuse is None or reuse.differing is None:
        taken = f"{reuse.rows:,} rows were taken from export {reuse.export}" if reuse else "nothing was reused"
        why = f"{taken}; only an export that reads everything to compare is checked"
        return not_checked(asset, REUSE, why)
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


def _row_count(asset: dg.AssetKey, reading: Reading, before: int | None) -> Result:
    if before is None:
        return not_checked(asset, ROW_COUNT, "there is no previous export by the same schedule")
    rows = reading.rows
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
