"""The lists of the descriptors, with the query parameters that m3ter's API reference documents for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from m3ter_dagster.model.entity import Entity

Keys = Mapping[str, Any]
"""The fields of a record that some parameter looks at."""


class InvalidParameter(ValueError):
    """A parameter, or a value, that m3ter refuses with status 400."""


@dataclass(frozen=True)
class Parameter:
    fields: tuple[str, ...] = ()
    selects: Callable[[Keys, Any], bool] | None = None
    """None: the parameter says how to answer, not which records."""
    parse: Callable[[str], Any] = str
    is_exact: bool = False
    """The value of the one field: found by an index, not by a scan."""
    is_list: bool = False
    """May be repeated, or hold several values with commas between."""

    def read(self, name: str, texts: list[str]) -> Any:
        if self.is_list:
            return frozenset(value for text in texts for value in text.split(","))
        if len(texts) > 1:
            raise InvalidParameter(f"{name} is given {len(texts)} times; it takes one value.")
        try:
            return self.parse(texts[0])
        except ValueError:
            raise InvalidParameter(f"{name} does not take the value {texts[0]!r}.") from None


def day(text: str) -> str:
    """The date of a date or date-time."""
    datetime.fromisoformat(text)
    return text[:10]


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def exactly(field: str, *values: str) -> Parameter:
    """The empty text finds the records without the field; `values`, if given, are all that is accepted."""

    def parse(text: str) -> str:
        if values and text not in values:
            raise ValueError(text)
        return text

    return Parameter((field,), lambda keys, asked: (keys[field] or "") == asked, parse, is_exact=True)


def one_of(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: keys[field] in asked, is_list=True)


def holding(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: asked in (keys[field] or ()))


def at_least(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: (keys[field] or "")[:10] >= asked, day)


def before(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: "" < (keys[field] or "")[:10] < asked, day)


def active_on() -> Parameter:
    return Parameter(("startDate", "endDate"), is_active, day)


def is_active(keys: Keys, at: str) -> bool:
    """Started and not ended at a date (`2025-01-31`) or a moment (`2025-01-31T10:00:00`)."""
    end = keys["endDate"]
    return (keys["startDate"] or "")[: len(at)] <= at and (not end or at < end[: len(at)])


def answer_option() -> Parameter:
    return Parameter(parse=boolean)


def answer_fields() -> Parameter:
    return Parameter(is_list=True)


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


def _archived() -> Parameter:
    """True includes archived ones, as no parameter does; false excludes them."""
    return Parameter(("archived",), lambda keys, asked: asked or not keys["archived"], boolean)


@dataclass(frozen=True)
class EntityList:
    entity: str
    path: str
    parameters: Mapping[str, Parameter]
    maximum_page_size: int = 100
    restrict: Callable[[Asked, str], Selection | None] = _everything
    """What the list leaves out by itself, given the parameters and the time."""
    record_parameters: Mapping[str, Parameter] | None = field(default_factory=dict)
    """Those of a single record, `{path}/{id}`; None: there is no such path."""
    parent: tuple[str, str] | None = None
    """Of a list with `{id}` in its path: whose id that is, and the field of the records that holds it."""
    hides_parent: bool = False
    """Whether answers lack that field."""
    is_one_record: bool = False
    """No list: the path has the one record itself."""

    @cached_property
    def key_fields(self) -> tuple[str, ...]:
        own = {name for parameter in self.parameters.values() for name in parameter.fields}
        return tuple(sorted(own | {self.parent[1]} if self.parent else own))


@dataclass(frozen=True)
class Documented:
    """What m3ter's API reference says of a list beyond what its descriptor does."""

    parameters: Mapping[str, Parameter]
    restrict: Callable[[Asked, str], Selection | None] = _everything
    record_parameters: Mapping[str, Parameter] | None = field(default_factory=dict)


IDS = one_of("id")
CODES = one_of("code")
PRODUCT = exactly("productId")
PRODUCTS = one_of("productId")
ACCOUNT = exactly("accountId")
END_DATES = {"endDateStart": at_least("endDate"), "endDateEnd": before("endDate")}
LINE_ITEM_PARAMETERS = {"additional": answer_fields()}

DOCUMENTED: Mapping[str, Documented] = {
    "/accounts": Documented({"ids": IDS, "codes": CODES}),
    "/accountplans": Documented(
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
    "/aggregations": Documented({"productId": PRODUCTS, "ids": IDS, "codes": CODES}),
    "/balances": Documented(
        {
            "accountId": ACCOUNT,
            **END_DATES,
            "contract": exactly("contractId"),
            "contractId": exactly("contractId"),
            "ids": IDS,
        },
    ),
    "/balances/{id}/transactions": Documented(
        {
            "transactionTypeId": exactly("transactionTypeId"),
            "entityType": exactly("entityType"),
            "entityId": exactly("entityId"),
        },
        record_parameters=None,
    ),
    "/bills": Documented(
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
        record_parameters={"additional": answer_fields()},
    ),
    "/lineitems": Documented(
        {
            "billId": exactly("billId"),
            "commitmentId": exactly("commitmentId"),
            "lineItemType": exactly("lineItemType", *LINE_ITEM_TYPES),
            **LINE_ITEM_PARAMETERS,
        },
        record_parameters=None,  # only below their bills
    ),
    "/charges": Documented(
        {
            "accountId": ACCOUNT,
            "entityType": exactly("entityType", "AD_HOC", "BALANCE"),
            "entityId": exactly("entityId"),
            "billDate": exactly("billDate"),
            "scheduleId": exactly("scheduleId"),
            "ids": IDS,
        },
    ),
    "/commitments": Documented(
        {
            "accountId": ACCOUNT,
            "productId": holding("productIds"),
            "date": active_on(),
            **END_DATES,
            "contractId": exactly("contractId"),
            "ids": IDS,
        },
    ),
    "/compoundaggregations": Documented({"productId": PRODUCTS, "ids": IDS, "codes": CODES}),
    "/contracts": Documented({"accountId": ACCOUNT, "ids": IDS, "codes": CODES}),
    "/meters": Documented({"productId": PRODUCTS, "ids": IDS, "codes": CODES}),
    "/picklists/transactiontypes": Documented({"ids": IDS, "codes": CODES, "archived": _archived()}),
    "/plans": Documented({"productId": PRODUCT, "accountId": one_of("accountId"), "ids": IDS}),
    "/plangroups": Documented({"accountId": one_of("accountId"), "ids": IDS}),
    "/plangrouplinks": Documented(
        {"planGroup": exactly("planGroupId"), "plan": exactly("planId"), "ids": IDS},
    ),
    "/plantemplates": Documented({"productId": PRODUCT, "ids": IDS}),
    "/pricings": Documented(
        {
            "planId": exactly("planId"),
            "planTemplateId": exactly("planTemplateId"),
            "aggregationId": exactly("aggregationId"),
            "date": active_on(),
            "ids": IDS,
        },
    ),
    "/products": Documented({"ids": IDS}),
}


def entity_lists(known: Iterable[Entity]) -> dict[str, EntityList]:
    """By the name of each entity; entities with one path share a list, called after one that is its records."""
    members: dict[str, list[Entity]] = defaultdict(list)
    for entity in sorted(known, key=lambda entity: (bool(entity.elements), entity.name)):
        members[entity.listing.path].append(entity)
    lists: dict[str, EntityList] = {}
    for path, sharing in members.items():
        documented = DOCUMENTED.get(path) or Documented(_parameters(sharing))
        largest = max(entity.listing.page_size for entity in sharing)
        listing = sharing[0].listing
        shared = EntityList(
            sharing[0].name,
            path,
            documented.parameters,
            largest,
            documented.restrict,
            None if listing.is_one_record else documented.record_parameters,
            _parent(sharing[0]),
            hides_parent=bool(listing.for_each and listing.for_each.field),
            is_one_record=listing.is_one_record,
        )
        lists |= {entity.name: shared for entity in sharing}
    return lists


def _parameters(sharing: Sequence[Entity]) -> dict[str, Parameter]:
    """Of a list that the table does not know: `ids`, and what its descriptors ask with."""
    parameters = {"ids": IDS}
    for entity in sharing:
        parameters |= {name: Parameter() for name, _ in entity.listing.parameters}
        if entity.listing.for_each and entity.listing.for_each.parameter:
            parameters[entity.listing.for_each.parameter] = exactly(parent_field(entity))
    return parameters


def _parent(entity: Entity) -> tuple[str, str] | None:
    for_each = entity.listing.for_each
    return (for_each.entity, parent_field(entity)) if for_each and not for_each.parameter else None


def parent_field(entity: Entity) -> str:
    """The field of a listed record that holds the id of the one that `forEach` lists it for."""
    for_each = entity.listing.for_each
    assert for_each
    if for_each.field:
        return for_each.field
    parameter = for_each.parameter or for_each.entity
    fields = {column.name: column.parent_field if entity.elements else column.api_field for column in entity.columns}
    named = [name for name in (parameter, f"{parameter}Id") if name in fields.values()]
    referring = [fields[key.column] for key in entity.foreign_keys if key.entity == for_each.entity]
    return next(name for name in (*named, *referring, parameter) if name)
