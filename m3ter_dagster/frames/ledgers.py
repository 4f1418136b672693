"""Compares the transactions of balances with m3ter's own summaries of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import polars as pl

from m3ter_dagster.frames.references import SHOWN_ROWS, ExportedRows
from m3ter_dagster.frames.times import written_since

RULE = (
    "The transactions of a balance add up to what m3ter's summary of it says: totalCreditAmount less totalDebitAmount, "
    "to the last digit. m3ter is asked for the summary of each balance; what happened in between can make a difference."
)
_BALANCE = "balanceId"


@dataclass(frozen=True)
class Summary:
    """What m3ter says that the transactions of a balance add up to."""

    credit: Decimal
    debit: Decimal
    """Above or below zero: m3ter does not document which."""

    @property
    def sum(self) -> Decimal:
        return self.credit - abs(self.debit)


@dataclass(frozen=True)
class Ledgers:
    compared: int
    wrong: int
    recent: int
    """The number of those that differ and have transactions that were written after their reading started."""
    examples: Sequence[dict[str, str]]
    """The first wrong balances."""


def compare_ledgers(transactions: ExportedRows, summaries: Mapping[str, Summary]) -> Ledgers:
    """`summaries` are by the balance's id. Amounts are added up as the decimals that the file has."""
    recent = written_since(transactions.read_from).any()
    rows = transactions.frame.group_by(_BALANCE).agg(pl.col("amount").drop_nulls(), recent.alias("recent"))
    found = rows.collect(engine="streaming").sort(_BALANCE).iter_rows()
    sums = {balance: (sum((Decimal(repr(one)) for one in amounts), Decimal()), new) for balance, amounts, new in found}
    wrong, moving = list[dict[str, str]](), 0
    for balance, summary in sorted(summaries.items()):
        added, is_recent = sums.get(balance, (Decimal(), False))
        if added == summary.sum:
            continue
        moving += is_recent
        if not is_recent:
            amounts = {
                "sum of transactions": added,
                "totalCreditAmount": summary.credit,
                "totalDebitAmount": summary.debit,
                "difference": added - summary.sum,
            }
            wrong.append({"balance id": balance, **{name: f"{amount:f}" for name, amount in amounts.items()}})
    return Ledgers(len(summaries), len(wrong), moving, wrong[:SHOWN_ROWS])
