"""The manifest of an export: a Frictionless Data Package that names every object, its size, rows and checksum. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from m3ter_dagster.model.entity import Table
from m3ter_dagster.model.exports import Export

TYPE = "manifest"
"""The type in the keys of manifests, in the place of an entity's name."""


@dataclass(frozen=True)
class ExportedChanges:
    """The file of changes that was delivered beside that of an entity."""

    table: Table
    rows: Mapping[str, int]
    """By kind of change."""
    objects: Mapping[str, Mapping[str, Any]]
    """As those of the entity."""
    previous: str | None
    """The export that they are changes of."""
    not_compared: str | None
    """Why that is None, or why every row counts as changed."""


@dataclass(frozen=True)
class ExportedEntity:
    """One entity as it was delivered."""

    entity: Table
    rows: int
    file_format: str
    """In the words of a Data Package: csv."""
    media_type: str
    compression: str | None
    """In the words of a Data Package: gz."""
    objects: Mapping[str, Mapping[str, Any]]
    """Uri, bytes, sha256 and etag by destination."""
    reading: Mapping[str, Any]
    """The window in which m3ter was read, and what was found on the way."""
    difference: Mapping[str, Any]
    """Rows added, removed and changed since the previous export, or why that is not known."""
    completeness: Mapping[str, Any]
    """Whether it is proven that no row is missing, and why; nothing of measurements."""
    keys: Sequence[Mapping[str, Any]]
    """The files of keys that the next export compares itself with."""
    changes: ExportedChanges | None = None


@dataclass(frozen=True)
class Manifest:
    """A whole export. It is written last, so that whoever finds it finds everything."""

    export: Export
    schedule: str | None
    destinations: Sequence[str]
    started: datetime
    finished: datetime
    previous: str | None
    """The id of the export that this one was compared with."""
    versions: Mapping[str, str]
    entities: Sequence[ExportedEntity]
    asked: Mapping[str, float] = field(default_factory=dict)
    """What the run asked m3ter, in numbers; the file does not tell it."""

    def data_package(self, destination: str, *, signed_by: str | None = None) -> dict[str, Any]:
        """The manifest for one destination: paths are the addresses of its own objects.

        `signed_by` is the fingerprint of the key that signs it.
        """
        present = {one.entity.name for one in self.entities}
        return {
            "profile": "data-package",
            "name": f"m3ter-export-{self.export.id}",
            "title": f"m3ter Data Export of {self.export.due:%Y-%m-%d %H:%M} UTC",
            "created": self.finished.isoformat(),
            "m3ter:export": {**self._about(destination), **({"signedBy": signed_by} if signed_by else {})},
            "resources": [file for one in self.entities for file in _resources(one, destination, present)],
        }

    def _about(self, destination: str) -> dict[str, Any]:
        return {
            "id": self.export.id,
            "orgId": self.export.org_id,
            "schedule": self.schedule,
            "destination": destination,
            "destinations": list(self.destinations),
            "due": self.export.due.isoformat(),
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat(),
            "previous": self.previous,
            "versions": dict(self.versions),
        }


def _resources(one: ExportedEntity, destination: str, present: set[str]) -> Iterator[dict[str, Any]]:
    """The entity's file, and that of its changes if there is one."""
    yield {
        **_file(one, one.entity, one.objects[destination]),
        "m3ter:rows": one.rows,
        "m3ter:reading": dict(one.reading),
        "m3ter:difference": dict(one.difference),
        **({"m3ter:completeness": dict(one.completeness)} if one.completeness else {}),
        "schema": _schema(one.entity, present),
    }
    if changes := one.changes:
        yield {
            **_file(one, changes.table, changes.objects[destination]),
            "m3ter:rows": sum(changes.rows.values()),
            "m3ter:reading": dict(one.reading),
            "m3ter:changes": {
                "previous": changes.previous,
                **changes.rows,
                **({"notCompared": changes.not_compared} if changes.not_compared else {}),
            },
            "schema": _schema(changes.table, present),
        }


def _file(one: ExportedEntity, table: Table, delivered: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": table.name.replace("_", "-"),
        "profile": "tabular-data-resource",
        "path": delivered["uri"],
        "format": one.file_format,
        "mediatype": one.media_type,
        **({"compression": one.compression} if one.compression else {}),
        "encoding": "utf-8",
        "bytes": delivered["bytes"],
        "hash": f"sha256:{delivered['sha256']}",
        "m3ter:type": table.name,
        "m3ter:etag": delivered["etag"],
    }


def _schema(entity: Table, present: set[str]) -> dict[str, Any]:
    """The descriptor without the references to entities that are not in this export: such foreign keys are invalid."""
    schema = json.loads(entity.table_schema)
    for described in schema["fields"]:
        noted = [one for one in described.pop("m3ter:references", ()) if present >= {*one["entities"]}]
        if noted:
            described["m3ter:references"] = noted
    targets = {key.column: key.entity for key in entity.foreign_keys}
    kept = [key for key in schema.get("foreignKeys", []) if targets[key["fields"]] in present]
    schema.pop("foreignKeys", None)
    return {**schema, "foreignKeys": kept} if kept else schema
