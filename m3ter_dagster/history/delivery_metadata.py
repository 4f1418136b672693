"""What Dagster's pages show of a delivered file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from m3ter_dagster.delivery.destinations import Delivered
from m3ter_dagster.delivery.differences import Compared
from m3ter_dagster.history.log import SUMMARY
from m3ter_dagster.model.entities import Table
from m3ter_dagster.model.manifest import Manifest

OBJECTS = "objects"
COMPARISON = "m3ter/comparison"
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 8
PREVIEW_CHARACTERS = 60


def delivery_metadata(*, rows: int, delivered: Sequence[Delivered], seconds: float) -> dict[str, Any]:
    return {
        "dagster/row_count": rows,
        "dagster/uri": delivered[0].uri,
        "bytes": delivered[0].bytes,
        OBJECTS: _table([asdict(one) for one in delivered]),
        "seconds to write and deliver": round(seconds, 3),
    }


def delivered_objects(metadata: Mapping[str, dg.MetadataValue[Any]]) -> list[dict[str, Any]]:
    """The objects that a materialisation of `delivery_metadata` names."""
    value = metadata[OBJECTS]
    return [dict(record.data) for record in value.records] if isinstance(value, dg.TableMetadataValue) else []


def comparison_metadata(compared: Compared) -> dict[str, Any]:
    recorded = {"difference": dict(compared.difference), "keys": [asdict(one) for one in compared.keys]}
    return {
        COMPARISON: dg.MetadataValue.json(recorded),
        **{f"rows {what}": count for what, count in compared.difference.items() if isinstance(count, int)},
    }


def recorded_comparison(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    """What `comparison_metadata` recorded."""
    recorded = metadata[COMPARISON].value if COMPARISON in metadata else None
    return recorded if isinstance(recorded, dict) else {"difference": {}, "keys": []}


def recorded_rows(metadata: Mapping[str, dg.MetadataValue[Any]]) -> int:
    return int(str(metadata["dagster/row_count"].value))


def manifest_metadata(whole: Manifest, delivered: Sequence[Delivered]) -> dict[str, Any]:
    entities = {one.entity.name: {"rows": one.rows, "keys": list(one.keys)} for one in whole.entities}
    return {
        "dagster/uri": delivered[0].uri,
        "entities": len(whole.entities),
        "rows": sum(one.rows for one in whole.entities),
        "compared with export": whole.previous or "none",
        SUMMARY: dg.MetadataValue.json({"id": whole.export.id, "schedule": whole.schedule, "entities": entities}),
        OBJECTS: _table([asdict(one) for one in delivered]),
    }


def preview_metadata(frame: pl.LazyFrame, table: Table) -> dict[str, Any]:
    """The first rows, as far as they are not personal: Dagster keeps in its database what it shows."""
    names = [column.name for column in table.columns if not column.is_personal][:PREVIEW_COLUMNS]
    columns = [dg.TableColumn(name) for name in names]
    rows = frame.select(names).head(PREVIEW_ROWS).collect()
    records = [dict(zip(names, map(_cell, row), strict=True)) for row in rows.iter_rows()]
    shown = dg.MetadataValue.table(list(map(dg.TableRecord, records)), schema=dg.TableSchema(columns=columns))
    return {"preview": shown}


def _table(rows: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    cut = text if len(text) <= PREVIEW_CHARACTERS else f"{text[:PREVIEW_CHARACTERS]}..."
    return "".join(character if character.isprintable() else " " for character in cut)
