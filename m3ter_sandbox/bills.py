"""The sample organization's bills, month by month, with their line items, which add up to the total, and charges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from math import fsum
from random import Random

from m3ter_sandbox.accounts import balances_of, commitments_of, contracts_of, currency_of
from m3ter_sandbox.catalog import BAND_WIDTH, STANDARD_GROUPS, Offer
from m3ter_sandbox.generic_records import ROWS
from m3ter_sandbox.values import MONTHS, Record, Seed, audit, date, date_time, moment, month, some, text, users

USAGE_SHARE = 0.6
OTHER_TYPES = (
    "STANDING_CHARGE",
    "MINIMUM_SPEND",
    "OVERAGE_USAGE",
    "COMMITMENT_CONSUMED",
    "COMMITMENT_FEE",
    "BALANCE_CONSUMED",
    "COUNTER_RUNNING_TOTAL_CHARGE",
    "CREDIT_MEMO",
    "AD_HOC",
)
CREDITS = ("COMMITMENT_CONSUMED", "BALANCE_CONSUMED", "CREDIT_MEMO")
MARKET_RATE = Decimal("1.08251234567890123456")
"""Gives amounts with more digits than a float keeps."""
FREQUENCIES = ("MONTHLY", "MONTHLY", "ANNUALLY", "DAILY", "WEEKLY", "AD_HOC", "MIXED")
CONVERSION_RATES = {"USD": 1, "EUR": 1.0825, "GBP": 1.27, "JPY": 0.0067}
"""To the organization's currency, US dollars."""


@dataclass(frozen=True)
class BillHead:
    """What the line items of one bill have in common."""

    account: int
    month: int
    currency: str
    conversion_rate: float
    start: str
    end: str
    created: datetime


def line_item(seed: Seed, random: Random, head: BillHead, index: int, offers: Sequence[Offer]) -> Record:
    is_usage = index == 0 or random.random() < USAGE_SHARE  # the first line is what credit memos refer to
    charge = _usage(random, offers) if is_usage else _other(seed, random, head)
    converted = round(charge["subtotal"] * head.conversion_rate, 2)
    return {
        "id": seed.id("line item", head.account, head.month, index),
        "billId": seed.id("bill", head.account, head.month),
        **charge,
        "currency": head.currency,
        "conversionRate": head.conversion_rate,
        "convertedSubtotal": converted,
        "servicePeriodStartDate": head.start,
        "servicePeriodEndDate": head.end,
        **({"contractId": seed.id("contract", head.account, index % contracts_of(head.account))} if index % 2 else {}),
        "sequenceNumber": index + 1,
        "jsonUsageGenerated": is_usage,
        **audit(random, seed, head.created + timedelta(milliseconds=index)),
    }


def _usage(random: Random, offers: Sequence[Offer]) -> Record:
    offer = offers[int(random.random() * len(offers))]
    quantity = (int(random.random() * 5000), random.random() * 1e4, 0.1, 1e-7)[int(random.random() ** 3 * 4)]
    used = [band for band in offer.bands if band["lowerLimit"] <= quantity]
    bands = [_band_usage(band, min(quantity - band["lowerLimit"], BAND_WIDTH)) for band in used[:-1]]
    bands.append(_band_usage(used[-1], quantity - used[-1]["lowerLimit"]))
    subtotal = round(sum(band["bandSubtotal"] for band in bands), 2)
    return {
        **offer.fields,
        "lineItemType": "USAGE",
        "description": text(random),
        "quantity": quantity,
        "units": quantity,
        "unit": "GBy",
        "subtotal": subtotal,
        "averageUnitPrice": subtotal / quantity if quantity else None,
        "bandUsage": bands,
    }


def _band_usage(band: Record, in_band: float) -> Record:
    """The part of the quantity that is in this band, at its price."""
    unit_subtotal = band["unitPrice"] * in_band
    return {
        "pricingBandId": band["id"],
        "lowerLimit": band["lowerLimit"],
        "fixedPrice": band["fixedPrice"],
        "unitPrice": band["unitPrice"],
        "unitSubtotal": unit_subtotal,
        "bandQuantity": in_band,
        "bandUnits": in_band,
        "bandSubtotal": unit_subtotal + band["fixedPrice"],
        "convertedBandSubtotal": Decimal(unit_subtotal + band["fixedPrice"]) * MARKET_RATE,
    }


def _other(seed: Seed, random: Random, head: BillHead) -> Record:
    kind = OTHER_TYPES[int(random.random() * len(OTHER_TYPES))]
    amount = round(random.random() * 500, 2)
    return {
        "lineItemType": kind,
        "description": text(random),
        "subtotal": -amount if kind in CREDITS else amount,
        "quantity": 1,
        "units": None,
        "unit": "",
        **_reference(seed, kind, head),
    }


def _reference(seed: Seed, kind: str, head: BillHead) -> Record:
    """What the charge or credit is for, where the account has such a thing."""
    if kind.startswith("COMMITMENT") and commitments_of(head.account):
        return {"commitmentId": seed.id("commitment", head.account, 0)}
    if kind.startswith("BALANCE") and balances_of(head.account):
        return {"balanceId": seed.id("balance", head.account, 0)}
    if kind.startswith("COUNTER"):
        return {"counterId": seed.id("counter", head.account % 3), "group": {"tier": '"A"'}}
    if kind == "CREDIT_MEMO":
        return {
            "referencedBillId": seed.id("bill", head.account, head.month),
            "referencedLineItemId": seed.id("line item", head.account, head.month, 0),
            "reasonId": seed.id("credit_reason", head.account % ROWS) if head.month % 2 else None,
        }
    if kind == "MINIMUM_SPEND":
        return {"planGroupId": seed.id("plan group", head.account % STANDARD_GROUPS)}
    if kind == "STANDING_CHARGE":
        return {"planId": seed.id("plan", head.account % 5), **_accounting_product(seed)}
    if kind == "AD_HOC":
        credit_type = seed.id("currency", head.account % ROWS) if head.month % 2 else None
        return {"chargeId": seed.id("charge", head.account, head.month), "creditTypeId": credit_type}
    return {}


def _accounting_product(seed: Seed) -> Record:
    names = {"accountingProductName": 'Fees, "fixed"', "accountingProductCode": "product_0"}
    return {"accountingProductId": seed.id("product", 0), **names}


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
    if any("chargeId" in item for item in items):
        yield "charge", _charge(seed, head, start, end)


def _charge(seed: Seed, head: BillHead, start: datetime, end: datetime) -> Record:
    """What the bill charges ad hoc, or for a balance of the account: an amount, or units at a price."""
    random = seed.random("charge", head.account, head.month)
    is_of_balance = balances_of(head.account) > 0 and head.month % 2 == 0
    balance = {"entityType": "BALANCE", "entityId": seed.id("balance", head.account, 0), "lineItemType": "BALANCE_FEE"}
    units = {"amount": None, "units": 1 + int(random.random() * 9), "unitPrice": (0.1, 1e-7, 2.5)[head.month % 3]}
    return {
        "id": seed.id("charge", head.account, head.month),
        "name": text(random),
        "code": f"charge_{head.account}_{head.month}",
        "accountId": seed.id("account", head.account),
        "billDate": date(end),
        **(units if head.account % 2 else {"amount": round(random.random() * 500, 2)}),
        "currency": head.currency,
        **some(random, description=text(random), notes='Agreed by phone,\r\n"as before"'),
        **(balance if is_of_balance else {"entityType": "AD_HOC", "lineItemType": "AD_HOC"}),
        "billId": seed.id("bill", head.account, head.month),
        **some(random, accountingProductId=seed.id("product", 0)),
        "servicePeriodStartDate": date_time(start),
        "servicePeriodEndDate": date_time(end),
        **some(random, contractId=seed.id("contract", head.account, 0)),
        **({"scheduleId": seed.id("balance_charge_schedule", head.account % ROWS)} if is_of_balance else {}),
        **audit(random, seed, head.created - timedelta(days=9)),
    }


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
        **some(random, billJobId=seed.id("bill_job", head.month), sequentialInvoiceNumber=f"{head.account:06}"),
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
