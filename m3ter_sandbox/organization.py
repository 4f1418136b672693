"""A sample organization of a chosen size: the same accounts and seed give the same records, byte for byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from m3ter_sandbox import catalog, plans
from m3ter_sandbox.accounts import account_records
from m3ter_sandbox.bills import billing_records
from m3ter_sandbox.credits import credit_records
from m3ter_sandbox.pricings import PRICINGS, offer, pricing
from m3ter_sandbox.values import Record, Seed


@dataclass(frozen=True)
class SampleOrganization:
    accounts: int = 60
    seed: int = 1

    def records(self) -> Iterator[tuple[str, Record]]:
        """All records, each with its entity's name; what a record refers to is among them."""
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
            ("meter", catalog.meter, catalog.METERS),
            ("aggregation", catalog.aggregation, catalog.AGGREGATIONS),
            ("compound_aggregation", catalog.compound_aggregation, catalog.COMPOUND_AGGREGATIONS),
            ("plan_template", plans.plan_template, plans.TEMPLATES),
            ("plan", plans.plan, self._plans),
            ("plan_group", plans.plan_group, self._plan_groups),
        ):
            yield from ((entity, make(seed, number)) for number in range(count))
        for group in range(self._plan_groups):
            for index in range(plans.links_of(group)):
                yield "plan_group_link", plans.plan_group_link(seed, group, index)

    @property
    def _plans(self) -> int:
        return plans.STANDARD_PLANS + len(range(0, self.accounts, plans.ACCOUNTS_PER_BESPOKE_PLAN))

    @property
    def _plan_groups(self) -> int:
        return plans.STANDARD_GROUPS + len(range(0, self.accounts, plans.ACCOUNTS_PER_CUSTOM_GROUP))
