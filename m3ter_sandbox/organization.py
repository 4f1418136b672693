"""A sample organization of a chosen size: the same accounts and seed give the same records, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from m3ter_dagster.model.entities import entities
from m3ter_sandbox import catalog
from m3ter_sandbox.accounts import account_records, credit_records
from m3ter_sandbox.bills import billing_records
from m3ter_sandbox.catalog import PRICINGS, offer, pricing
from m3ter_sandbox.generic_records import generic_records, generic_shapes, ids_of
from m3ter_sandbox.values import Record, Seed

SAMPLED = (
    *("account", "account_plan", "aggregation", "balance", "balance_transaction", "bill", "bill_line_item", "charge"),
    *("commitment", "compound_aggregation", "contract", "meter", "plan", "plan_group", "plan_group_link"),
    *("plan_template", "pricing", "product", "transaction_type"),
)
"""The entities that have a generator of their own."""


@dataclass(frozen=True)
class SampleOrganization:
    accounts: int = 60
    seed: int = 1

    def records(self) -> Iterator[tuple[str, Record]]:
        """All records, each with its entity's name; what a record refers to is among them.

        A list that has a descriptor and no generator here gets generic records.
        """
        known = entities()
        shapes = generic_shapes(known, SAMPLED)
        targets = [known[name] for name in sorted({name for shape in shapes for name in shape.targets})]
        ids: dict[str, list[str]] = {target.name: [] for target in targets}
        for name, record in self._sampled():
            yield name, record
            for target in targets:
                if name in known and known[name].listing.path == target.listing.path:
                    ids[target.name] += ids_of(target, record)
        yield from generic_records(Seed(self.seed), shapes, ids)

    def _sampled(self) -> Iterator[tuple[str, Record]]:
        seed = Seed(self.seed)
        products = [catalog.product(seed, number) for number in range(catalog.PRODUCTS)]
        pricings = [pricing(seed, number) for number in range(PRICINGS)]
        offers = [offer(seed, number, products, pricings) for number in range(PRICINGS)]
        yield from (("product", record) for record in products)
        yield from (("pricing", record) for record in pricings)
        yield from self._catalog(seed)
        for number in range(self.accounts):
            yield from account_records(seed, number)
            yield from credit_records(seed, number)
            yield from billing_records(seed, number, offers)

    def _catalog(self, seed: Seed) -> Iterator[tuple[str, Record]]:
        for entity, make, count in (
            ("transaction_type", catalog.transaction_type, len(catalog.TRANSACTION_TYPES)),
            ("meter", catalog.meter, catalog.METERS),
            ("aggregation", catalog.aggregation, catalog.AGGREGATIONS),
            ("compound_aggregation", catalog.compound_aggregation, catalog.COMPOUND_AGGREGATIONS),
            ("plan_template", catalog.plan_template, catalog.TEMPLATES),
            ("plan", catalog.plan, self._plans),
            ("plan_group", catalog.plan_group, self._plan_groups),
        ):
            yield from ((entity, make(seed, number)) for number in range(count))
        for group in range(self._plan_groups):
            for index in range(catalog.links_of(group)):
                yield "plan_group_link", catalog.plan_group_link(seed, group, index)

    @property
    def _plans(self) -> int:
        return catalog.STANDARD_PLANS + len(range(0, self.accounts, catalog.ACCOUNTS_PER_BESPOKE_PLAN))

    @property
    def _plan_groups(self) -> int:
        return catalog.STANDARD_GROUPS + len(range(0, self.accounts, catalog.ACCOUNTS_PER_CUSTOM_GROUP))
