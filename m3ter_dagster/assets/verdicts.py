"""What a check across entities found, in words and as metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import polars as pl

from m3ter_dagster.frames.bill_totals import LEAST_TOLERANCE, BillTotals, compare_totals
from m3ter_dagster.frames.references import Dangling, ExportedRows, Reference, dangling
from m3ter_dagster.model.entities import Entity, entities

FindRows = Callable[[str], ExportedRows | None]
"""An entity's rows in this export, by its name; None when it is not in it."""

_NOT_CHECKED = "Not checked"


@dataclass(frozen=True)
class Verdict:
    passed: bool
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def was_checked(description: str | None) -> bool:
    """Dagster knows passed and failed only, so a check that had nothing to look at counts as passed and says so."""
    return not (description or "").startswith(_NOT_CHECKED)


def reference_verdict(entity: Entity, reference: Reference, find: FindRows) -> Verdict:
    if not reference.is_exported:
        return _not_checked(f"m3ter exports no {reference.to}")
    children, parents = find(entity.name), find(reference.to)
    if children is None or parents is None:
        return _absent(entity.name if children is None else reference.to)
    parent_key = entities()[reference.to].primary_key
    found = dangling(children.frame, reference.column, parents, row_id=entity.primary_key, key=parent_key)
    return _reference_verdict(found, entity, reference)


def bill_total_verdict(find: FindRows, *, bill: str, line_item: str) -> Verdict:
    bills, line_items = find(bill), find(line_item)
    if bills is None or line_items is None:
        return _absent(bill if bills is None else line_item)
    return _bill_total_verdict(compare_totals(bills, line_items))


def error_verdict(error: Exception) -> Verdict:
    """Polars may quote a cell that it cannot read."""
    is_silent = isinstance(error, pl.exceptions.PolarsError)
    return Verdict(False, f"Could not be checked: {type(error).__name__ if is_silent else error}")


def _absent(name: str) -> Verdict:
    return _not_checked(f"{name} is not in this export")


def _not_checked(why: str) -> Verdict:
    return Verdict(True, f"{_NOT_CHECKED}: {why}.")


def _reference_verdict(found: Dangling, entity: Entity, reference: Reference) -> Verdict:
    lost = f"{_count(found.rows, 'row')} of {entity.name} refer to {found.parents:,} of {reference.to} not there"
    text = lost if found.rows else f"{_count(found.references, 'row')} looked at"
    metadata: dict[str, Any] = {
        "rows with a reference": found.references,
        "rows that refer to nothing": found.rows,
        "missing ids": found.parents,
        "rows written while the export ran": found.recent,
    }
    if found.examples:
        names = (entity.primary_key, reference.column)
        metadata["first rows"] = _table(names, (dict(zip(names, one, strict=True)) for one in found.examples))
    return Verdict(not found.rows, f"{text}{_recent(found.recent, 'row')}.", metadata)


def _bill_total_verdict(found: BillTotals) -> Verdict:
    wrong = f"{found.wrong:,} of {_count(found.compared, 'bill')} do not have the sum of their line items as total"
    text = wrong if found.wrong else f"{_count(found.compared, 'bill')} looked at"
    skipped = f"; {_count(found.without_total, 'bill')} without a total skipped" if found.without_total else ""
    metadata: dict[str, Any] = {
        "bills compared": found.compared,
        "bills without a total": found.without_total,
        "bills with a wrong total": found.wrong,
        "bills written while the export ran": found.recent,
        "tolerance": f"half a minor unit of the bill's currency per line item, at least {LEAST_TOLERANCE}",
    }
    if found.examples:
        metadata["first bills"] = _table(list(found.examples[0]), found.examples)
    return Verdict(not found.wrong, f"{text}{skipped}{_recent(found.recent, 'bill')}.", metadata)


def _recent(count: int, what: str) -> str:
    if not count:
        return ""
    were = "was" if count == 1 else "were"
    return f"; {_count(count, what)} {were} written while the export ran and {were} not judged"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _table(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> dg.TableMetadataValue:
    schema = dg.TableSchema(columns=[dg.TableColumn(name) for name in names])
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows], schema=schema)
