"""A descriptor in schemas/ as an entity: Frictionless Table Schema, and beside it what is ours (`m3ter:`)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from m3ter_dagster.model.entity import (
    FORMATS,
    TYPES,
    Column,
    Entity,
    ForEach,
    ForeignKey,
    Listing,
    PerParent,
    Reference,
)


class DescriptorError(ValueError):
    """A file in schemas/ is not a descriptor that this project understands."""


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
