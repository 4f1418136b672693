"""One line of a bill: usage by an offer's bands, or one of the other charges and credits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from m3ter_sandbox.accounts import contracts_of
from m3ter_sandbox.credits import balances_of, commitments_of
from m3ter_sandbox.plans import STANDARD_GROUPS
from m3ter_sandbox.pricings import BAND_WIDTH, Offer
from m3ter_sandbox.values import Record, Seed, audit, text

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
        billed = {"referencedBillId": seed.id("bill", head.account, head.month)}
        return {**billed, "referencedLineItemId": seed.id("line item", head.account, head.month, 0), "reasonId": None}
    if kind == "MINIMUM_SPEND":
        return {"planGroupId": seed.id("plan group", head.account % STANDARD_GROUPS)}
    if kind == "STANDING_CHARGE":
        return {"planId": seed.id("plan", head.account % 5), **_accounting_product(seed)}
    if kind == "AD_HOC":
        return {"chargeId": seed.id("charge", head.account, head.month), "creditTypeId": None}
    return {}


def _accounting_product(seed: Seed) -> Record:
    names = {"accountingProductName": 'Fees, "fixed"', "accountingProductCode": "product_0"}
    return {"accountingProductId": seed.id("product", 0), **names}
