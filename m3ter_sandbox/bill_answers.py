"""Bills as the API gives them: with the total only if asked for, and with their line items unless excluded."""

from __future__ import annotations

from typing import cast

from m3ter_sandbox.lists import Asked
from m3ter_sandbox.store import DECODER, ENCODER, Row, Rows
from m3ter_sandbox.values import Record

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
