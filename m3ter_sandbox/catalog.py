"""What the sample organization measures and sells: products, meters, aggregations, compound aggregations."""

from __future__ import annotations

from m3ter_sandbox.values import Record, Seed, audit, configured, custom_fields, some, text

PRODUCTS = 5
METERS_PER_PRODUCT = 2
AGGREGATIONS_PER_METER = 3
METERS = PRODUCTS * METERS_PER_PRODUCT
AGGREGATIONS = METERS * AGGREGATIONS_PER_METER
COMPOUND_AGGREGATIONS = PRODUCTS + 2
FUNCTIONS = ("SUM", "MAX", "COUNT", "LATEST", "MEAN", "UNIQUE", "CUSTOM_SQL", "MIN")
ROUNDINGS = ("UP", "DOWN", "NEAREST", "NONE")


def product(seed: Seed, number: int) -> Record:
    random = seed.random("product", number)
    return {
        "id": seed.id("product", number),
        "name": f"{text(random)} {number}",
        "code": f"product_{number}",
        **some(random, customFields=custom_fields(random)),
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
