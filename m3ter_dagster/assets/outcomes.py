"""What a check across entities found, in words and as metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from m3ter_dagster.frames.bill_totals import LEAST_TOLERANCE, compare_totals
from m3ter_dagster.frames.references import ExportedRows, Reference, dangling
from m3ter_dagster.history import captions
from m3ter_dagster.history.progress import CHECKED
from m3ter_dagster.model.entities import Entity, entities

FindRows = Callable[[str], ExportedRows | None]
"""Returns the rows of an entity in this export by its name, or None if the export does not have it."""


@dataclass(frozen=True)
class Outcome:
    passed: bool
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def reference_outcome(entity: Entity, reference: Reference, find: FindRows) -> Outcome:
    if not reference.is_exported:
        return _not_checked(f"m3ter exports no {reference.to}")
    children, parents = find(entity.name), find(reference.to)
    if children is None or parents is None:
        return _absent(entity.name if children is None else reference.to)
    parent_key = entities()[reference.to].primary_key
    found = dangling(children.frame, reference.column, parents, row_id=entity.primary_key, key=parent_key)
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
        metadata["first rows"] = captions.table(names, (dict(zip(names, one, strict=True)) for one in found.examples))
    return Outcome(not found.rows, f"{text}{_recent(found.recent, 'row')}.", metadata)


def bill_total_outcome(find: FindRows, *, bill: str, line_item: str) -> Outcome:
    bills, line_items = find(bill), find(line_item)
    if bills is None or line_items is None:
        return _absent(bill if bills is None else line_item)
    found = compare_totals(bills, line_items)
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
        metadata["first bills"] = captions.table(list(found.examples[0]), found.examples)
    return Outcome(not found.wrong, f"{text}{skipped}{_recent(found.recent, 'bill')}.", metadata)


def error_outcome(error: Exception) -> Outcome:
    """A check that could not be made."""
    # Polars may quote a cell that it cannot read, which might be personal.
    is_silent = isinstance(error, pl.exceptions.PolarsError)
    return Outcome(False, f"Could not be checked: {type(error).__name__ if is_silent else error}")


def _absent(name: str) -> Outcome:
    return _not_checked(f"{name} is not in this export")


def _not_checked(why: str) -> Outcome:
    """A check with nothing to look at. It counts as passed: to Dagster a check has either passed or failed."""
    return Outcome(True, f"Not checked: {why}.", {CHECKED: False})


def _recent(count: int, what: str) -> str:
    if not count:
        return ""
    were = "was" if count == 1 else "were"
    return f"; {_count(count, what)} {were} written while the export ran and {were} not judged"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
