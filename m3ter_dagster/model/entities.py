"""The entities of this project, each a descriptor in schemas/."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from m3ter_dagster.model.descriptors import load_entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.model.suggestions import known_names


class UnknownEntity(ValueError):
    """A name that is neither that of an entity nor one of m3ter's operational data types."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"there is no entity {name!r}; {known_names(name, known)}")


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


def _folder() -> Path:
    """The folder of the descriptors: in the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "schemas"
    return inside if inside.is_dir() else package.parent / "schemas"
