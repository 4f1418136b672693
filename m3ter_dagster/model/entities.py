"""The operational entities: schemas/*.json, each a Table Schema, read into frozen `Entity` values."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from m3ter_dagster.model.suggestions import known_names

_ABOUT_THE_ROW = ("version", "dtCreated", "dtLastModified", "deleted")
TYPES = ("array", "boolean", "integer", "number", "object", "string")
DATE, DATE_TIME = FORMATS = ("date", "date-time")
"""What a text is that says when, in the words of m3ter's API."""


class DescriptorError(ValueError):
    """A file in schemas/ is not a descriptor that this project understands."""


class UnknownEntity(ValueError):
    """A name that is neither that of an entity nor one of m3ter's operational data types."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no entity {name!r}; {known_names(name, known)}")


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


@cache
def entities() -> Mapping[str, Entity]:
    """All entities of this project by name, in alphabetical order: m3ter's own exports', and those they refer to."""
    return load_entities(_folder())


@cache
def operational_entities() -> Mapping[str, Entity]:
    """The entities that m3ter exports, which is what ALL means, by name in alphabetical order."""
    return {name: entity for name, entity in entities().items() if not entity.is_reference}


def find_entity(name: str) -> Entity:
    """The entity called `name`, by its own name or m3ter's (`bill`, `BILLS`)."""
    known = entities()
    by_type = {entity.operational_data_type: entity for entity in known.values()}
    found = known.get(name) or by_type.get(name)
    if found is None:
        raise UnknownEntity(name, [*known, *by_type])
    return found


def load_entities(folder: Path) -> dict[str, Entity]:
    loaded = {path.stem: load_entity(path) for path in sorted(folder.glob("*.json"))}
    if not loaded:
        raise DescriptorError(f"{folder} holds no descriptor; it should hold one JSON file per entity.")
    for entity in loaded.values():
        _check_references(entity, loaded)
    return loaded


def load_entity(path: Path) -> Entity:
    where = f"schemas/{path.name}"
    try:
        text = path.read_text(encoding="utf-8")
        descriptor = json.loads(text)
        return _entity(path.stem, descriptor, text, where)
    except json.JSONDecodeError as error:
        raise DescriptorError(f"{where}:{error.lineno}: not JSON: {error.msg}.") from None
    except KeyError as error:
        raise DescriptorError(f"{where} has no {error.args[0]!r}.") from None


def _entity(name: str, descriptor: dict[str, Any], text: str, where: str) -> Entity:
    api = descriptor["m3ter:api"]
    elements = api.get("elements", {})
    is_reference = "m3ter:referenceDataType" in descriptor
    foreign_keys = tuple(_foreign_key(name, key) for key in descriptor.get("foreignKeys", []))
    return Entity(
        name=name,
        title=descriptor["title"],
        description=descriptor["description"],
        operational_data_type=descriptor[f"m3ter:{'reference' if is_reference else 'operational'}DataType"],
        is_reference=is_reference,
        columns=tuple(_column(field, elements, where) for field in descriptor["fields"]),
        primary_key=descriptor["primaryKey"],
        foreign_keys=foreign_keys,
        references=tuple(_references(descriptor["fields"], foreign_keys)),
        listing=_listing(api),
        elements=tuple((array, tuple(constants.items())) for array, constants in elements.items()),
        not_exported=frozenset(descriptor.get("m3ter:notExported", [])),
        table_schema=text,
    )


def _listing(api: dict[str, Any]) -> Listing:
    return Listing(
        path=api["path"],
        page_size=1 if api.get("isOneRecord") else api["maximumPageSize"],
        parameters=tuple(api.get("parameters", {}).items()),
        for_each=_for_each(api["forEach"], api["path"]) if "forEach" in api else None,
        per_parent=_per_parent(api["perParent"]) if "perParent" in api else None,
        id_filter=api.get("idFilter"),
        is_one_record=api.get("isOneRecord", False),
    )


def _for_each(found: dict[str, Any], path: str) -> ForEach:
    parameter = None if "{id}" in path else found["parameter"]
    return ForEach(found["entity"], parameter, found.get("field"))


def _per_parent(found: dict[str, Any]) -> PerParent:
    return PerParent(
        found["entity"], found["path"], found["field"], tuple(found.get("unchangedBy", ())), found.get("embedded")
    )


def _column(field: dict[str, Any], elements: dict[str, Any], where: str) -> Column:
    name, type_ = field["name"], field.get("type")
    if type_ not in TYPES:
        raise DescriptorError(f"{where} gives {name!r} the type {type_!r}; use one of {', '.join(TYPES)}.")
    if (format_ := field.get("m3ter:format")) not in (None, *FORMATS):
        raise DescriptorError(f"{where} gives {name!r} the m3ter:format {format_!r}; use one of {', '.join(FORMATS)}.")
    constraints = field.get("constraints", {})
    supplied = "m3ter:constant" in field or "m3ter:parent" in field or any(name in c for c in elements.values())
    return Column(
        name=name,
        type=type_,
        description=field.get("description", ""),
        format=format_,
        api_field=None if supplied else field.get("m3ter:api", name),
        parent_field=field.get("m3ter:parent"),
        constant=field.get("m3ter:constant"),
        required=constraints.get("required", False),
        non_empty=constraints.get("minLength", 0) > 0,
        whole_without_fraction=type_ == "number" and field.get("m3ter:documented", {}).get("type") == "integer",
        is_personal=field.get("m3ter:personal", False),
        is_checked=field.get("m3ter:checked", False),
    )


def _foreign_key(name: str, key: dict[str, Any]) -> ForeignKey:
    """A foreign key. Table Schema writes resources with dashes, and the table itself as the empty name."""
    return ForeignKey(key["fields"], key["reference"]["resource"].replace("-", "_") or name)


def _references(fields: Iterable[dict[str, Any]], foreign_keys: Iterable[ForeignKey]) -> Iterator[Reference]:
    targets = {key.column: key.entity for key in foreign_keys}
    for field in fields:
        name = field["name"]
        if name in targets:
            yield Reference(name, (targets[name],))
        for one in field.get("m3ter:references", ()):
            yield Reference(name, tuple(one["entities"]), next(iter(one.get("where", {}).items()), None))


def _check_references(entity: Entity, loaded: Mapping[str, Entity]) -> None:
    targets = [target for one in entity.references for target in one.to]
    if entity.listing.parent:
        targets.append(entity.listing.parent)
    for target in targets:
        if target not in loaded:
            raise DescriptorError(
                f"schemas/{entity.name}.json refers to {target!r}; there is no schemas/{target}.json."
            )
    names = {column.name for column in entity.columns}
    if per_parent := entity.listing.per_parent:
        theirs = {column.name for column in loaded[per_parent.entity].columns}
        for column in per_parent.unchanged_by:
            if column not in theirs:
                raise DescriptorError(
                    f"schemas/{entity.name}.json says unchangedBy {column!r}, which is not among the fields of "
                    f"{per_parent.entity}."
                )
    keys = [entity.primary_key, *(key.column for key in entity.foreign_keys)]
    keys += [one.where[0] for one in entity.references if one.where]
    if entity.listing.for_each and entity.listing.for_each.field:
        keys.append(entity.listing.for_each.field)
    for column in keys:
        if column not in names:
            raise DescriptorError(f"schemas/{entity.name}.json has a key {column!r} that is not among its fields.")


def _folder() -> Path:
    """The folder of the descriptors: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "schemas"
    return inside if inside.is_dir() else package.parent / "schemas"
