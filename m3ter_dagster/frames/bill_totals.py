"""Compares the totals of bills with the sums of their line items. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from m3ter_dagster.frames.references import SHOWN_ROWS, ExportedRows
from m3ter_dagster.frames.times import TIMES, written_since
from m3ter_dagster.frames.uniqueness import buckets

AMOUNTS = ("billTotal", "currency", "lastCalculatedDate", "subtotal", "convertedSubtotal")
"""The columns of bills and line items that are compared, apart from keys and times."""

LINE_ITEMS_AT_ONCE = 1_000_000
WITHOUT_MINOR_UNIT = (
    *("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF"),
    "XPF",
)
"""Currencies without decimal places (ISO 4217). Every other one is taken to have two."""
LEAST_TOLERANCE = 0.01
RULE = (
    "The total of a bill is the sum of its line items' convertedSubtotal (of subtotal where nothing was converted), "
    "give or take half a minor unit of the bill's currency for each line item, and at least 0.01 in all."
)

_FLOAT_DUST = 1e-6
_COLUMNS = ("bill id", "billTotal", "sum of line items", "line items", "difference")


@dataclass(frozen=True)
class BillTotals:
    compared: int
    without_total: int
    """The number of bills for which m3ter gives no total."""
    wrong: int
    recent: int
    """The number of wrong bills that were written, or whose line items were, after the reading of either started."""
    examples: Sequence[dict[str, object]]
    """The first wrong bills."""


def compare_totals(bills: ExportedRows, line_items: ExportedRows, *, at_once: int = LINE_ITEMS_AT_ONCE) -> BillTotals:
    """`at_once`: about how many line items are added up at a time."""
    counts = bills.frame.select(compared=pl.col("billTotal").count(), without_total=pl.col("billTotal").null_count())
    counted, differing = counts.collect(engine="streaming"), _differing(bills.frame, line_items.frame, at_once)
    recent = _recent(differing, bills, line_items) if len(differing) else differing
    wrong = differing.join(recent, on="bill id", how="anti") if len(differing) else differing
    return BillTotals(
        **counted.row(0, named=True),
        wrong=len(wrong),
        recent=len(differing) - len(wrong),
        examples=wrong.sort("bill id").head(SHOWN_ROWS).to_dicts(),
    )


def wrong_bills(bills: pl.LazyFrame, line_items: pl.LazyFrame) -> pl.LazyFrame:
    """The ids of the bills that do not have the sum of their line items as total."""
    return _differing(bills, line_items, LINE_ITEMS_AT_ONCE).lazy().select(pl.col("bill id").alias("id"))


def _differing(bills: pl.LazyFrame, line_items: pl.LazyFrame, at_once: int) -> pl.DataFrame:
    """The bills that differ; some bills at a time, so that memory does not grow with their number."""
    bill, owner = pl.col("id").hash(), pl.col("billId").hash()
    rows = line_items.select(pl.len()).collect().item()
    found = [
        _differing_of(bills.filter(is_in(bill)), line_items.filter(is_in(owner))).collect(engine="streaming")
        for is_in in buckets(rows, hashes_at_once=at_once)
    ]
    return pl.concat(found)


def _differing_of(bills: pl.LazyFrame, line_items: pl.LazyFrame) -> pl.LazyFrame:
    amount = pl.coalesce("convertedSubtotal", "subtotal")
    sums = line_items.group_by("billId").agg(amount.sum().alias(_COLUMNS[2]), pl.len().alias(_COLUMNS[3]))
    totals = bills.select(pl.col("id").alias("bill id"), "billTotal", "currency").drop_nulls("billTotal")
    compared = totals.join(sums, left_on="bill id", right_on="billId", how="left").with_columns(
        pl.col(_COLUMNS[2], _COLUMNS[3]).fill_null(0)
    )
    difference = pl.col("billTotal") - pl.col(_COLUMNS[2])
    differs = difference.abs() > _tolerance() + _FLOAT_DUST
    return compared.filter(differs).with_columns(difference.round(6).alias("difference")).select(_COLUMNS)


def _tolerance() -> pl.Expr:
    half_a_unit = pl.when(pl.col("currency").is_in(WITHOUT_MINOR_UNIT)).then(0.5).otherwise(0.005)
    return pl.max_horizontal(half_a_unit * pl.col(_COLUMNS[3]), pl.lit(LEAST_TOLERANCE))


def _recent(differing: pl.DataFrame, bills: ExportedRows, line_items: ExportedRows) -> pl.DataFrame:
    """The wrong bills that were written during the reading: m3ter replaces line items when it recalculates a bill."""
    moment = min(bills.read_from, line_items.read_from)
    bill = _among(differing, bills.frame, "id").filter(written_since(moment, (*TIMES, "lastCalculatedDate")))
    line = _among(differing, line_items.frame, "billId").filter(written_since(moment))
    ids = [bill.select(pl.col("id").alias("bill id")), line.select(pl.col("billId").alias("bill id"))]
    return pl.concat(ids).unique().collect(engine="streaming")


def _among(differing: pl.DataFrame, rows: pl.LazyFrame, column: str) -> pl.LazyFrame:
    return rows.join(differing.lazy().select("bill id"), left_on=column, right_on="bill id", how="semi")
