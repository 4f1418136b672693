"""What a materialisation of measurements records: for people, for the manifest, and for the check of the sums."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from m3ter_dagster.history.reading_metadata import DUPLICATES, EMPTY, FROM, UNKNOWN, UNTIL, WINDOW
from m3ter_dagster.model.entities import Table, entities
from m3ter_dagster.usage.columns import table_in
from m3ter_dagster.usage.source import UsageReading

SCHEMA = "m3ter/table_schema"
SUMS = "m3ter/sums"


def usage_metadata(reading: UsageReading) -> dict[str, Any]:
    """Findings are there only where there are any."""
    unknown = dict.fromkeys(reading.usage.unknown_columns, reading.usage.rows)
    findings = {UNKNOWN: unknown, EMPTY: list(reading.usage.empty_columns)}
    return {
        "window": str(reading.window),
        "m3ter's export job": reading.job_id or "none: there can be nothing in this window",
        "seconds to read": round((reading.finished - reading.started).total_seconds(), 3),
        FROM: dg.MetadataValue.timestamp(reading.started),
        UNTIL: dg.MetadataValue.timestamp(reading.finished),
        DUPLICATES: 0,
        WINDOW: dg.MetadataValue.json([reading.window.start.isoformat(), reading.window.end.isoformat()]),
        SCHEMA: dg.MetadataValue.json(json.loads(reading.table.table_schema)),
        SUMS: dg.MetadataValue.json(
            _scope(reading) | {"sums": {id: dict(one) for id, one in reading.usage.sums.items()}}
        ),
        **{name: dg.MetadataValue.json(found) for name, found in findings.items() if found},
    }


def recorded_table(name: str, metadata: Mapping[str, dg.MetadataValue[Any]]) -> Table:
    """The entity of that name, or the columns that a usage export had."""
    schema = metadata[SCHEMA].value if SCHEMA in metadata else None
    return table_in(name, schema) if isinstance(schema, dict) else entities()[name]


def recorded_sums(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    recorded = metadata[SUMS].value if SUMS in metadata else None
    return recorded if isinstance(recorded, dict) else {}


def _scope(reading: UsageReading) -> dict[str, Any]:
    """Exports can be compared where these are equal; meters are compared one by one."""
    selection = reading.selection
    return {
        "window": [reading.window.start.isoformat(), reading.window.end.isoformat()],
        "accounts": sorted(selection.account_ids),
        "filters": sorted(one.model_dump_json() for one in selection.dimension_filters),
        "meters": list(selection.meter_ids),
    }
