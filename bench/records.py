"""Records of the benchmark's organizations, with the fields and sizes that m3ter documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from random import Random

from m3ter_sandbox.values import Record, Seed, audit, date, date_time, month

ODD: Sequence[tuple[str, Decimal]] = (("sequenceNumber", Decimal("10.0")), ("quantity", Decimal("-0")))
"""Values that JSON allows and that few programs write: an integer with a fraction of nothing, and minus zero."""
REGIONS = ("eu-west-1", "eu-central-1", "us-east-1", "us-west-2", "ap-south-1")
UNITS = ("GBy", "requests", "seats", "hours")


def line_item(random: Random, seed: Seed, ids: Mapping[str, Sequence[str]]) -> tuple[Record, int]:
    """A line item of 1.7 kB, apart from its own id and that of its bill, and its amount in cents."""
    quantity, cents = random.random() * 5000, int(random.random() * 50_000)
    start = month(int(random.random() * 18))
    record = {
        "id": None,
        "productId": random.choice(ids["product"]),
        "productName": f"Product {int(random.random() * 40)}",
        "productCode": f"product_{int(random.random() * 40)}",
        "accountingProductId": random.choice(ids["product"]),
        "accountingProductName": "Platform fees",
        "accountingProductCode": "platform_fees",
        "aggregationId": random.choice(ids["aggregation"]),
        "compoundAggregationId": None,
        "counterId": None,
        "segment": {"region": random.choice(REGIONS)},
        "group": {},
        "meterId": random.choice(ids["meter"]),
        "planId": random.choice(ids["plan"]),
        "planGroupId": random.choice(ids["plan_group"]) if random.random() < 0.3 else None,
        "commitmentId": random.choice(ids["commitment"]) if random.random() < 0.1 else None,
        "balanceId": random.choice(ids["balance"]) if random.random() < 0.1 else None,
        "billId": None,
        "description": f"Usage of product {int(random.random() * 40)}, region {random.choice(REGIONS)}",
        "quantity": quantity,
        "units": quantity,
        "unit": random.choice(UNITS),
        "subtotal": cents / 100,
        "currency": "USD",
        "conversionRate": 1.0,
        "convertedSubtotal": cents / 100,
        "creditTypeId": None,
        "lineItemType": "USAGE" if random.random() < 0.8 else "STANDING_CHARGE",
        "pricingId": random.choice(ids["pricing"]),
        "bandUsage": [_band_usage(random, seed, quantity, cents)],
        "servicePeriodStartDate": date_time(start),
        "servicePeriodEndDate": date_time(start + timedelta(days=30)),
        "referencedBillId": None,
        "referencedLineItemId": None,
        "reasonId": None,
        "contractId": random.choice(ids["contract"]),
        "averageUnitPrice": cents / 100 / quantity,
        "sequenceNumber": 1 + int(random.random() * 30),
        "jsonUsageGenerated": True,
        **audit(random, seed, start + timedelta(days=31, seconds=int(random.random() * 86_400))),
    }
    return record, cents


def _band_usage(random: Random, seed: Seed, quantity: float, cents: int) -> Record:
    return {
        "pricingBandId": seed.id("pricing band", int(random.random() * 500)),
        "lowerLimit": 0.0,
        "fixedPrice": 0.0,
        "unitPrice": cents / 100 / quantity,
        "unitSubtotal": cents / 100,
        "bandQuantity": quantity,
        "bandUnits": quantity,
        "bandSubtotal": cents / 100,
        "convertedBandSubtotal": cents / 100,
    }


def bill(random: Random, seed: Seed) -> Record:
    """A bill, apart from its own id, that of its account, and its total."""
    start = month(int(random.random() * 18))
    created = start + timedelta(days=31)
    return {
        "id": None,
        "accountId": None,
        "accountCode": f"account_{int(random.random() * 5000)}",
        "startDate": date(start),
        "endDate": date(created),
        "startDateTimeUTC": date_time(start),
        "endDateTimeUTC": date_time(created),
        "billDate": date(created),
        "dueDate": date(created + timedelta(days=30)),
        "billingFrequency": "MONTHLY",
        "billFrequencyInterval": 1,
        "timezone": "UTC",
        "currency": "USD",
        "locked": random.random() < 0.7,
        "createdDate": date_time(created),
        "status": "APPROVED",
        "lastCalculatedDate": date_time(created + timedelta(hours=1)),
        "purchaseOrderNumber": f"PO {int(random.random() * 1e6)}",
        "externalInvoiceReference": None,
        "currencyConversions": [{"from": "EUR", "to": "USD", "multiplier": 1.0825}],
        **audit(random, seed, created),
    }
