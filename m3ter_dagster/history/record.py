"""What an asset delivered, as one JSON value of its materialisation: written and read by the same classes.

No code reads the captions that people see beside it (`history/captions.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import dagster as dg
import msgspec

from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.history import older
from m3ter_dagster.model.changes import changes_table
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity, Table
from m3ter_dagster.model.manifest import ExportedChanges, ExportedEntity
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.usage.columns import table_in

KEY = "m3ter/record"
"""The name of the metadata value that is the record."""
VERSION = 1
"""The version of the record. A new field with a default needs no new version; a field that changes its meaning does."""

Metadata = Mapping[str, dg.MetadataValue[Any]]


class RecordFromTheFuture(Exception):
    """A record that a later version of this project has written."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"DAGSTER_HOME has records of version {version}, which a later version of m3ter-dagster has written; this "
            f"one reads versions up to {VERSION}. Install the later version again, or use another DAGSTER_HOME."
        )


class StoredObject(msgspec.Struct, frozen=True):
    """One file that is whole in a destination."""

    destination: str
    uri: str
    bytes: int
    sha256: str
    etag: str


PROVEN, NOT_PROVEN = "PROVEN", "NOT_PROVEN"


class Completeness(msgspec.Struct, frozen=True, rename="camel"):
    """How far it is proven that nothing is missing although rows moved while they were read."""

    complete: str
    """PROVEN or NOT_PROVEN."""
    why: str
    passes: int
    """How often the list, or its newest part, was read."""
    read: int
    """The number of rows that m3ter has."""
    recovered: int
    """Rows that had fallen out of the list, and were found when they were looked for."""
    written_meanwhile: int
    """Rows that were created or changed while they were read."""
    deleted: int
    """Rows that the export before this one had, and m3ter has no more."""
    deleted_rows: int
    """Rows of this export with `deleted` true."""


class Reading(msgspec.Struct, frozen=True, rename="camel"):
    """How the rows were read from m3ter, and what was found on the way."""

    started: datetime
    finished: datetime
    duplicates_dropped: int = 0
    unknown_fields: dict[str, int] = {}
    empty_fields: tuple[str, ...] = ()
    requests: int | None = None
    """For an entity: the number of requests."""
    how: str | None = None
    """For an entity: how its list was read where there was a choice, and why."""
    reused_in_a_row: int = 0
    """For an entity: how many exports in a row, this one included, have taken rows from the export before."""
    completeness: Completeness | None = None
    """For an entity: whether it is proven that nothing is missing."""
    job: str | None = None
    """For measurements: m3ter's export job; None if m3ter was not asked because there can be no rows."""
    window: tuple[datetime, datetime] | None = None
    """For measurements: the window from the first moment up to, but not including, the second."""
    sums: dict[str, Any] = {}
    """For measurements: what was asked for, and by meter the sum of each column of numbers."""

    @property
    def seconds(self) -> float:
        return (self.finished - self.started).total_seconds()


class Changes(msgspec.Struct, frozen=True, rename="camel"):
    """A file of the rows that are not as the schedule's previous export had them (`model.changes`)."""

    rows: dict[str, int]
    """Their number by kind."""
    objects: tuple[StoredObject, ...]
    previous: str | None = None
    """The export that they are changes of; None: of nothing, and all rows are there as added ones."""
    not_compared: str | None = None
    """Why that is None, or why every row counts as changed."""


class Delivery(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="rows"):
    """A file of rows: an entity, or measurements."""

    asset: str
    export: str
    """The export's id, with which the names of its objects start."""
    org_id: str
    rows: int
    objects: tuple[StoredObject, ...]
    reading: Reading
    seconds_to_deliver: float
    """The seconds it took to write the file and deliver it to all destinations."""
    difference: dict[str, Any] = {}
    """Rows added, removed and changed since `previous`, or `notCompared` with the reason."""
    keys: tuple[StoredObject, ...] = ()
    """The files of hashes that the next export compares itself with."""
    table_schema: dict[str, Any] | None = None
    """For measurements, whose columns follow from the meters at that time."""
    changes: Changes | None = None
    """For an entity whose schedule wants them."""
    excluded: tuple[str, ...] = ()
    """The columns of an entity that its schedule leaves out."""
    version: int = VERSION

    @property
    def table(self) -> Table:
        """The entity with the columns that the file has, or the columns that the measurements had."""
        return table_in(self.asset, self.table_schema) if self.table_schema else self.entity

    @property
    def entity(self) -> Entity:
        """The entity with the columns that the file has."""
        return entities()[self.asset].without(self.excluded)


class Part(msgspec.Struct, frozen=True):
    """What the next export of the same schedule needs to know about an entity."""

    rows: int
    keys: tuple[StoredObject, ...] = ()


class WholeExport(msgspec.Struct, frozen=True, rename="camel", tag_field="kind", tag="manifest"):
    """A manifest: everything of an export was delivered."""

    asset: str
    export: str
    org_id: str
    schedule: str | None
    objects: tuple[StoredObject, ...]
    entities: dict[str, Part]
    previous: str | None = None
    """The export that this one was compared with."""
    version: int = VERSION


def as_metadata(record: Delivery | WholeExport) -> dict[str, dg.MetadataValue[Any]]:
    return {KEY: dg.MetadataValue.json(msgspec.to_builtins(record))}


def record_in(asset: str, metadata: Metadata) -> Delivery | WholeExport | None:
    """The record of a materialisation of `asset`; None if this project did not make it."""
    recorded = metadata[KEY].value if KEY in metadata else older.record_in(asset, metadata)
    if not isinstance(recorded, dict):
        return None
    if recorded.get("version", VERSION) > VERSION:
        raise RecordFromTheFuture(recorded["version"])
    return msgspec.convert(recorded, Delivery | WholeExport)


def delivery_in(materialization: dg.AssetMaterialization, names: Names = DEFAULT) -> Delivery | None:
    found = _own_record(materialization, names)
    return found if isinstance(found, Delivery) else None


def whole_export_in(materialization: dg.AssetMaterialization, names: Names = DEFAULT) -> WholeExport | None:
    found = _own_record(materialization, names)
    return found if isinstance(found, WholeExport) else None


def _own_record(materialization: dg.AssetMaterialization, names: Names) -> Delivery | WholeExport | None:
    """The record, if it is about this asset: another project's, such as warehouse/account, may hand ours on."""
    key, metadata = materialization.asset_key, materialization.metadata
    # Versions that kept no record had no prefixes.
    is_recorded = KEY in metadata or (len(key.path) == 1 and not names.prefix)
    found = record_in(names.asset(key), metadata) if is_recorded else None
    return found if found and names.key(found.asset) == key else None


def exported_entity(delivery: Delivery) -> ExportedEntity:
    """The record as the manifest lists it."""
    reading, format = delivery.reading, format_of(delivery.objects[0].uri)
    file_format, _, compression = format.suffix.partition(".")
    window = {"window": [moment.isoformat() for moment in reading.window]} if reading.window else {}
    return ExportedEntity(
        entity=delivery.table,
        rows=delivery.rows,
        file_format=file_format,
        media_type=format.media_type,
        compression=compression or None,
        objects=_by_destination(delivery.objects),
        reading={
            "from": reading.started.isoformat(),
            "until": reading.finished.isoformat(),
            "duplicatesDropped": reading.duplicates_dropped,
            "unknownFields": reading.unknown_fields,
            "emptyFields": list(reading.empty_fields),
            **window,
        },
        difference=delivery.difference,
        completeness=msgspec.to_builtins(reading.completeness) if reading.completeness else {},
        keys=[msgspec.structs.asdict(one) for one in delivery.keys],
        changes=_exported_changes(delivery.changes, delivery.entity) if delivery.changes else None,
    )


def _exported_changes(changes: Changes, entity: Entity) -> ExportedChanges:
    return ExportedChanges(
        table=changes_table(entity),
        rows=changes.rows,
        objects=_by_destination(changes.objects),
        previous=changes.previous,
        not_compared=changes.not_compared,
    )


def _by_destination(objects: tuple[StoredObject, ...]) -> dict[str, dict[str, Any]]:
    return {one.destination: msgspec.structs.asdict(one) for one in objects}
