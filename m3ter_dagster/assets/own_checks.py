"""What each export is checked for by itself, before it is delivered."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg

from m3ter_dagster.assets.breaches import breach_metadata
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.history.log import SCHEDULE_TAG, previous_export, root_id
from m3ter_dagster.model.entities import Entity

SCHEMA, PRIMARY_KEY, ROW_COUNT = "schema", "primary_key", "row_count"
_DESCRIPTIONS = {
    SCHEMA: "Every cell fits the type of its column.",
    PRIMARY_KEY: "Every row has an id, and no other row has it.",
    ROW_COUNT: "Not fewer than half the rows of the previous export of the same schedule.",
}


def own_check_specs(entity: Entity) -> list[dg.AssetCheckSpec]:
    """Those that stop the delivery are blocking; a person decides about the other."""
    return [
        dg.AssetCheckSpec(name, asset=entity.name, description=text, blocking=name != ROW_COUNT)
        for name, text in _DESCRIPTIONS.items()
    ]


def passed_checks(
    entity: Entity, rows: int, run: dg.DagsterRun, instance: dg.DagsterInstance
) -> Iterator[dg.AssetCheckResult]:
    yield dg.AssetCheckResult(passed=True, check_name=SCHEMA, metadata={"rows": rows})
    yield dg.AssetCheckResult(passed=True, check_name=PRIMARY_KEY, metadata={"rows": rows})
    yield _row_count(rows, _previous_rows(entity, run, instance))


def failed_checks(entity: Entity, breached: SchemaBreached) -> Iterator[dg.AssetCheckResult]:
    """Which of the checks the breaches break; all rows were looked at."""
    for name, is_of_key in ((SCHEMA, False), (PRIMARY_KEY, True)):
        mine = [breach for breach in breached.breaches if (breach.column == entity.primary_key) is is_of_key]
        metadata = breach_metadata(breached, mine) if mine else {}
        yield dg.AssetCheckResult(passed=not mine, check_name=name, metadata=metadata)
    yield dg.AssetCheckResult(
        passed=False,
        check_name=ROW_COUNT,
        severity=dg.AssetCheckSeverity.WARN,
        description="Not checked: the export breaks its schema.",
    )


def _row_count(rows: int, before: int | None) -> dg.AssetCheckResult:
    if before is None:
        description = "Not checked: there is no previous export by the same schedule."
        return dg.AssetCheckResult(passed=True, check_name=ROW_COUNT, description=description, metadata={"rows": rows})
    return dg.AssetCheckResult(
        passed=2 * rows >= before,
        check_name=ROW_COUNT,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{rows:,} rows, {before:,} in the previous export.",
        metadata={"rows": rows, "rows before": before},
    )


def _previous_rows(entity: Entity, run: dg.DagsterRun, instance: dg.DagsterInstance) -> int | None:
    schedule = run.tags.get(SCHEDULE_TAG)
    previous = previous_export(instance, schedule=schedule, export_id=root_id(run))
    return previous["entities"].get(entity.name, {}).get("rows") if previous else None
