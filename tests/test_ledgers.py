"""The arithmetic of the check of balances: exact decimals."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import polars as pl
import pytest

from m3ter_dagster.frames.ledgers import Ledgers, Summary, compare_ledgers
from m3ter_dagster.frames.references import ExportedRows

STARTED = datetime(2025, 1, 27, 10, tzinfo=UTC)
BEFORE, AFTER = "2025-01-27T09:00:00.000Z", "2025-01-27T10:00:00.000Z"


def compared(summary: Summary, *amounts: float | None, time: str = BEFORE) -> Ledgers:
    schema = {"balanceId": pl.String, "amount": pl.Float64, "dtCreated": pl.String, "dtLastModified": pl.String}
    rows = [("b", amount, time, None) for amount in amounts]
    return compare_ledgers(ExportedRows(pl.LazyFrame(rows, schema=schema, orient="row"), STARTED), {"b": summary})


@pytest.mark.parametrize("debit", ["0.3", "-0.3"])
def test_credit_less_debit_is_the_sum_to_the_last_digit(debit: str) -> None:
    found = compared(Summary(Decimal("1000000000000.1"), Decimal(debit)), 1000000000000.1, -0.1, -0.2, None)
    assert (found.compared, found.wrong) == (1, 0)
    found = compared(Summary(Decimal("1000000000000.1000001"), Decimal(debit)), 1000000000000.1, -0.1, -0.2)
    assert (found.wrong, found.examples[0]["difference"]) == (1, "-0.0000001")


def test_a_balance_without_transactions_has_the_sum_zero() -> None:
    assert compared(Summary(Decimal(), Decimal())).wrong == 0
    assert compared(Summary(Decimal("0.01"), Decimal())).wrong == 1


def test_a_balance_with_transactions_that_were_written_meanwhile_is_not_judged() -> None:
    found = compared(Summary(Decimal(5), Decimal()), 7.0, time=AFTER)
    assert (found.compared, found.wrong, found.recent) == (1, 0, 1)
