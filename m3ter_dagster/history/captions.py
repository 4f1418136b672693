"""What Dagster's pages show of a delivery, for people. Nothing reads it back: `history/record.py` has the facts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import dagster as dg
import msgspec
import polars as pl

from m3ter_dagster.history.record import Changes, Completeness, Delivery, StoredObject
from m3ter_dagster.model.entity import Table
from m3ter_dagster.model.manifest import ExportedEntity, Manifest
from m3ter_dagster.model.time_periods import Window

FindPage = Callable[[str, str], str | None]
"""Returns the web page of an object, by its destination and address, if its store has one."""
_REPORT = ("entity", "rows", "bytes", "complete", "added", "changed", "removed", "deleted")
PREVIEW_ROWS = 5
PREVIEW_COLUMNS = 8
PREVIEW_CHARACTERS = 60


def delivery_captions(delivery: Delivery, find_page: FindPage) -> dict[str, Any]:
    """What Dagster shows of a delivery, in this order. Findings are left out where there are none."""
    reading, counted = delivery.reading, delivery.difference.items()
    findings = {
        "API fields not in the schema": reading.unknown_fields,
        "documented fields without any value": list(reading.empty_fields),
    }
    return {
        "dagster/row_count": delivery.rows,
        "bytes": delivery.objects[0].bytes,
        "dagster/uri": delivery.objects[0].uri,
        **_consoles(delivery.objects, find_page),
        "seconds to read": round(reading.seconds, 3),
        "seconds to write and deliver": round(delivery.seconds_to_deliver, 3),
        **(_of_measurements(delivery) if reading.window else {}),
        **{f"rows {what}": count for what, count in counted if isinstance(count, int)},
        **(_completeness(reading.completeness) if reading.completeness else {}),
        "rows dropped as older copies": reading.duplicates_dropped,
        **{name: dg.MetadataValue.json(found) for name, found in findings.items() if found},
        "read from": dg.MetadataValue.timestamp(reading.started),
        "read until": dg.MetadataValue.timestamp(reading.finished),
        **({"requests": reading.requests} if reading.requests is not None else {}),
        **({"how the list was read": reading.how} if reading.how else {}),
        **(_changes(delivery.changes) if delivery.changes else {}),
        "objects": _objects(delivery.objects),
    }


def manifest_captions(manifest: Manifest, objects: Sequence[StoredObject], find_page: FindPage) -> dict[str, Any]:
    """The report of an export, and where its manifest is."""
    asked = dict(manifest.asked)
    return {
        "rows": sum(one.rows for one in manifest.entities),
        "report": table(_REPORT, map(_reported, manifest.entities)),
        "compared with export": manifest.previous or "none",
        "dagster/uri": objects[0].uri,
        **_consoles(objects, find_page),
        **_files(manifest, find_page),
        **({"requests to m3ter": dg.MetadataValue.json(asked)} if asked.get("requests") else {}),
        "objects": _objects(objects),
    }


def _consoles(objects: Sequence[StoredObject], find_page: FindPage) -> dict[str, dg.MetadataValue[Any]]:
    """Links to the objects in the consoles of their stores."""
    pages = {one.destination: find_page(one.destination, one.uri) for one in objects}
    return {f"console ({code})": dg.MetadataValue.url(page) for code, page in pages.items() if page}


def _files(manifest: Manifest, find_page: FindPage) -> dict[str, dg.MetadataValue[Any]]:
    """Links to all files of an export in the consoles of their stores: a table's cells would not be links."""
    lines = []
    for one in manifest.entities:
        pages = {code: find_page(code, stored["uri"]) for code, stored in one.objects.items()}
        links = [f"[{code}]({page})" for code, page in pages.items() if page]
        lines += [f"- {one.entity.name}: {', '.join(links)}"] if links else []
    return {"files in the console": dg.MetadataValue.md("\n".join(lines))} if lines else {}


def _reported(one: ExportedEntity) -> dict[str, Any]:
    size = next(iter(one.objects.values()))["bytes"]
    found = {"entity": one.entity.name, "rows": one.rows, "bytes": size, **one.difference, **one.completeness}
    return {name: found.get(name, "") for name in _REPORT}


def preview(frame: pl.LazyFrame, of: Table) -> dg.TableMetadataValue:
    """The first rows, as far as they are not personal: Dagster keeps in its database what it shows."""
    names = [column.name for column in of.columns if not column.is_personal][:PREVIEW_COLUMNS]
    rows = frame.select(names).head(PREVIEW_ROWS).collect()
    return table(names, [dict(zip(names, map(_cell, row), strict=True)) for row in rows.iter_rows()])


def table(names: Sequence[str], rows: Iterable[dict[str, Any]]) -> dg.TableMetadataValue:
    schema = dg.TableSchema(columns=[dg.TableColumn(name) for name in names])
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema=schema)


def _completeness(found: Completeness) -> dict[str, Any]:
    return {
        "complete": found.complete,
        "why": found.why,
        "times the list was read": found.passes,
        "rows recovered": found.recovered,
        "rows written meanwhile": found.written_meanwhile,
        "rows deleted since the previous export": found.deleted,
        "rows with deleted = true": found.deleted_rows,
    }


def _changes(found: Changes) -> dict[str, Any]:
    return {
        "rows in the file of changes": sum(found.rows.values()),
        "changes since export": found.previous or "none: all rows are added",
        **({"why rows were not compared": found.not_compared} if found.not_compared else {}),
        "objects of changes": _objects(found.objects),
    }


def _of_measurements(delivery: Delivery) -> dict[str, Any]:
    assert delivery.reading.window
    job = delivery.reading.job or "none: there can be nothing in this window"
    return {"window": str(Window(*delivery.reading.window)), "m3ter's export job": job}


def _objects(objects: Sequence[StoredObject]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(msgspec.structs.asdict(one)) for one in objects])


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    cut = text if len(text) <= PREVIEW_CHARACTERS else f"{text[:PREVIEW_CHARACTERS]}..."
    return "".join(character if character.isprintable() else " " for character in cut)
