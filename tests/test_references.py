"""References between rows, and bill totals: the arithmetic of the checks across entities."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory import PEAK

from m3ter_dagster.frames.bill_totals import AMOUNTS, BillTotals, compare_totals
from m3ter_dagster.frames.references import Dangling, ExportedRows, dangling
from m3ter_dagster.frames.times import TIMES, written_since
from m3ter_dagster.model.entities import entities, operational_entities

STARTED = datetime(2025, 1, 27, 10, 0, 0, 500_000, tzinfo=UTC)
BEFORE, AFTER = "2025-01-27T10:00:00.499Z", "2025-01-27T10:00:00.500Z"
TEXTS = dict.fromkeys(("id", "parentId", "dtCreated", "dtLastModified"), pl.String)

Child = tuple[str, str | None, str | None, str | None]


def found(children: list[Child], parents: list[str]) -> Dangling:
    frame = pl.LazyFrame(children, schema=TEXTS, orient="row")
    exported = ExportedRows(pl.LazyFrame({"id": parents}, schema={"id": pl.String}), STARTED)
    return dangling(frame, "parentId", exported, row_id="id", key="id")


CASES: list[tuple[list[Child], list[str], Dangling]] = [
    ([], [], Dangling(0, 0, 0, 0, [])),
    ([("1", None, None, None)], [], Dangling(0, 0, 0, 0, [])),
    ([("1", "a", None, None), ("2", "a", None, None)], ["a", "b"], Dangling(2, 0, 0, 0, [])),
    (
        [("3", "x", BEFORE, BEFORE), ("2", "x", None, None), ("1", "a", None, None), ("4", "y", "soon", "")],
        ["a"],
        Dangling(4, 3, 2, 0, [("2", "x"), ("3", "x"), ("4", "y")]),
    ),
    ([("1", "x", AFTER, None), ("2", "x", BEFORE, AFTER)], ["a"], Dangling(2, 0, 0, 2, [])),
    ([("1", "x", AFTER, None), ("2", "x", BEFORE, BEFORE)], [], Dangling(2, 1, 1, 1, [("2", "x")])),
]


@pytest.mark.parametrize(("children", "parents", "expected"), CASES)
def test_rows_that_refer_to_nothing_are_counted(children: list[Child], parents: list[str], expected: Dangling) -> None:
    assert [*vars(found(children, parents)).values()][:4] == [*vars(expected).values()][:4]
    assert list(found(children, parents).examples) == expected.examples


def test_only_the_first_ten_rows_are_named() -> None:
    result = found([(f"{number:03}", f"p{number}", None, None) for number in range(100)], [])
    assert (result.rows, result.parents) == (100, 100)
    assert [row for row, _ in result.examples] == [f"{number:03}" for number in range(10)]


KEYS = st.sampled_from("abcdef")
ROWS = st.lists(st.tuples(st.none() | KEYS, st.sampled_from([BEFORE, AFTER, None, "rubbish"])), max_size=30)


@given(ROWS, st.sets(KEYS))
def test_the_counts_are_those_of_plain_sets(rows: list[tuple[str | None, str | None]], parents: set[str]) -> None:
    children: list[Child] = [(f"{number:02}", key, time, None) for number, (key, time) in enumerate(rows)]
    lost = [child for child in children if child[1] is not None and child[1] not in parents]
    old = [child for child in lost if child[2] != AFTER]
    result = found(children, sorted(parents))
    assert result.references == sum(child[1] is not None for child in children)
    assert (result.rows, result.parents, result.recent) == (
        len(old),
        len({one[1] for one in old}),
        len(lost) - len(old),
    )
    assert list(result.examples) == [(row, key) for row, key, _, _ in old[:10]]


TIME_COLUMNS = dict.fromkeys(("dtCreated", "dtLastModified"), pl.String)
MOMENTS = [
    (AFTER, True),
    (BEFORE, False),
    ("2025-01-27T10:00:01Z", True),
    ("2025-01-27T10:00:01", True),
    ("2025-01-27T11:00:00+00:00", True),
    ("2025-01-27T11:00:00+02:00", False),
    ("2025-01-27T09:00:00-05:00", True),
    ("2025-01-27T10:00:00.500123456Z", True),
    ("2025-01-28", False),
    ("tomorrow", False),
    ("", False),
    (None, False),
]


@pytest.mark.parametrize(("text", "is_recent"), MOMENTS)
def test_a_time_is_read_leniently_and_what_is_no_time_is_not_recent(text: str | None, is_recent: bool) -> None:
    frame = pl.DataFrame({"dtCreated": [text], "dtLastModified": [None]}, schema=TIME_COLUMNS)
    assert frame.select(written_since(STARTED)).item() is is_recent


def test_every_foreign_key_of_the_document_is_a_reference() -> None:
    all_of_them = [one for entity in operational_entities().values() for one in entity.references]
    assert len([one for one in all_of_them if not one.where]) == 40 + 7  # those of charges and transactions
    assert {one.name: one.target for one in entities()["balance_transaction"].references if one.where} == {
        "entityId where entityType is BILL": "bill",
        "entityId where entityType is COMMITMENT": "commitment",
        "entityId where entityType is SCHEDULER": "balance_transaction_schedule",
    }
    assert {one.name: one.target for one in all_of_them if len(one.to) > 1} == {
        "reasonId": "credit_reason or debit_reason"
    }
    assert [(one.column, one.to) for one in entities()["account"].references] == [
        ("parentAccountId", ("account",)),
        ("statementDefinitionId", ("statement_definition",)),
    ]


def test_what_checks_look_at_cannot_be_excluded_and_what_is_personal_can() -> None:
    for entity in entities().values():
        names = {column.name for column in entity.columns}
        assert names & {*TIMES, "version", "deleted"} <= entity.needed
        assert {column.name for column in entity.columns if column.is_personal}.isdisjoint(entity.needed)
    bill, line_item = (entities()[name].needed & {*AMOUNTS} for name in ("bill", "bill_line_item"))
    assert (bill, line_item) == ({"billTotal", "currency", "lastCalculatedDate"}, {"subtotal", "convertedSubtotal"})
    assert entities()["pricing_band"].without(["type"]).elements == (("pricingBands", ()), ("overagePricingBands", ()))


def totals(total: float | None, *lines: float | None, currency: str = "USD", time: str = BEFORE) -> BillTotals:
    bill = {"id": "b", "billTotal": total, "currency": currency, "dtCreated": time}
    bill |= {"dtLastModified": None, "lastCalculatedDate": None}
    return compared([bill], [line(amount) for amount in lines])


def line(converted: float | None, *, subtotal: float | None = None, time: str = BEFORE) -> dict[str, Any]:
    amounts = {"convertedSubtotal": converted, "subtotal": subtotal}
    return {"billId": "b", **amounts, "dtCreated": time, "dtLastModified": None}


def compared(bills: list[dict[str, Any]], lines: list[dict[str, Any]]) -> BillTotals:
    texts = dict.fromkeys(("currency", "dtCreated", "dtLastModified"), pl.String)
    bill_schema = {"id": pl.String, "billTotal": pl.Float64, **texts, "lastCalculatedDate": pl.String}
    line_schema = {"billId": pl.String, "convertedSubtotal": pl.Float64, "subtotal": pl.Float64, **texts}
    del line_schema["currency"]
    rows = [
        ExportedRows(pl.LazyFrame(some, schema=schema), STARTED)
        for some, schema in ((bills, bill_schema), (lines, line_schema))
    ]
    found = compare_totals(*rows)
    assert compare_totals(*rows, at_once=1) == found
    return found


def test_many_bills_are_added_up_some_at_a_time() -> None:
    bills = [{"id": f"b{number}", "billTotal": float(number % 3), "currency": "USD"} for number in range(30)]
    lines = [{**line(1.0), "billId": f"b{number}"} for number in range(30)]
    assert compared(bills, lines).wrong == 20


@pytest.mark.parametrize(
    ("total", "lines", "currency", "wrong"),
    [
        (10.0, (4.0, 6.0), "USD", 0),
        (11.0, (4.0, 6.0), "USD", 1),
        (10.01, (4.0, 6.0), "USD", 0),
        (10.02, (4.0, 6.0), "USD", 1),
        (10.02, (1.0, 2.0, 3.0, 4.0), "USD", 0),
        (0.3, (0.1, 0.2), "USD", 0),
        (-1.0, (4.0, -5.0), "USD", 0),
        (11.0, (4.4, 6.0), "JPY", 0),
        (12.0, (4.4, 6.0), "JPY", 1),
        (0.0, (), "USD", 0),
        (5.0, (), "USD", 1),
        (4.0, (4.0, None), "USD", 0),
    ],
)
def test_a_bill_is_the_sum_of_its_lines(total: float, lines: tuple[float, ...], currency: str, wrong: int) -> None:
    result = totals(total, *lines, currency=currency)
    assert (result.compared, result.without_total, result.wrong, result.recent) == (1, 0, wrong, 0)


def test_a_wrong_bill_is_named_with_its_difference() -> None:
    assert totals(11.0, 4.0, 6.0).examples == [
        {"bill id": "b", "billTotal": 11.0, "sum of line items": 10.0, "line items": 2, "difference": 1.0}
    ]


def test_a_bill_without_a_total_is_skipped_and_counted() -> None:
    assert totals(None, 4.0) == BillTotals(compared=0, without_total=1, wrong=0, recent=0, examples=[])


def test_a_subtotal_stands_in_where_nothing_was_converted() -> None:
    bill = {"id": "b", "billTotal": 3.0, "currency": "USD"}
    assert compared([bill], [line(None, subtotal=1.0), line(2.0, subtotal=50.0)]).wrong == 0


@pytest.mark.parametrize("bill_time", [BEFORE, AFTER])
def test_a_bill_that_was_calculated_while_the_export_ran_is_told_apart(bill_time: str) -> None:
    bill = {"id": "b", "billTotal": 3.0, "currency": "USD", "lastCalculatedDate": bill_time}
    result = compared([bill], [line(1.0, time=BEFORE if bill_time == AFTER else AFTER)])
    assert (result.wrong, result.recent, result.examples) == (0, 1, [])


MEMORY = (
    PEAK
    + """
import sys
from datetime import UTC, datetime
from pathlib import Path
import polars as pl
from m3ter_dagster.frames.bill_totals import compare_totals
from m3ter_dagster.frames.references import ExportedRows, dangling
folder, rows, now = Path(sys.argv[1]), 20_000, datetime.now(UTC)
wide = pl.Series([f"{row:01500}" for row in range(rows)])
for part in range(10):
    ids = [f"{part:08}-{row:027}" for row in range(rows)]
    frame = pl.DataFrame({"id": ids, "billId": [f"bill-{row % 500:030}" for row in range(rows)], "subtotal": 1.0})
    frame = frame.with_columns(convertedSubtotal=None, dtCreated=None, dtLastModified=None, wide=wide)
    casts = pl.col("dtCreated", "dtLastModified").cast(pl.String), pl.col("convertedSubtotal").cast(pl.Float64)
    frame.with_columns(*casts).write_ipc(folder / f"{part}.arrow", compression="lz4")
del frame, wide
bills = pl.LazyFrame({"id": [f"bill-{row:030}" for row in range(499)], "billTotal": 400.0, "currency": "USD"})
texts = [pl.lit(None, pl.String).alias(name) for name in ("dtCreated", "dtLastModified", "lastCalculatedDate")]
before = peak_megabytes()
lines, bills = ExportedRows(pl.scan_ipc(folder / "*.arrow"), now), ExportedRows(bills.with_columns(texts), now)
found = dangling(lines.frame, "billId", bills, row_id="id", key="id")
assert (found.rows, found.parents) == (400, 1), found
assert compare_totals(bills, lines).wrong == 0
print(peak_megabytes() - before)
"""
)


@pytest.mark.slow
def test_memory_does_not_hold_the_rows(tmp_path: Any) -> None:
    """200,000 rows of 1.5 kB are 300 MB."""
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150
