"""The sample organization's customers: accounts with contracts, account plans, commitments and balances."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from m3ter_sandbox.catalog import (
    STANDARD_GROUPS,
    STANDARD_PLANS,
    TEMPLATES_PER_PRODUCT,
    TRANSACTION_TYPES,
    template_of,
)
from m3ter_sandbox.values import (
    MONTHS,
    Record,
    Seed,
    audit,
    custom_fields,
    date,
    date_time,
    moment,
    month,
    some,
    text,
    users,
)

CURRENCIES = ("USD", "EUR", "GBP", "JPY")
FAR_FUTURE = month(900)
CHILD_BILLING_MODES = ("PARENT_SUMMARY", "PARENT_BREAKDOWN", "CHILD")
FAMILY = 7
"""Every seventh account is the parent of the six after it, of most of them."""
TRANSACTIONS = 5
"""Of each balance: the first fills it, the others are drawn by the bills of the last four months, which all have."""
LINE_ITEM_TYPES = ["STANDING_CHARGE", "USAGE", "MINIMUM_SPEND"]


def currency_of(account: int) -> str:
    return CURRENCIES[account % len(CURRENCIES)]


def contracts_of(account: int) -> int:
    return 1 + account % 2


def account_plans_of(account: int) -> int:
    return 1 + account % 3


def account_records(seed: Seed, number: int) -> Iterator[tuple[str, Record]]:
    """An account with its contracts and account plans."""
    yield "account", account(seed, number)
    for index in range(contracts_of(number)):
        yield "contract", contract(seed, number, index)
    for index in range(account_plans_of(number)):
        yield "account_plan", account_plan(seed, number, index)


def account(seed: Seed, number: int) -> Record:
    random = seed.random("account", number)
    has_parent = number % FAMILY not in (0, 1)
    return {
        "id": seed.id("account", number),
        "name": f"{text(random)} #{number}",
        "code": f"account_{number}",
        **some(random, address=_address(random), emailAddress=f"billing+{number}@example.com"),
        "autoGenerateStatementMode": ("NONE", "JSON", "JSON_AND_CSV")[number % 3],
        **some(random, billEpoch=date(month(number % 12))),
        **some(random, creditApplicationOrder=["PREPAYMENT", "BALANCE"] if number % 2 else []),
        "currency": currency_of(number),
        **({"parentAccountId": seed.id("account", number - number % FAMILY)} if has_parent else {}),
        **some(random, purchaseOrderNumber="" if number % 5 == 0 else f"PO, {number}"),
        **some(random, statementDefinitionId=seed.id("statement_definition", 0)),
        **some(random, customFields=custom_fields(random) if number % 4 else {}),
        **some(random, daysBeforeBillDue=30),
        **audit(random, seed, _joined(seed, number)),
    }


def _joined(seed: Seed, number: int) -> datetime:
    return moment(seed.random("joined", number), month(0) - timedelta(days=60), 60)


def _address(random: Random) -> Record:
    lines = {"addressLine1": "1, High Street", "addressLine2": text(random), "addressLine3": None, "addressLine4": ""}
    return {**lines, "locality": "Łódź", "postCode": f"{int(random.random() * 1e5):05}", "country": "PL"}


def contract(seed: Seed, number: int, index: int) -> Record:
    random = seed.random("contract", number, index)
    filters = [{"dimensionCode": "region", "value": 'EU "west"', "mode": "INCLUDE"}]
    return {
        "id": seed.id("contract", number, index),
        "accountId": seed.id("account", number),
        "name": text(random),
        "code": f"contract_{number}_{index}",
        **some(random, description=f'Terms:\r\n1. {text(random)}\n2. "As is"'),
        **some(random, purchaseOrderNumber=f"00{number}"),
        "startDate": date(month(index * 12)),
        "endDate": date(month(index * 12 + 12)),
        **some(random, customFields=custom_fields(random)),
        **some(random, applyContractPeriodLimits=True, usageFilters=filters),
        **some(random, billGroupingKeyId=seed.id("bill grouping key", 0)),
        **audit(random, seed, _joined(seed, number)),
    }


def account_plan(seed: Seed, number: int, index: int) -> Record:
    """The first is active, the second has ended, the third is an account plan group."""
    random = seed.random("account plan", number, index)
    has_ended = index == 1
    ends = {"endDate": date_time(month(6))} if has_ended else {"endDate": date_time(FAR_FUTURE)}
    return {
        "id": seed.id("account plan", number, index),
        "code": f"account_plan_{number}_{index}",
        "accountId": seed.id("account", number),
        **_subscribed(seed, number, index),
        **some(random, contractId=seed.id("contract", number, 0), billEpoch=date(month(0))),
        "childBillingMode": CHILD_BILLING_MODES[number % 3],
        "startDate": date_time(month(0 if has_ended else 6)),
        **(ends if has_ended else some(random, **ends)),
        **some(random, customFields=custom_fields(random)),
        **audit(random, seed, moment(random, month(0), 150)),
    }


def _subscribed(seed: Seed, number: int, index: int) -> Record:
    if index == 2:
        return {"planGroupId": seed.id("plan group", number % STANDARD_GROUPS)}
    plan = (number + index) % STANDARD_PLANS
    product = template_of(plan) // TEMPLATES_PER_PRODUCT
    return {"planId": seed.id("plan", plan), "productId": seed.id("product", product)}


def commitments_of(account: int) -> int:
    return (0, 1, 2, 1)[account % 4]


def balances_of(account: int) -> int:
    return (1, 0, 0)[account % 3]


def credit_records(seed: Seed, number: int) -> Iterator[tuple[str, Record]]:
    for index in range(commitments_of(number)):
        yield "commitment", commitment(seed, number, index)
    for index in range(balances_of(number)):
        yield "balance", balance(seed, number, index)
        for transaction in range(TRANSACTIONS):
            yield "balance_transaction", balance_transaction(seed, number, index, transaction)


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


def balance_transaction(seed: Seed, number: int, balance: int, index: int) -> Record:
    """With the id of its balance, which m3ter's records do not have and the list leaves out."""
    random = seed.random("balance transaction", number, balance, index)
    billed = MONTHS - index
    bill = {"entityType": "BILL", "entityId": seed.id("bill", number, billed)}
    user = {"entityType": "USER", "entityId": users(seed)[number % 5]}
    made = month(0) if index == 0 else moment(random, month(billed + 1), 3)
    amount = round(random.random() * (500 if index else 1e4), 2)
    return {
        "id": seed.id("balance transaction", number, balance, index),
        "balanceId": seed.id("balance", number, balance),
        **some(random, description=f'{text(random)}, "drawn"'),
        "amount": -amount if index else amount,
        **some(random, paid=(0, 0.1, 1e-7)[number % 3], currencyPaid=currency_of(number + 1)),
        **(bill if index else user),
        "transactionTypeId": seed.id("transaction type", index % len(TRANSACTION_TYPES)),
        "appliedDate": date_time(made),
        **some(random, transactionDate=date_time(made)),
        **audit(random, seed, made),
    }
