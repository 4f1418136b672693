"""The sample organization's bills, month by month, whose totals are the sums of their line items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from math import fsum
from random import Random

from m3ter_sandbox.accounts import currency_of
from m3ter_sandbox.line_items import BillHead, line_item
from m3ter_sandbox.pricings import Offer
from m3ter_sandbox.values import MONTHS, Record, Seed, audit, date, date_time, moment, month, some, users

FREQUENCIES = ("MONTHLY", "MONTHLY", "ANNUALLY", "DAILY", "WEEKLY", "AD_HOC", "MIXED")
CONVERSION_RATES = {"USD": 1, "EUR": 1.0825, "GBP": 1.27, "JPY": 0.0067}
"""To the organization's currency, US dollars."""


def bills_of(account: int) -> int:
    """Four to twelve, the last in the last month."""
    return 4 + account * 5 % 9


def billing_records(seed: Seed, number: int, offers: Sequence[Offer]) -> Iterator[tuple[str, Record]]:
    """The bills of one account, each followed by its line items."""
    random = seed.random("bills", number)
    count = bills_of(number)
    for index in range(count):
        yield from _bill_and_items(seed, random, number, MONTHS - count + index, offers)


def _bill_and_items(
    seed: Seed, random: Random, number: int, billed: int, offers: Sequence[Offer]
) -> Iterator[tuple[str, Record]]:
    start, end = month(billed), month(billed + 1)
    currency = currency_of(number)
    created = moment(random, end, 3)
    head = BillHead(number, billed, currency, CONVERSION_RATES[currency], date_time(start), date_time(end), created)
    items = [line_item(seed, random, head, index, offers) for index in range(3 + int(random.random() * 10))]
    total = round(fsum(item["convertedSubtotal"] for item in items), 2)
    yield "bill", {**_bill(seed, random, head, start, end), "billTotal": total, **audit(random, seed, created)}
    for item in items:
        yield "bill_line_item", item


def _bill(seed: Seed, random: Random, head: BillHead, start: datetime, end: datetime) -> Record:
    return {
        "id": seed.id("bill", head.account, head.month),
        "accountId": seed.id("account", head.account),
        "accountCode": f"account_{head.account}",
        "startDate": date(start),
        "endDate": date(end),
        "startDateTimeUTC": head.start,
        "endDateTimeUTC": head.end,
        "billDate": date(end),
        "dueDate": date(end + timedelta(days=30)),
        "billingFrequency": FREQUENCIES[head.account % len(FREQUENCIES)],
        "billFrequencyInterval": 1,
        "timezone": ("UTC", "Europe/Warsaw")[head.account % 2],
        "currency": head.currency,
        **_progress(seed, random, head),
        "createdDate": date_time(head.created),
        **some(random, lastCalculatedDate=date_time(head.created + timedelta(hours=1)), statementStale=False),
        **some(random, purchaseOrderNumber="" if head.account % 5 == 0 else f"PO, {head.account}"),
        **some(random, externalInvoiceReference=f'INV "{head.account}/{head.month}"', externalInvoiceDate=date(end)),
        **some(random, billJobId=seed.id("bill job", head.month), sequentialInvoiceNumber=f"{head.account:06}"),
        **some(random, jsonStatementGenerated=True, csvStatementGenerated=False),
        "currencyConversions": [{"from": head.currency, "to": "USD", "multiplier": head.conversion_rate}],
    }


def _progress(seed: Seed, random: Random, head: BillHead) -> Record:
    """The last month is pending; earlier ones are mostly approved, and most of those locked."""
    draw = random.random()
    if head.month == MONTHS - 1 or draw < 0.1:
        return {"status": "PENDING", "locked": False}
    by = users(seed)[0]
    approved = {"status": "APPROVED", "dtApproved": date_time(head.created + timedelta(days=2)), "approvedBy": by}
    if draw < 0.3:
        return {**approved, "locked": False}
    return {**approved, "locked": True, "dtLocked": date_time(head.created + timedelta(days=5)), "lockedBy": by}
