"""The organization's records behind its lists: GET /organizations/{orgId}/accounts and its sisters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from operator import attrgetter
from typing import cast

import msgspec
from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from m3ter_sandbox.access import Clock
from m3ter_sandbox.answers import offset_of, page, page_size, token_for
from m3ter_sandbox.lists import LINE_ITEM_PARAMETERS, Asked, EntityList, InvalidParameter, Keys
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


def store(records: Iterable[tuple[str, Record]], lists: Mapping[str, EntityList]) -> Mapping[str, Rows]:
    """The rows of each entity's list, by the entity's name; a record of an entity without a descriptor is in none."""
    stored: dict[str, list[Row]] = {entity_list.entity: [] for entity_list in lists.values()}
    products: dict[str, str] = {}
    for entity, record in records:
        if entity not in lists:
            continue
        keys = {name: record.get(name) for name in lists[entity].key_fields}
        if entity == "meter":
            products[record["id"]] = record.get("productId", "")
        elif entity == "aggregation":  # it has no field productId, yet the list takes the parameter
            keys["productId"] = products.get(record.get("meterId", ""))
        row = Row(record.get("dtCreated") or "", record["id"], ENCODER.encode(record), keys)
        stored[lists[entity].entity].append(row)
    for rows in stored.values():
        rows.sort(key=attrgetter("created", "id"), reverse=True)
    by_list = {name: Rows(rows) for name, rows in stored.items()}
    return {entity: by_list[entity_list.entity] for entity, entity_list in lists.items()}


def moment_text(seconds: float) -> str:
    """A time as the records write it, without its fraction."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


NOT_EMBEDDED = ("version", "billId", "bandUsage", "dtCreated", "dtLastModified", "createdBy", "lastModifiedBy")
"""What a line item inside a bill lacks; its band usage has another name there."""


def bill_content(row: Row, asked: Asked, line_items: Rows) -> bytes:
    with_total = asked.get("includeBillTotal", False)
    with_line_items = not asked.get("excludeLineItems", False)
    if with_total and not with_line_items:
        return row.content
    bill = DECODER.decode(row.content)
    if not with_total:
        bill.pop("billTotal", None)
    if with_line_items:
        bill["lineItems"] = [_embedded(item) for item in line_items.found_by("billId", row.id)]
    return ENCODER.encode(bill)


def _embedded(row: Row) -> Record:
    item = cast(Record, DECODER.decode(row.content))
    if "bandUsage" in item:
        item["usagePerPricingBand"] = item["bandUsage"]
    for name in NOT_EMBEDDED:
        item.pop(name, None)
    return item


PAGE_PARAMETERS = ("pageSize", "nextToken")
LINE_ITEMS_OF_A_BILL = EntityList("bill_line_item", "/bills/<bill_id>/lineitems", LINE_ITEM_PARAMETERS)


def list_routes(lists: Iterable[EntityList], stored: Mapping[str, Rows], clock: Clock) -> Blueprint:
    routes = Blueprint("lists", __name__)
    for entity_list in {entity_list.path: entity_list for entity_list in lists}.values():
        view = partial(list_answer, entity_list, stored, clock)
        routes.add_url_rule(entity_list.path, entity_list.entity, view, methods=["GET"])

    @routes.get(LINE_ITEMS_OF_A_BILL.path)
    def line_items_of_a_bill(bill_id: str) -> Response:
        asked = read_parameters(LINE_ITEMS_OF_A_BILL)
        if "bill" not in stored or not stored["bill"].found_by("id", bill_id):
            raise NotFound(f"There is no bill {bill_id}.")
        rows = stored.get("bill_line_item", Rows([])).found_by("billId", bill_id)
        return page_answer(rows, LINE_ITEMS_OF_A_BILL, asked, lambda row: row.content)

    return routes


def list_answer(entity_list: EntityList, stored: Mapping[str, Rows], clock: Clock) -> Response:
    asked = read_parameters(entity_list)
    rows = stored[entity_list.entity].select(entity_list, asked, moment_text(clock()))
    if entity_list.path == "/bills":
        line_items = stored.get("bill_line_item", Rows([]))
        return page_answer(rows, entity_list, asked, lambda row: bill_content(row, asked, line_items))
    return page_answer(rows, entity_list, asked, lambda row: row.content)


def read_parameters(entity_list: EntityList) -> Asked:
    """The filters of the request; a parameter that the list does not have is refused, not ignored."""
    known = entity_list.parameters
    given = {name: texts for name, texts in request.args.lists() if name not in PAGE_PARAMETERS}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        allowed = ", ".join(sorted([*known, *PAGE_PARAMETERS]))
        raise InvalidParameter(f"{request.path} has no parameter {unknown[0]!r}; it has {allowed}.")
    return {name: known[name].read(name, texts) for name, texts in given.items()}


def page_answer(rows: list[Row], entity_list: EntityList, asked: Asked, content: Callable[[Row], bytes]) -> Response:
    size = page_size(request.args.get("pageSize"), maximum=entity_list.maximum_page_size)
    question = f"{request.path} {sorted((name, _sortable(value)) for name, value in asked.items())}"
    first = offset_of(request.args.get("nextToken"), question)
    rest = first + size
    token = token_for(rest, question) if rest < len(rows) else None
    return Response(page(map(content, rows[first:rest]), token), content_type="application/json")


def _sortable(value: object) -> str:
    return str(sorted(value)) if isinstance(value, frozenset) else str(value)
