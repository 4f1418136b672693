"""What the sample organization's customers paid before: commitments and balances."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from m3ter_sandbox.accounts import CHILD_BILLING_MODES, contracts_of, currency_of
from m3ter_sandbox.plans import STANDARD_PLANS
from m3ter_sandbox.values import Record, Seed, audit, custom_fields, date, date_time, moment, month, some, text

LINE_ITEM_TYPES = ["STANDING_CHARGE", "USAGE", "MINIMUM_SPEND"]


def commitments_of(account: int) -> int:
    return (0, 1, 2, 1)[account % 4]


def balances_of(account: int) -> int:
    return (1, 0, 0)[account % 3]


def credit_records(seed: Seed, number: int) -> Iterator[tuple[str, Record]]:
    for index in range(commitments_of(number)):
        yield "commitment", commitment(seed, number, index)
    for index in range(balances_of(number)):
        yield "balance", balance(seed, number, index)


def commitment(seed: Seed, number: int, index: int) -> Record:
    random = seed.random("commitment", number, index)
    amount = round(random.random() * 1e5, 2)
    return {
        "id": seed.id("commitment", number, index),
        "accountId": seed.id("account", number),
        **some(random, billingPlanId=seed.id("plan", number % STANDARD_PLANS)),
        **some(random, productIds=[seed.id("product", 0), seed.id("product", 1)] if number % 2 else []),
        "startDate": date(month(index * 12)),
        "endDate": date(month(index * 12 + 12)),
        "currency": currency_of(number),
        "amount": amount,
        **some(random, amountPrePaid=0, amountFirstBill=round(amount / 3, 2)),
        "amountSpent": (amount / 7, 0, 0.1, 1e-7)[number % 4],
        **some(random, overageSurchargePercent=12.5, separateOverageUsage=number % 2 == 0),
        "billingInterval": 1,
        "billingOffset": number % 3,
        **some(random, commitmentFeeDescription=text(random), commitmentUsageDescription="", overageDescription="N/A"),
        **some(random, commitmentFeeBillInAdvance=True, billEpoch=date(month(0))),
        **some(random, contractId=seed.id("contract", number, index % contracts_of(number))),
        **some(random, accountingProductId=seed.id("product", 4), childBillingMode=CHILD_BILLING_MODES[number % 3]),
        **some(random, lineItemTypes=LINE_ITEM_TYPES[: 1 + number % 3]),
        **some(random, feesAccountingProductId=seed.id("product", 3), feeDates=_fee_dates()),
        **some(random, drawdownsAccountingProductId=seed.id("product", 2)),
        **audit(random, seed, moment(random, month(0), 28)),
    }


def _fee_dates() -> list[Record]:
    period = {"servicePeriodStartDate": date_time(month(0)), "servicePeriodEndDate": date_time(month(6))}
    return [{"date": date(month(3)), "amount": Decimal("333.33333333333333333333"), **period}]


def balance(seed: Seed, number: int, index: int) -> Record:
    random = seed.random("balance", number, index)
    rollover = {"rolloverAmount": round(random.random() * 100, 2), "rolloverEndDate": date_time(month(24))}
    return {
        "id": seed.id("balance", number, index),
        "name": text(random),
        "code": f"balance_{number}_{index}",
        **some(random, description=f'"Credit"\n{text(random)}'),
        "accountId": seed.id("account", number),
        "amount": round(random.random() * 1e4, 2),
        "currency": currency_of(number),
        "startDate": date_time(month(0)),
        "endDate": date_time(month(18)),
        **some(random, **rollover),
        **some(random, balanceDrawDownDescription=text(random), overageDescription=""),
        **some(random, overageSurchargePercent=0.1),
        **some(random, productIds=[seed.id("product", number % 5)], lineItemTypes=[*LINE_ITEM_TYPES, "AD_HOC"]),
        **some(random, contractId=seed.id("contract", number, 0), customFields=custom_fields(random)),
        **some(random, feesAccountingProductId=seed.id("product", 1), allowOverdraft=False),
        **some(random, consumptionsAccountingProductId=seed.id("product", 1)),
        **audit(random, seed, moment(random, month(0), 28)),
    }
