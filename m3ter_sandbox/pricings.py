"""The sample organization's prices, with their bands, and what a bill can charge by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m3ter_sandbox.catalog import AGGREGATIONS_PER_METER, METERS_PER_PRODUCT
from m3ter_sandbox.plans import PLANS_PER_TEMPLATE, STANDARD_PLANS, TEMPLATES, TEMPLATES_PER_PRODUCT
from m3ter_sandbox.values import Record, Seed, audit, configured, date_time, month, some, text

PRICINGS_PER_TEMPLATE = 2
TEMPLATE_PRICINGS = TEMPLATES * PRICINGS_PER_TEMPLATE
PRICINGS = TEMPLATE_PRICINGS + STANDARD_PLANS
"""First those of the plan templates, then one of each standard plan."""
BAND_WIDTH = 1000
UNIT_PRICES = (0.1, 1e-7, 2, 0.0375, 12.5)


@dataclass(frozen=True)
class Offer:
    """What a usage line item says because of its pricing, and the bands it is charged by."""

    fields: Record
    bands: Sequence[Record]


def plan_of(number: int) -> int:
    """The plan that the pricing is for, or a plan of the template that it is for."""
    if number < TEMPLATE_PRICINGS:
        return number // PRICINGS_PER_TEMPLATE * PLANS_PER_TEMPLATE
    return number - TEMPLATE_PRICINGS


def product_of(number: int) -> int:
    return plan_of(number) // PLANS_PER_TEMPLATE // TEMPLATES_PER_PRODUCT


def aggregation_of(number: int) -> int:
    """An aggregation of a meter of the pricing's product."""
    aggregations_per_product = METERS_PER_PRODUCT * AGGREGATIONS_PER_METER
    return product_of(number) * aggregations_per_product + number % aggregations_per_product


def is_compound(number: int) -> bool:
    return number % 5 == 4


def pricing(seed: Seed, number: int) -> Record:
    random = seed.random("pricing", number)
    segment = {"segment": {"region": "EU"}, "segmentString": '{"region":"EU"}'}
    return {
        "id": seed.id("pricing", number),
        "code": f"pricing_{number}",
        **some(random, description=text(random)),
        **_parent(seed, number),
        **_measured(seed, number),
        "startDate": date_time(month(0)),
        **some(random, endDate=date_time(month(60))),
        **some(random, minimumSpend=0.1, minimumSpendDescription=text(random), minimumSpendBillInAdvance=False),
        "cumulative": number % 2 == 0,
        "type": ("DEBIT", "PRODUCT_CREDIT", "GLOBAL_CREDIT")[number % 3],
        **(segment if aggregation_of(number) % 3 == 0 and not is_compound(number) else {}),
        "tiersSpanPlan": number % 4 == 0,
        **some(random, accountingProductId=seed.id("product", 0)),
        "pricingBands": [band(seed, "band", number, index) for index in range(1 + number % 3)],
        "overagePricingBands": [band(seed, "overage band", number, index) for index in range(number % 2)],
        **audit(random, seed, configured(random)),
    }


def _parent(seed: Seed, number: int) -> Record:
    if number < TEMPLATE_PRICINGS:
        return {"planTemplateId": seed.id("plan template", number // PRICINGS_PER_TEMPLATE)}
    return {"planId": seed.id("plan", plan_of(number))}


def _measured(seed: Seed, number: int) -> Record:
    if is_compound(number):
        compound = seed.id("compound aggregation", product_of(number))
        return {"aggregationType": "COMPOUND", "compoundAggregationId": compound}
    return {"aggregationType": "SIMPLE", "aggregationId": seed.id("aggregation", aggregation_of(number))}


def band(seed: Seed, kind: str, number: int, index: int) -> Record:
    unit_price = UNIT_PRICES[(number + index) % len(UNIT_PRICES)]
    return {
        "id": seed.id(kind, number, index),
        "lowerLimit": index * BAND_WIDTH,
        "fixedPrice": (0, 9.99)[index % 2],
        "unitPrice": unit_price,
        **({"creditTypeId": None} if number % 7 == 0 else {}),
    }


def offer(seed: Seed, number: int, products: Sequence[Record], pricings: Sequence[Record]) -> Offer:
    product, priced = products[product_of(number)], pricings[number]
    by_meter = {"meterId": seed.id("meter", aggregation_of(number) // AGGREGATIONS_PER_METER)}
    names = ("aggregationId", "compoundAggregationId", "segment")
    fields = {
        "productId": product["id"],
        "productName": product["name"],
        "productCode": product["code"],
        "planId": seed.id("plan", plan_of(number)),
        "pricingId": priced["id"],
        **({} if is_compound(number) else by_meter),
        **{name: priced[name] for name in names if name in priced},
    }
    return Offer(fields, priced["pricingBands"])
