"""Reads the manifest of an export: bytes -> `DataPackage`, or NotAManifest with what is wrong. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from m3ter_dagster.model.entity import TYPES

Digest = Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")]
Name = Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]*$")]
Uri = Annotated[str, Meta(pattern="^((s3|gs)://[^/]+/|file:///).+$")]
Count = Annotated[int, Meta(ge=0)]


class NotAManifest(Exception):
    """The object is not the manifest of an export."""

    def __init__(self, says: str) -> None:
        super().__init__(f"this is not the manifest of an export: {says}.")


class Constraints(Struct, frozen=True):
    required: bool = False
    min_length: int = field(default=0, name="minLength")
    enum: list[str] = []


class References(Struct, frozen=True):
    """What Table Schema has no foreign key for: a column that leads to one of several entities, or not in all rows."""

    entities: Annotated[list[str], Meta(min_length=1)]
    where: dict[str, str] = {}
    """Columns and their values in the rows that refer there."""


class Field(Struct, frozen=True):
    name: str
    type: str
    constraints: Constraints = Constraints()
    noted: list[References] | str = field(default_factory=list, name="m3ter:references")
    """Manifests of older versions have a text here, about what is in no export."""

    @property
    def references(self) -> list[References]:
        return [] if isinstance(self.noted, str) else self.noted


class Reference(Struct, frozen=True):
    resource: str
    column: str = field(name="fields")


class ForeignKey(Struct, frozen=True):
    column: str = field(name="fields")
    reference: Reference


class Schema(Struct, frozen=True):
    fields: list[Field]
    primary_key: str | None = field(default=None, name="primaryKey")
    """The primary key; aggregated measurements have none."""
    foreign_keys: list[ForeignKey] = field(default_factory=list, name="foreignKeys")

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.fields]

    @property
    def referring(self) -> set[str]:
        """The columns by which it is known what rows refer to."""
        noted = {name for one in self.fields for to in one.references for name in (one.name, *to.where)}
        return noted | {key.column for key in self.foreign_keys}


class Reading(Struct, frozen=True):
    started: str = field(name="from")


class Resource(Struct, frozen=True):
    """One entity of the export."""

    name: Name
    path: Uri
    bytes: Count
    digest: Digest = field(name="hash")
    entity: str = field(name="m3ter:type")
    rows: Count = field(name="m3ter:rows")
    reading: Reading = field(name="m3ter:reading")
    schema: Schema
    format: Literal["csv", "jsonl", "parquet"] = "csv"
    compression: Literal["gz"] | None = None

    @property
    def file_name(self) -> str:
        """A name for the file that tells its format, whatever the object is called."""
        return ".".join(part for part in (self.name, self.format, self.compression) if part)

    @property
    def sha256(self) -> str:
        return self.digest.removeprefix("sha256:")


class About(Struct, frozen=True):
    id: str
    due: str
    signed_by: str | None = field(default=None, name="signedBy")
    """The fingerprint of the key that signed it, as far as the manifest itself is to be believed."""


class DataPackage(Struct, frozen=True):
    profile: Literal["data-package"]
    export: About = field(name="m3ter:export")
    resources: Annotated[list[Resource], Meta(min_length=1)]

    def parent(self, child: Resource, key: ForeignKey) -> Resource:
        """Table Schema writes the table itself as the empty name."""
        name = key.reference.resource or child.name
        return next(one for one in self.resources if one.name == name)


def read_data_package(content: bytes) -> DataPackage:
    try:
        package = msgspec.json.decode(content, type=DataPackage)
    except RecursionError:
        raise NotAManifest("it is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotAManifest(str(error)) from None
    mistake = next(_mistakes(package), None)
    if mistake:
        raise NotAManifest(mistake)
    return package


def _mistakes(package: DataPackage) -> Iterator[str]:
    """What contradicts itself in the manifest."""
    keys = {one.name: one.schema.primary_key for one in package.resources}
    for name, count in Counter(one.name for one in package.resources).items():
        if count > 1:
            yield f"it has {count} resources {name!r}"
    for one in package.resources:
        yield from _schema_mistakes(one.name, one.schema)
        for name in one.schema.referring - {*one.schema.names}:
            yield f"resource {one.name!r} has references by a column {name!r}, which it has not"
        for key in one.schema.foreign_keys:
            parent = key.reference.resource or one.name
            if key.column not in one.schema.names or key.reference.column != keys.get(parent):
                yield f"resource {one.name!r} has a foreign key {key.column!r} that is no column or fits no primary key"


def _schema_mistakes(resource: str, schema: Schema) -> Iterator[str]:
    if schema.primary_key is not None and schema.primary_key not in schema.names:
        yield f"resource {resource!r} has no column {schema.primary_key!r}, which is its primary key"
    for one in schema.fields:
        if one.type not in TYPES:
            yield f"resource {resource!r} has a column of the type {one.type!r}; known are {', '.join(TYPES)}"
