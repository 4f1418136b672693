"""The organization's records as its lists give them: encoded once, newest first, found by parameter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter

import msgspec

from m3ter_sandbox.lists import LISTS, Asked, EntityList
from m3ter_sandbox.parameters import Keys
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


@dataclass(frozen=True)
class Rows:
    """The rows of one list, newest first."""

    rows: list[Row]
    indexes: dict[str, dict[str, list[Row]]] = field(default_factory=dict)

    def select(self, entity_list: EntityList, asked: Asked, now: str) -> list[Row]:
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

    def found_by(self, field_name: str, value: str) -> list[Row]:
        """The rows with that value, by an index that the first question makes."""
        index = self.indexes.get(field_name)
        if index is None:
            grouped = defaultdict(list)
            for row in self.rows:
                grouped[row.keys[field_name] or ""].append(row)
            self.indexes[field_name] = index = dict(grouped)
        return index.get(value, [])


def store(records: Iterable[tuple[str, Record]]) -> Mapping[str, Rows]:
    lists = {entity_list.entity: entity_list for entity_list in LISTS}
    stored: dict[str, list[Row]] = {entity: [] for entity in lists}
    products: dict[str, str] = {}
    for entity, record in records:
        keys = {name: record.get(name) for name in lists[entity].key_fields}
        if entity == "meter":
            products[record["id"]] = record.get("productId", "")
        elif entity == "aggregation":  # it has no field productId, yet the list takes the parameter
            keys["productId"] = products.get(record.get("meterId", ""))
        stored[entity].append(Row(record.get("dtCreated") or "", record["id"], ENCODER.encode(record), keys))
    for rows in stored.values():
        rows.sort(key=attrgetter("created", "id"), reverse=True)
    return {entity: Rows(rows) for entity, rows in stored.items()}


def moment_text(seconds: float) -> str:
    """A time as the records write it, without its fraction."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]
