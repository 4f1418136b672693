"""An entity of a m3ter Organization: its columns, keys and references, and where m3ter lists its rows."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import quote

_ABOUT_THE_ROW = ("version", "dtCreated", "dtLastModified", "deleted")
TYPES = ("array", "boolean", "integer", "number", "object", "string")
DATE, DATE_TIME = FORMATS = ("date", "date-time")
"""What a text is that says when, in the words of m3ter's API."""


@dataclass(frozen=True)
class Column:
    """A column of the export and where its value comes from."""

    name: str
    type: str
    description: str
    format: str | None = None
    """One of FORMATS, where the API documents it: the text is a time."""
    api_field: str | None = None
    """The API's field, or None where the API has none."""
    parent_field: str | None = None
    """For an element of an array: the field of the enclosing record that is taken instead."""
    constant: bool | str | None = None
    required: bool = False
    non_empty: bool = False
    whole_without_fraction: bool = False
    """Documented as integer but a number in the API: 10.0 is written 10, and 2.5 stays 2.5."""
    is_personal: bool = False
    """The column may say who somebody is, or what somebody typed: its values are in the files and nowhere else."""
    is_checked: bool = False
    """A check looks at its values, beside those of keys and times."""

    @property
    def is_json(self) -> bool:
        return self.type in ("object", "array")


@dataclass(frozen=True)
class ForeignKey:
    column: str
    entity: str


@dataclass(frozen=True)
class Reference:
    """A column whose values are ids of rows of other entities: a foreign key, or what Table Schema has no word for."""

    column: str
    to: tuple[str, ...]
    """The entities, one of which has the row."""
    where: tuple[str, str] | None = None
    """Another column and its value in the rows that refer there, if not all do."""

    @property
    def name(self) -> str:
        return f"{self.column} where {self.where[0]} is {self.where[1]}" if self.where else self.column

    @property
    def target(self) -> str:
        return " or ".join(self.to)


@dataclass(frozen=True)
class ForEach:
    """A list is asked for once per row of another entity, and in no other way."""

    entity: str
    parameter: str | None = None
    """The query parameter that takes the row's id. None: it stands in the path, as `{id}`."""
    field: str | None = None
    """The field that each record gets with that id, where m3ter's records do not say to what they belong."""


@dataclass(frozen=True)
class PerParent:
    """A list of the same records, but of one parent only."""

    entity: str
    """The parents: every record belongs to one of them."""
    path: str
    """Where it is, with `{id}` for the parent's id."""
    field: str
    """The record's field that holds the parent's id."""
    unchanged_by: tuple[str, ...] = ()
    """The parent's columns that change whenever its records do; none: that cannot be told."""
    embedded: str | None = None
    """The field of the parent in which its list has the ids of these records, if it is asked without parameters."""


@dataclass(frozen=True)
class Listing:
    """A list in the API. Entities with equal listings are read from the same pages."""

    path: str
    page_size: int
    parameters: tuple[tuple[str, str], ...] = ()
    for_each: ForEach | None = None
    per_parent: PerParent | None = None
    """The same records are also listed parent by parent, which can be done side by side."""
    id_filter: str | None = None
    """The parameter by which the list gives only the records with certain ids, if it has one."""
    is_one_record: bool = False
    """There is one record of its kind and no list: the path has the record itself."""

    @property
    def parent(self) -> str | None:
        """The entity whose ids are needed to ask for this list, or may be used to."""
        if self.for_each:
            return self.for_each.entity
        return self.per_parent.entity if self.per_parent else None

    def of_parent(self, parent_id: str) -> Listing:
        """The list of what belongs to this parent."""
        if self.for_each and self.for_each.parameter:
            return replace(self, parameters=(*self.parameters, (self.for_each.parameter, parent_id)))
        path = self.per_parent.path if self.per_parent else self.path
        return Listing(path.format(id=quote(parent_id, safe="")), self.page_size, self.parameters)

    def of_ids(self, ids: Iterable[str], *, is_repeated: bool) -> Listing:
        """The list of the records with these ids: the parameter is repeated, or has them with commas between."""
        assert self.id_filter
        values = ids if is_repeated else [",".join(ids)]
        return replace(self, parameters=(*self.parameters, *((self.id_filter, one) for one in values)))


class Table(Protocol):
    """Anything whose rows are exported as a file: an entity, or measurements."""

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> tuple[Column, ...]: ...
    @property
    def primary_key(self) -> str | None: ...
    @property
    def foreign_keys(self) -> tuple[ForeignKey, ...]: ...
    @property
    def table_schema(self) -> str: ...


@dataclass(frozen=True)
class Entity:
    name: str
    title: str
    description: str
    operational_data_type: str
    """Its name in exports.yaml: m3ter's, or one of this project's in the same style."""
    is_reference: bool
    """No export of m3ter has it, but rows of those that it has refer to it."""
    columns: tuple[Column, ...]
    primary_key: str
    foreign_keys: tuple[ForeignKey, ...]
    references: tuple[Reference, ...]
    """All columns that refer to entities, the foreign keys among them, in the order of the columns."""
    listing: Listing
    elements: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    """Arrays of the listed record whose elements are this entity's rows, each with constant columns."""
    not_exported: frozenset[str]
    """Fields that the API documents and the export does not have."""
    table_schema: str
    """The descriptor as JSON text."""

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)

    @property
    def needed(self) -> frozenset[str]:
        """The columns without which rows could not be told apart, compared or checked."""
        keys = {self.primary_key, self.owner_column or self.primary_key, *_ABOUT_THE_ROW}
        keys |= {name for one in self.references for name in (one.column, *(one.where or ())[:1])}
        return frozenset(keys | {column.name for column in self.columns if column.is_checked})

    def without(self, names: Collection[str]) -> Entity:
        """The entity as if it did not have these columns, none of which is `needed`; its schema says which they are."""
        if not names:
            return self
        schema = json.loads(self.table_schema)
        left_out = [column for column in self.columns if column.name in names]
        fields = [field for field in schema["fields"] if field["name"] not in names]
        described = {**schema, "m3ter:excluded": [column.name for column in left_out], "fields": fields}
        return replace(
            self,
            columns=tuple(column for column in self.columns if column.name not in names),
            elements=tuple((array, tuple(one for one in of if one[0] not in names)) for array, of in self.elements),
            not_exported=self.not_exported | {column.api_field for column in left_out if column.api_field},
            table_schema=json.dumps(described, ensure_ascii=False),
        )

    @property
    def owner_column(self) -> str | None:
        """The column that names the record a row is listed with: its parent, or the record that it is an element of."""
        if self.elements:
            return next(column.name for column in self.columns if column.parent_field == "id")
        if self.listing.per_parent:
            return self.listing.per_parent.field
        if self.listing.for_each and self.listing.for_each.field:
            return self.listing.for_each.field
        keys = (key.column for key in self.foreign_keys if key.entity == self.listing.parent)
        return next(keys, None)
