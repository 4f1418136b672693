"""What the sample organization measures and sells: products, meters, aggregations, plans, prices and their bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from m3ter_sandbox.values import Record, Seed, audit, configured, custom_fields, date_time, month, some, text

PRODUCTS = 5
METERS_PER_PRODUCT = 2
AGGREGATIONS_PER_METER = 3
METERS = PRODUCTS * METERS_PER_PRODUCT
AGGREGATIONS = METERS * AGGREGATIONS_PER_METER
COMPOUND_AGGREGATIONS = PRODUCTS + 2
FUNCTIONS = ("SUM", "MAX", "COUNT", "LATEST", "MEAN", "UNIQUE", "CUSTOM_SQL", "MIN")
ROUNDINGS = ("UP", "DOWN", "NEAREST", "NONE")
TEMPLATES_PER_PRODUCT = 3
TEMPLATES = PRODUCTS * TEMPLATES_PER_PRODUCT
PLANS_PER_TEMPLATE = 2
STANDARD_PLANS = TEMPLATES * PLANS_PER_TEMPLATE
STANDARD_GROUPS = 6
ACCOUNTS_PER_BESPOKE_PLAN = 10
ACCOUNTS_PER_CUSTOM_GROUP = 20
PRICINGS_PER_TEMPLATE = 2
TEMPLATE_PRICINGS = TEMPLATES * PRICINGS_PER_TEMPLATE
PRICINGS = TEMPLATE_PRICINGS + STANDARD_PLANS
"""First those of the plan templates, then one of each standard plan."""
BAND_WIDTH = 1000
TRANSACTION_TYPES = ("Prepayment", "Refund", "Correction, manual", 'Promotion "spring"')
UNIT_PRICES = (0.1, 1e-7, 2, 0.0375, 12.5)


def product(seed: Seed, number: int) -> Record:
    random = seed.random("product", number)
    return {
        "id": seed.id("product", number),
        "name": f"{text(random)} {number}",
        "code": f"product_{number}",
        **some(random, customFields=custom_fields(random)),
        **audit(random, seed, configured(random)),
    }


def transaction_type(seed: Seed, number: int) -> Record:
    random = seed.random("transaction type", number)
    return {
        "id": seed.id("transaction type", number),
        "code": f"transaction_type_{number}",
        "name": TRANSACTION_TYPES[number],
        "archived": number == len(TRANSACTION_TYPES) - 1,
        **audit(random, seed, configured(random)),
    }


def meter(seed: Seed, number: int) -> Record:
    random = seed.random("meter", number)
    measure = {"category": "MEASURE", "code": "gb", "name": "Gigabytes, stored", "unit": "GBy"}
    where = {"category": "WHERE", "code": "region", "name": text(random)}
    derived = {"category": "MEASURE", "code": "tb", "name": "TB", "unit": "TBy", "calculation": 'gb / 1000 || "0"'}
    return {
        "id": seed.id("meter", number),
        "name": text(random),
        "code": f"meter_{number}",
        "productId": seed.id("product", number // METERS_PER_PRODUCT),
        "dataFields": [measure, where],
        "derivedFields": [derived] if number % 2 else [],
        **some(random, groupId=seed.id("meter group", 0)),
        **some(random, customFields=custom_fields(random)),
        **audit(random, seed, configured(random)),
    }


def aggregation(seed: Seed, number: int) -> Record:
    random = seed.random("aggregation", number)
    function = FUNCTIONS[number % len(FUNCTIONS)]
    segmented = {"segmentedFields": ["region"], "segments": [{"region": "EU"}, {"region": "*"}]}
    return {
        "id": seed.id("aggregation", number),
        "name": text(random),
        "code": f"aggregation_{number}",
        "rounding": ROUNDINGS[number % len(ROUNDINGS)],
        "quantityPerUnit": (1, 0.5, 1000, 2.5)[number % 4],
        "unit": "GBy" if number % 5 else "",
        "meterId": seed.id("meter", number // AGGREGATIONS_PER_METER),
        "targetField": "gb",
        "aggregation": function,
        **({"customSql": "SELECT SUM(gb)\nFROM usage"} if function == "CUSTOM_SQL" else {}),
        **(segmented if number % 3 == 0 else {}),
        **some(random, defaultValue=(0, 0.1, 1e-7)[number % 3]),
        **some(random, accountingProductId=seed.id("product", 0), customFields=custom_fields(random)),
        **audit(random, seed, configured(random)),
    }


def compound_aggregation(seed: Seed, number: int) -> Record:
    """The first ones belong to a product, the others are global."""
    random = seed.random("compound aggregation", number)
    return {
        "id": seed.id("compound aggregation", number),
        "name": text(random),
        "code": f"compound_{number}",
        "rounding": ROUNDINGS[number % len(ROUNDINGS)],
        "quantityPerUnit": (1, 0.25)[number % 2],
        "unit": "requests",
        **({"productId": seed.id("product", number)} if number < PRODUCTS else {}),
        "calculation": 'aggregation.gb * 2 +\n  IF(x > 0, "y", 1)',
        "evaluateNullAggregations": number % 2 == 0,
        "segments": [{"region": "EU"}],
        **some(random, accountingProductId=seed.id("product", 0)),
        **some(random, customFields=custom_fields(random)),
        **audit(random, seed, configured(random)),
    }


def plan_template(seed: Seed, number: int) -> Record:
    random = seed.random("plan template", number)
    return {
        "id": seed.id("plan template", number),
        "name": text(random),
        "code": f"template_{number}",
        "productId": seed.id("product", number // TEMPLATES_PER_PRODUCT),
        "currency": ("USD", "EUR", "GBP")[number % 3],
        "standingCharge": (0, 99.99, 1250.5)[number % 3],
        **some(random, standingChargeDescription=text(random)),
        "standingChargeInterval": 1,
        "standingChargeOffset": number % 2,
        "standingChargeBillInAdvance": number % 2 == 0,
        "billFrequency": ("MONTHLY", "ANNUALLY", "DAILY", "WEEKLY")[number % 4],
        "billFrequencyInterval": 1 + number % 3,
        "ordinal": number,
        **some(random, minimumSpend=0.1, minimumSpendDescription="", minimumSpendBillInAdvance=False),
        **some(random, customFields=custom_fields(random)),
        **audit(random, seed, configured(random)),
    }


def plan(seed: Seed, number: int) -> Record:
    """A plan of a template; those after the standard ones are bespoke, each for one account."""
    random = seed.random("plan", number)
    template = template_of(number)
    bespoke = number - STANDARD_PLANS
    return {
        "id": seed.id("plan", number),
        "name": text(random),
        "code": f"plan_{number}",
        "planTemplateId": seed.id("plan template", template),
        "productId": seed.id("product", template // TEMPLATES_PER_PRODUCT),
        "ordinal": number,
        "bespoke": bespoke >= 0,
        **({"accountId": seed.id("account", bespoke * ACCOUNTS_PER_BESPOKE_PLAN)} if bespoke >= 0 else {}),
        **some(random, minimumSpend=round(random.random() * 500, 2), minimumSpendDescription=text(random)),
        **some(random, standingCharge=49, standingChargeDescription="Platform fee", standingChargeBillInAdvance=True),
        **some(random, minimumSpendBillInAdvance=False, minimumSpendAccountingProductId=seed.id("product", 1)),
        **some(random, standingChargeAccountingProductId=seed.id("product", 2)),
        **some(random, customFields=custom_fields(random)),
        **audit(random, seed, configured(random)),
    }


def template_of(plan_number: int) -> int:
    return plan_number // PLANS_PER_TEMPLATE % TEMPLATES


def plan_group(seed: Seed, number: int) -> Record:
    """Those after the standard ones are custom, each for one account."""
    random = seed.random("plan group", number)
    custom = number - STANDARD_GROUPS
    return {
        "id": seed.id("plan group", number),
        "name": text(random),
        "code": f"group_{number}",
        "currency": "USD",
        **({"accountId": seed.id("account", custom * ACCOUNTS_PER_CUSTOM_GROUP)} if custom >= 0 else {}),
        **some(random, standingCharge=1e-7, standingChargeDescription=text(random), standingChargeBillInAdvance=True),
        **some(random, standingChargeAccountingProductId=seed.id("product", 2)),
        **some(random, minimumSpend=1000, minimumSpendDescription=text(random), minimumSpendBillInAdvance=False),
        **some(random, minimumSpendAccountingProductId=seed.id("product", 3)),
        **some(random, customFields=custom_fields(random)),
        **audit(random, seed, configured(random)),
    }


def plan_group_link(seed: Seed, group: int, number: int) -> Record:
    random = seed.random("plan group link", group, number)
    return {
        "id": seed.id("plan group link", group, number),
        "planGroupId": seed.id("plan group", group),
        "planId": seed.id("plan", (group + number * 7) % STANDARD_PLANS),
        **audit(random, seed, configured(random)),
    }


def links_of(group: int) -> int:
    return group % 3 + 1


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
