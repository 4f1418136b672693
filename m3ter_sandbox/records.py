"""The organization's records, list by list and newest first; they may change while they are served."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from operator import attrgetter
from threading import Lock

import msgspec

from m3ter_sandbox.lists import Asked, EntityList, Keys
from m3ter_sandbox.values import Record

ENCODER = msgspec.json.Encoder(decimal_format="number")
DECODER = msgspec.json.Decoder(dict[str, object], float_hook=Decimal)
"""Decimals both ways: a record that is read again keeps every digit."""


@dataclass(frozen=True, slots=True)
class Row:
    created: str
    id: str
    content: bytes
    keys: Keys

    @property
    def place(self) -> str:
        """Where it stands in its list: greater is newer."""
        return f"{self.created} {self.id}"


@dataclass(frozen=True)
class Rows:
    """The rows of one list at one moment, newest first."""

    rows: Sequence[Row]
    indexes: dict[str, dict[str, list[Row]]] = field(default_factory=dict)

    @cached_property
    def by_id(self) -> Mapping[str, Row]:
        return {row.id: row for row in self.rows}

    def select(self, entity_list: EntityList, asked: Asked, now: str) -> Sequence[Row]:
        rows = self.rows
        tests = [entity_list.restrict(asked, now)]
        for name, value in asked.items():
            parameter = entity_list.parameters[name]
            if parameter.is_exact and rows is self.rows:
                rows = self.found_by(parameter.fields[0], value)
            elif parameter.selects:
                tests.append(lambda keys, test=parameter.selects, value=value: test(keys, value))
        chosen = [test for test in tests if test]
        return [row for row in rows if all(test(row.keys) for test in chosen)] if chosen else rows

    def found_by(self, field_name: str, value: str) -> Sequence[Row]:
        """The rows with that value, by an index that the first question makes."""
        index = self.indexes.get(field_name)
        if index is None:
            grouped = defaultdict(list)
            for row in self.rows:
                grouped[row.keys[field_name] or ""].append(row)
            self.indexes[field_name] = index = dict(grouped)
        return index.get(value, [])


class Records:
    """What the organization has, each record in the list of its entity; of an entity without a descriptor in none.

    Thread-safe. An answer that is being given still has what was there when it looked; nothing is removed or changed
    but the one record, whatever refers to it.
    """

    def __init__(self, records: Iterable[tuple[str, Record]], lists: Mapping[str, EntityList]) -> None:
        self._lists = lists
        self._lock = Lock()
        self._products: dict[str, str] = {}
        stored: dict[str, list[Row]] = {entity_list.entity: [] for entity_list in lists.values()}
        for entity, record in records:
            if entity in lists:
                stored[lists[entity].entity].append(self._row(entity, record))
        self._rows = {name: newest_first(rows) for name, rows in stored.items()}

    def of(self, entity: str) -> Rows:
        """The rows of the entity's list as they are now."""
        return self._rows[self._lists[entity].entity] if entity in self._lists else Rows([])

    def insert(self, entity: str, record: Record) -> None:
        self._change(entity, record["id"], record, is_there=False)

    def replace(self, entity: str, record: Record) -> None:
        """The one with the same id; its place in the list stays, if `dtCreated` does."""
        self._change(entity, record["id"], record, is_there=True)

    def delete(self, entity: str, id: str) -> None:
        self._change(entity, id, None, is_there=True)

    def _change(self, entity: str, id: str, record: Record | None, *, is_there: bool) -> None:
        name = self._lists[entity].entity
        with self._lock:
            before = self._rows[name]
            if (id in before.by_id) != is_there:
                raise ValueError(f"There is no {name} {id}." if is_there else f"{name} {id} is there already.")
            rows = [row for row in before.rows if row.id != id]
            if record is not None:
                rows.append(self._row(entity, record))
            self._rows[name] = newest_first(rows)

    def _row(self, entity: str, record: Record) -> Row:
        entity_list = self._lists[entity]
        keys = {name: record.get(name) for name in entity_list.key_fields}
        if entity == "meter":
            self._products[record["id"]] = record.get("productId", "")
        elif entity == "aggregation":  # it has no field productId, yet the list takes the parameter
            keys["productId"] = self._products.get(record.get("meterId", ""))
        if entity_list.parent and entity_list.hides_parent:
            record = {name: value for name, value in record.items() if name != entity_list.parent[1]}
        return Row(record.get("dtCreated") or "", record["id"], ENCODER.encode(record), keys)


def newest_first(rows: list[Row]) -> Rows:
    return Rows(sorted(rows, key=attrgetter("created", "id"), reverse=True))
