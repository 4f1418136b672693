"""The organization's records as m3ter gives them: GET /organizations/{orgId}/accounts, its sisters, and single ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import cast

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from m3ter_sandbox.access import Clock
from m3ter_sandbox.answers import OFFSET, Cursor, page, page_size, place_of, token_for
from m3ter_sandbox.lists import LINE_ITEM_PARAMETERS, Asked, EntityList, InvalidParameter, Parameter
from m3ter_sandbox.records import DECODER, ENCODER, Records, Row, Rows
from m3ter_sandbox.values import Record


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
LINE_ITEMS_OF_A_BILL = EntityList(
    "bill_line_item", "/bills/<bill_id>/lineitems", LINE_ITEM_PARAMETERS, record_parameters=LINE_ITEM_PARAMETERS
)


def list_routes(lists: Iterable[EntityList], records: Records, clock: Clock, cursor: Cursor = OFFSET) -> Blueprint:
    routes = Blueprint("lists", __name__)
    for entity_list in {entity_list.path: entity_list for entity_list in lists}.values():
        view = partial(list_answer, entity_list, records, clock, cursor)
        path = entity_list.path.replace("{id}", "<parent_id>")
        routes.add_url_rule(path, f"{entity_list.entity} list", view, methods=["GET"])
        if entity_list.record_parameters is not None:
            view = partial(record_answer, entity_list, records)
            routes.add_url_rule(f"{path}/<id>", entity_list.entity, view, methods=["GET"])

    @routes.get(LINE_ITEMS_OF_A_BILL.path)
    def line_items_of_a_bill(bill_id: str) -> Response:
        asked = read_parameters(LINE_ITEMS_OF_A_BILL.parameters, PAGE_PARAMETERS)
        rows = rows_of_bill(records, bill_id)
        return page_answer(rows, LINE_ITEMS_OF_A_BILL, asked, lambda row: row.content, cursor)

    @routes.get(f"{LINE_ITEMS_OF_A_BILL.path}/<id>")
    def line_item_of_a_bill(bill_id: str, id: str) -> Response:
        read_parameters(LINE_ITEMS_OF_A_BILL.record_parameters or {})
        for row in rows_of_bill(records, bill_id):
            if row.id == id:
                return Response(row.content, content_type="application/json")
        raise NotFound(f"There is no bill line item {id} of bill {bill_id}.")

    @routes.get("/balances/<balance_id>/transactions/summary")
    def summary(balance_id: str) -> Response:
        read_parameters({})
        if balance_id not in records.of("balance").by_id:
            raise NotFound(f"There is no balance {balance_id}.")
        rows = records.of("balance_transaction").found_by("balanceId", balance_id)
        amounts = [Decimal(str(DECODER.decode(row.content).get("amount") or 0)) for row in rows]
        credit, debit = sum(one for one in amounts if one > 0), -sum(one for one in amounts if one < 0)
        found = {"totalCreditAmount": credit, "totalDebitAmount": debit}
        return Response(ENCODER.encode(found), content_type="application/json")

    return routes


def rows_of_bill(records: Records, bill_id: str) -> Sequence[Row]:
    if bill_id not in records.of("bill").by_id:
        raise NotFound(f"There is no bill {bill_id}.")
    return records.of("bill_line_item").found_by("billId", bill_id)


def list_answer(
    entity_list: EntityList, records: Records, clock: Clock, cursor: Cursor, parent_id: str | None = None
) -> Response:
    if entity_list.is_one_record:
        return one_record_answer(entity_list, records)
    asked = read_parameters(entity_list.parameters, PAGE_PARAMETERS)
    there = records.of(entity_list.entity)
    if entity_list.parent:
        there = rows_of_parent(entity_list, records, parent_id or "")
    rows = there.select(entity_list, asked, moment_text(clock()))
    return page_answer(rows, entity_list, asked, content(entity_list, records, asked), cursor)


def one_record_answer(entity_list: EntityList, records: Records) -> Response:
    read_parameters({})
    there = records.of(entity_list.entity).rows
    if not there:
        raise NotFound(f"There is no {entity_list.entity.replace('_', ' ')}.")
    return Response(there[0].content, content_type="application/json")


def rows_of_parent(entity_list: EntityList, records: Records, parent_id: str) -> Rows:
    """Those of a list with the parent's id in its path."""
    assert entity_list.parent
    parent, field = entity_list.parent
    if parent_id not in records.of(parent).by_id:
        raise NotFound(f"There is no {parent.replace('_', ' ')} {parent_id}.")
    return Rows(records.of(entity_list.entity).found_by(field, parent_id))


def record_answer(entity_list: EntityList, records: Records, id: str, parent_id: str | None = None) -> Response:
    asked = read_parameters(entity_list.record_parameters or {})
    there = rows_of_parent(entity_list, records, parent_id or "") if entity_list.parent else None
    row = (there or records.of(entity_list.entity)).by_id.get(id)
    if row is None:
        raise NotFound(f"There is no {entity_list.entity.replace('_', ' ')} {id}.")
    return Response(content(entity_list, records, asked)(row), content_type="application/json")


def content(entity_list: EntityList, records: Records, asked: Asked) -> Callable[[Row], bytes]:
    """How a record looks in the answer."""
    if entity_list.path != "/bills":
        return lambda row: row.content
    line_items = records.of("bill_line_item")
    return lambda row: bill_content(row, asked, line_items)


def read_parameters(known: Mapping[str, Parameter], besides: Sequence[str] = ()) -> Asked:
    """What the request asks with; a parameter that its path does not have is refused, not ignored."""
    given = {name: texts for name, texts in request.args.lists() if name not in besides}
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        allowed = ", ".join(sorted([*known, *besides])) or "none"
        raise InvalidParameter(f"{request.path} has no parameter {unknown[0]!r}; it has {allowed}.")
    return {name: known[name].read(name, texts) for name, texts in given.items()}


def page_answer(
    rows: Sequence[Row], entity_list: EntityList, asked: Asked, content: Callable[[Row], bytes], cursor: Cursor = OFFSET
) -> Response:
    size = page_size(request.args.get("pageSize"), maximum=entity_list.maximum_page_size)
    question = f"{request.path} {sorted((name, _sortable(value)) for name, value in asked.items())}"
    token = request.args.get("nextToken")
    first = cursor.start(rows, place_of(token, question)) if token else 0
    rest = first + size
    further = token_for(cursor.place(rows, rest), question) if rest < len(rows) else None
    return Response(page(map(content, rows[first:rest]), further), content_type="application/json")


def _sortable(value: object) -> str:
    return str(sorted(value)) if isinstance(value, frozenset) else str(value)
