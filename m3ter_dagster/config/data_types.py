"""Which entities a schedule exports, and which of their columns it leaves out, in the words of exports.yaml."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer

from m3ter_dagster.config.fields import rule
from m3ter_dagster.config.names import ALL, ALL_AND_REFERENCES
from m3ter_dagster.model.entities import UnknownEntity, entities, find_entity, operational_entities
from m3ter_dagster.model.suggestions import known_names

SETS = {ALL: operational_entities, ALL_AND_REFERENCES: entities}
"""The words for many entities, and which those are."""


def set_named(names: Collection[str]) -> str | None:
    """The word for exactly these entities, if there is one."""
    return next((word for word, found in SETS.items() if found().keys() == set(names)), None)


def data_types() -> list[str]:
    """The names of the entities in exports.yaml, m3ter's own first."""
    return [one.operational_data_type for one in sorted(entities().values(), key=lambda one: one.is_reference)]


def _entity_name(name: str) -> str:
    try:
        return find_entity(name).name
    except UnknownEntity:
        known = [*SETS, *data_types()]
        raise ValueError(f"names the operational data type {name!r}; {known_names(name, known)}") from None


def with_sets(value: Any) -> Any:
    """The list with the entities that its words for many mean; such a word may stand alone."""
    names = [value] if isinstance(value, str) and value in SETS else value
    if not isinstance(names, (list, tuple)):
        return value
    return [one for name in names for one in (SETS[name]() if isinstance(name, str) and name in SETS else [name])]


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in entities() if name in names)


def _offered_names(schema: dict[str, Any]) -> None:
    schema["enum"] = [*SETS, *data_types(), *entities()]


EntityName = Annotated[
    str, AfterValidator(_entity_name), Field(title="operational data type", json_schema_extra=_offered_names)
]
EntityNames = Annotated[
    tuple[EntityName, ...],
    rule("write a list of entities such as [ACCOUNTS, BILLS], or ALL", min_length=1),
    AfterValidator(_in_order),
]


def _excluded(value: Any) -> Any:
    """The columns by entity as pairs, which can be hashed; a file has no tuples, but what was read from one has."""
    value = dict(value) if isinstance(value, tuple) else value
    if not isinstance(value, Mapping) or not all(isinstance(names, (list, tuple)) for names in value.values()):
        raise ValueError("needs entities with lists of their columns as excludeColumns, such as {ACCOUNTS: [address]}")
    by_entity = {_entity_name(str(name)): names for name, names in value.items()}
    return tuple((name, _columns(name, names)) for name, names in by_entity.items())


def _columns(entity: str, names: Sequence[Any]) -> tuple[str, ...]:
    found = entities()[entity]
    known = [column.name for column in found.columns if column.name not in found.needed]
    for name in names:
        if name in found.needed:
            raise ValueError(
                f"excludes the column {name!r} of {entity}, which rows are told apart or checked by; keep it"
            )
        if name not in known:
            raise ValueError(f"excludes the column {name!r} of {entity}; {known_names(str(name), known)}")
    return tuple(name for name in known if name in names)


ExcludedColumns = Annotated[
    tuple[tuple[str, tuple[str, ...]], ...],
    BeforeValidator(_excluded, json_schema_input_type=dict[str, list[str]]),
    PlainSerializer(dict, when_used="json"),
]
