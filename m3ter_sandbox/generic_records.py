"""Sample records of lists that no generator knows, made from what their descriptors say of the fields."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from typing import Any

from m3ter_dagster.model.entity import Column, Entity
from m3ter_sandbox.lists import entity_lists, parent_field
from m3ter_sandbox.values import TEXTS, Record, Seed, audit, date_time, moment, month, users

ROWS = 40
"""Of a list: more than one page of the usual size, and every value below several times."""
MISSING = object()
"""The record does not have the field at all."""
MANY_DIGITS = Decimal("0.12345678901234567890123456789")
VALUES: Mapping[str, tuple[Any, ...]] = {
    "string": (*TEXTS, "", None, MISSING),
    "integer": (0, 1, -7, 42, 2**31, 2**53 + 1, None, MISSING),
    "number": (0, 0.1, -2.5, 1e-7, 10.0, 123456789012.345, 1.5e300, MANY_DIGITS, None, MISSING),
    "boolean": (True, False, None, MISSING),
    "object": ({}, {'a "quoted", Überschrift': [1, None, "x\r\ny"], "digits": MANY_DIGITS}, None, MISSING),
    "array": ([], ["a,b", 'c"d', "line\nbreak", 1e-7, {"deep": True}], None, MISSING),
}
"""What exports trip over, by the type of the field."""


@dataclass(frozen=True)
class Target:
    """An entity whose ids a field may hold, and what another field says then."""

    entity: str
    where: tuple[str, str] | None = None


@dataclass(frozen=True)
class Shape:
    """What the records of one list hold, as all entities with its path say together."""

    name: str
    """The entity whose records they are."""
    types: dict[str, str] = field(default_factory=dict)
    """By field."""
    required: set[str] = field(default_factory=set)
    non_empty: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    """The fields that identify the record."""
    references: dict[str, list[Target]] = field(default_factory=dict)
    """Fields that hold an id, and of what."""
    arrays: dict[str, Shape] = field(default_factory=dict)
    """Fields whose elements are rows of an entity."""
    entities: list[Entity] = field(default_factory=list)
    """Whose rows come from the list."""

    def learn(self, entity: Entity, field_of: Callable[[Column], str | None]) -> None:
        targets: dict[str, list[Target]] = defaultdict(list)
        for one in entity.references:
            targets[one.column] += [Target(name, one.where) for name in one.to]
        for column in entity.columns:
            if (name := field_of(column)) is None:
                continue
            self.types.setdefault(name, column.type)
            if column.required:
                self.required.add(name)
            if column.non_empty:
                self.non_empty.add(name)
            if column.name == entity.primary_key:
                self.ids.add(name)
            if column.name in targets and column.type == "string":
                self.references.setdefault(name, targets[column.name])

    @property
    def rows(self) -> int:
        return 1 if any(entity.listing.is_one_record for entity in self.entities) else ROWS

    @property
    def targets(self) -> set[str]:
        """The entities that it refers to, its elements too."""
        own = {target.entity for targets in self.references.values() for target in targets}
        return own | {target for shape in self.arrays.values() for target in shape.targets}


def generic_shapes(known: Mapping[str, Entity], sampled: Collection[str]) -> list[Shape]:
    """Of all lists but those of the entities in `sampled`, which have generators."""
    lists = entity_lists(known.values())
    have_generators = {lists[name].path for name in sampled if name in lists}
    shapes: dict[str, Shape] = {}
    for entity in known.values():
        if entity.listing.path not in have_generators:
            name = lists[entity.name].entity
            _learn_list(shapes.setdefault(name, Shape(name, {"id": "string"}, ids={"id"})), entity)
    return list(shapes.values())


def _learn_list(shape: Shape, entity: Entity) -> None:
    shape.entities.append(entity)
    if entity.elements:
        for array, _ in entity.elements:
            elements = shape.arrays.setdefault(array, Shape(f"{shape.name} {array}"))
            elements.learn(entity, lambda column: column.api_field)
        shape.learn(entity, lambda column: column.parent_field)
        taken_over = {column.parent_field for column in entity.columns if column.parent_field}
        shape.required.update(taken_over)
        shape.non_empty.update(taken_over)
    else:
        shape.learn(entity, lambda column: column.api_field)
        for name in sorted(entity.not_exported):
            shape.types.setdefault(name, "string")
    if entity.listing.for_each:
        key = parent_field(entity)
        shape.types.setdefault(key, "string")
        shape.references[key] = [Target(entity.listing.for_each.entity)]
        shape.required.add(key)


def generic_records(
    seed: Seed, shapes: Iterable[Shape], ids: Mapping[str, Iterable[str]]
) -> Iterator[tuple[str, Record]]:
    """Some tens of records of each shape, each with its entity's name; `ids` are those of other lists by entity."""
    drafts = [(shape, [_draft(seed, shape, number) for number in range(shape.rows)]) for shape in shapes]
    while True:
        found = defaultdict(list, {name: list(given) for name, given in ids.items()})
        for shape, records in drafts:
            for entity in shape.entities:
                found[entity.name] += [one for record in records for one in ids_of(entity, record)]
        possible = [draft for draft in drafts if _can_refer(draft[0], found)]
        if len(possible) == len(drafts):
            break
        drafts = possible  # without accounts there is nothing that must have one, nor what refers to that
    for shape, records in drafts:
        for number, record in enumerate(records):
            _refer(seed, shape, record, found, number)
            yield shape.name, record


def ids_of(entity: Entity, record: Record) -> list[str]:
    """The ids of the entity's rows that come from this record of its list."""
    name = entity.column(entity.primary_key).api_field or "id"
    rows = [one for array, _ in entity.elements for one in record.get(array) or ()] if entity.elements else [record]
    return [row[name] for row in rows if row.get(name)]


def _draft(seed: Seed, shape: Shape, *numbers: int) -> Record:
    """A record that refers to nothing yet."""
    random = seed.random(shape.name, *numbers)
    created = moment(random, month(0), 150)
    record: Record = {}
    for name in shape.types:
        required, non_empty = name in shape.required, name in shape.non_empty
        values = _values(seed, f"{shape.name}.{name}", shape.types[name], required=required, non_empty=non_empty)
        value = values[sum(numbers) % len(values)]
        if isinstance(value, str) and (name.startswith("dt") or "Date" in name):
            value = date_time(moment(random, created, 400))
        elif isinstance(value, str) and name == "code":
            value = "_".join(map(str, (shape.name, *numbers)))
        record[name] = value
    for name, value in audit(random, seed, created).items():
        if name in shape.types:
            record[name] = value or users(seed)[0] if name in shape.required | shape.non_empty else value
    record |= dict.fromkeys(shape.ids, seed.id(shape.name, *numbers))
    for array, elements in shape.arrays.items():
        record[array] = [_draft(seed, elements, *numbers, index) for index in range((numbers[0] + 2) % 4)]
    return {name: value for name, value in record.items() if value is not MISSING}


@cache
def _values(seed: Seed, field: str, type: str, *, required: bool, non_empty: bool) -> list[Any]:
    """What the field may have, row after row and again from the first, which the seed chooses."""
    refused = [*([None, MISSING] if required else []), *([""] if non_empty else [])]
    allowed = [value for value in VALUES[type] if value not in refused]
    first = int(seed.random(field).random() * len(allowed))
    return [*allowed[first:], *allowed[:first]]


def _can_refer(shape: Shape, ids: Mapping[str, Sequence[str]]) -> bool:
    """Whether what it has to refer to exists."""
    needed = shape.required - shape.ids
    has_own = all(ids[one.entity] for name, targets in shape.references.items() if name in needed for one in targets)
    return has_own and all(_can_refer(elements, ids) for elements in shape.arrays.values())


def _refer(seed: Seed, shape: Shape, record: Record, ids: Mapping[str, Sequence[str]], *numbers: int) -> None:
    random = seed.random(f"{shape.name} references", *numbers)
    for name in sorted(shape.references.keys() - shape.ids):
        target = shape.references[name][sum(numbers) % len(shape.references[name])]
        there = ids[target.entity]
        refers = there and (name in shape.required or shape.rows == 1 or random.random() > 0.2)
        record[name] = there[int(random.random() * len(there))] if refers else None
        if refers and target.where:
            record[target.where[0]] = target.where[1]
    for array, elements in shape.arrays.items():
        for index, element in enumerate(record[array]):
            _refer(seed, elements, element, ids, *numbers, index)
