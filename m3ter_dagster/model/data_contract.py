"""The entities as a data contract, in the Open Data Contract Standard (ODCS) 3.1, https://bitol-io.github.io."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from m3ter_dagster.model.entity import Column, Entity


def data_contract(known: Iterable[Entity], *, version: str, files: str | None = None) -> dict[str, Any]:
    """What every exported file of CSV holds, as a value for YAML.

    `files` is where the files of an export are, a path or an address in S3 with `{name}` for the entity.
    """
    return {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "m3ter-operational-data-export",
        "name": "m3ter's Operational Data Export",
        "version": version,
        "status": "active",
        **({"servers": [_server(files)]} if files else {}),
        "schema": [_table(entity) for entity in known],
    }


def _server(files: str) -> dict[str, Any]:
    """Who reads contracts calls the placeholder of a table's name `{model}`."""
    is_s3, place = files.startswith("s3://"), files.replace("{name}", "{model}")
    where = {"type": "s3", "location": place} if is_s3 else {"type": "local", "path": place}
    return {"server": "export", **where, "format": "csv"}


def _table(entity: Entity) -> dict[str, Any]:
    return {
        "name": entity.name,
        "businessName": entity.title,
        "description": entity.description,
        "logicalType": "object",
        "physicalType": "file",
        "properties": [_property(column, entity) for column in entity.columns],
    }


def _property(column: Column, entity: Entity) -> dict[str, Any]:
    """Objects and arrays are JSON text in the file, and times are text as m3ter sends it, so they are strings here."""
    is_key = column.name == entity.primary_key
    options = {
        **({"format": column.format} if column.format else {}),
        **({"minLength": 1} if column.non_empty else {}),
    }
    targets = [key.entity for key in entity.foreign_keys if key.column == column.name]
    return {
        "name": column.name,
        "description": column.description,
        "logicalType": "string" if column.is_json else column.type,
        "physicalType": "JSON" if column.is_json else column.type,
        **({"logicalTypeOptions": options} if options else {}),
        **({"required": True} if column.required else {}),
        **({"unique": True, "primaryKey": True, "primaryKeyPosition": 1} if is_key else {}),
        **({"classification": "personal"} if column.is_personal else {}),
        **({"relationships": [{"to": f"{target}.id"} for target in targets]} if targets else {}),
    }
