"""The sample organization's plan templates, plans, plan groups and the links between them."""

from __future__ import annotations

from m3ter_sandbox.catalog import PRODUCTS
from m3ter_sandbox.values import Record, Seed, audit, configured, custom_fields, some, text

TEMPLATES_PER_PRODUCT = 3
TEMPLATES = PRODUCTS * TEMPLATES_PER_PRODUCT
PLANS_PER_TEMPLATE = 2
STANDARD_PLANS = TEMPLATES * PLANS_PER_TEMPLATE
STANDARD_GROUPS = 6
ACCOUNTS_PER_BESPOKE_PLAN = 10
ACCOUNTS_PER_CUSTOM_GROUP = 20


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
