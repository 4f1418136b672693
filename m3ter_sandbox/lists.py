"""m3ter's lists as its API reference documents them: path, largest page, query parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from m3ter_sandbox.parameters import (
    InvalidParameter,
    Keys,
    Parameter,
    active_on,
    answer_fields,
    answer_option,
    at_least,
    before,
    boolean,
    exactly,
    holding,
    is_active,
    one_of,
)

Asked = Mapping[str, Any]
Selection = Callable[[Keys], bool]

LINE_ITEM_TYPES = (
    "STANDING_CHARGE",
    "USAGE",
    "COUNTER_RUNNING_TOTAL_CHARGE",
    "COUNTER_ADJUSTMENT_DEBIT",
    "COUNTER_ADJUSTMENT_CREDIT",
    "USAGE_CREDIT",
    "MINIMUM_SPEND",
    "MINIMUM_SPEND_REFUND",
    "CREDIT_DEDUCTION",
    "MANUAL_ADJUSTMENT",
    "CREDIT_MEMO",
    "DEBIT_MEMO",
    "COMMITMENT_CONSUMED",
    "COMMITMENT_FEE",
    "OVERAGE_SURCHARGE",
    "OVERAGE_USAGE",
    "BALANCE_CONSUMED",
    "BALANCE_FEE",
    "AD_HOC",
)


def _everything(_asked: Asked, _now: str) -> Selection | None:
    return None


def _active_account_plans(asked: Asked, now: str) -> Selection | None:
    """Only active ones, unless a date is asked for, or `includeall` beside a parameter that makes it operative."""
    if "product" in asked and "account" not in asked:
        raise InvalidParameter("product is only allowed together with account.")
    is_operative = not asked.keys().isdisjoint(("account", "plan", "contract"))
    if "date" in asked or (asked.get("includeall") and is_operative):
        return None
    return lambda keys: is_active(keys, now)


def _account_plan_of_contract() -> Parameter:
    """Account plan groups linked to the contract are not returned."""
    return Parameter(("contractId", "planId"), lambda keys, asked: keys["contractId"] == asked and bool(keys["planId"]))


def _bill_lock() -> Parameter:
    """True includes locked bills, as no parameter does; false excludes them."""
    return Parameter(("locked",), lambda keys, asked: asked or not keys["locked"], boolean)


@dataclass(frozen=True)
class EntityList:
    entity: str
    path: str
    parameters: Mapping[str, Parameter]
    maximum_page_size: int = 100
    restrict: Callable[[Asked, str], Selection | None] = _everything
    """What the list leaves out by itself, given the parameters and the time."""

    @cached_property
    def key_fields(self) -> tuple[str, ...]:
        return tuple(sorted({name for parameter in self.parameters.values() for name in parameter.fields}))


IDS = one_of("id")
CODES = one_of("code")
PRODUCT = exactly("productId")
PRODUCTS = one_of("productId")
ACCOUNT = exactly("accountId")
END_DATES = {"endDateStart": at_least("endDate"), "endDateEnd": before("endDate")}
LINE_ITEM_PARAMETERS = {"additional": answer_fields()}

LISTS = (
    EntityList("account", "/accounts", {"ids": IDS, "codes": CODES}),
    EntityList(
        "account_plan",
        "/accountplans",
        {
            "account": ACCOUNT,
            "plan": exactly("planId"),
            "product": PRODUCT,
            "contract": _account_plan_of_contract(),
            "date": active_on(),
            "includeall": answer_option(),
            "ids": IDS,
        },
        restrict=_active_account_plans,
    ),
    EntityList("aggregation", "/aggregations", {"productId": PRODUCTS, "ids": IDS, "codes": CODES}),
    EntityList(
        "balance",
        "/balances",
        {
            "accountId": ACCOUNT,
            **END_DATES,
            "contract": exactly("contractId"),
            "contractId": exactly("contractId"),
            "ids": IDS,
        },
    ),
    EntityList(
        "bill",
        "/bills",
        {
            "accountId": ACCOUNT,
            "locked": _bill_lock(),
            "excludeLineItems": answer_option(),
            "includeBillTotal": answer_option(),
            "status": exactly("status", "PENDING", "APPROVED"),
            "billDate": exactly("billDate"),
            "billDateStart": at_least("billDate"),
            "billDateEnd": before("billDate"),
            "externalInvoiceDateStart": at_least("externalInvoiceDate"),
            "externalInvoiceDateEnd": before("externalInvoiceDate"),
            "ids": IDS,
            "billJobId": exactly("billJobId"),
            "additional": answer_fields(),
            "billingFrequency": exactly("billingFrequency"),
        },
    ),
    EntityList(
        "bill_line_item",
        "/lineitems",
        {
            "billId": exactly("billId"),
            "commitmentId": exactly("commitmentId"),
            "lineItemType": exactly("lineItemType", *LINE_ITEM_TYPES),
            **LINE_ITEM_PARAMETERS,
        },
    ),
    EntityList(
        "commitment",
        "/commitments",
        {
            "accountId": ACCOUNT,
            "productId": holding("productIds"),
            "date": active_on(),
            **END_DATES,
            "contractId": exactly("contractId"),
            "ids": IDS,
        },
    ),
    EntityList("compound_aggregation", "/compoundaggregations", {"productId": PRODUCTS, "ids": IDS, "codes": CODES}),
    EntityList("contract", "/contracts", {"accountId": ACCOUNT, "ids": IDS, "codes": CODES}),
    EntityList("meter", "/meters", {"productId": PRODUCTS, "ids": IDS, "codes": CODES}),
    EntityList("plan", "/plans", {"productId": PRODUCT, "accountId": one_of("accountId"), "ids": IDS}),
    EntityList("plan_group", "/plangroups", {"accountId": one_of("accountId"), "ids": IDS}, maximum_page_size=200),
    EntityList(
        "plan_group_link",
        "/plangrouplinks",
        {"planGroup": exactly("planGroupId"), "plan": exactly("planId"), "ids": IDS},
    ),
    EntityList("plan_template", "/plantemplates", {"productId": PRODUCT, "ids": IDS}),
    EntityList(
        "pricing",
        "/pricings",
        {
            "planId": exactly("planId"),
            "planTemplateId": exactly("planTemplateId"),
            "aggregationId": exactly("aggregationId"),
            "date": active_on(),
            "ids": IDS,
        },
    ),
    EntityList("product", "/products", {"ids": IDS}, maximum_page_size=200),
)
