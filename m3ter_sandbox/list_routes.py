"""The organization's lists as routes: GET /organizations/{orgId}/accounts and its sisters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from m3ter_sandbox.access import Clock
from m3ter_sandbox.bill_answers import bill_content
from m3ter_sandbox.lists import LINE_ITEM_PARAMETERS, LISTS, Asked, EntityList
from m3ter_sandbox.pages import offset_of, page, page_size, token_for
from m3ter_sandbox.parameters import InvalidParameter
from m3ter_sandbox.store import Row, Rows, moment_text

PAGE_PARAMETERS = ("pageSize", "nextToken")
LINE_ITEMS_OF_A_BILL = EntityList("bill_line_item", "/bills/<bill_id>/lineitems", LINE_ITEM_PARAMETERS)


def list_routes(stored: Mapping[str, Rows], clock: Clock) -> Blueprint:
    routes = Blueprint("lists", __name__)
    for entity_list in LISTS:
        view = partial(list_answer, entity_list, stored, clock)
        routes.add_url_rule(entity_list.path, entity_list.entity, view, methods=["GET"])

    @routes.get(LINE_ITEMS_OF_A_BILL.path)
    def line_items_of_a_bill(bill_id: str) -> Response:
        asked = read_parameters(LINE_ITEMS_OF_A_BILL)
        if not stored["bill"].found_by("id", bill_id):
            raise NotFound(f"There is no bill {bill_id}.")
        rows = stored["bill_line_item"].found_by("billId", bill_id)
        return page_answer(rows, LINE_ITEMS_OF_A_BILL, asked, lambda row: row.content)

    return routes


def list_answer(entity_list: EntityList, stored: Mapping[str, Rows], clock: Clock) -> Response:
    asked = read_parameters(entity_list)
    rows = stored[entity_list.entity].select(entity_list, asked, moment_text(clock()))
    if entity_list.entity == "bill":
        return page_answer(rows, entity_list, asked, lambda row: bill_content(row, asked, stored["bill_line_item"]))
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
