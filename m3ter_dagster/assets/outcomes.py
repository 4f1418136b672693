"""What a check across entities found, in words and as metadata."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from m3ter_dagster.frames.bill_totals import LEAST_TOLERANCE, compare_totals
from m3ter_dagster.frames.ledgers import Summary, compare_ledgers
from m3ter_dagster.frames.references import SHOWN_ROWS, Dangling, ExportedRows, dangling
from m3ter_dagster.frames.schema import there
from m3ter_dagster.history import captions
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity, Reference

_KEY_COLUMNS = (
    *("column", "refers to", "result"),
    *("references", "rows that refer to nothing", "missing ids", "recent rows"),
)
_NOT_CHECKED = "not checked: "
_ID = "id"

FindRows = Callable[[str], ExportedRows | None]
"""Returns the rows of an entity in this export by its name, or None if the export does not have it."""
AskFor = Callable[[str, Sequence[str]], Collection[str] | None]
"""Returns which records of an entity m3ter has, by its name and their ids, or None if it cannot be asked now."""


@dataclass(frozen=True)
class Outcome:
    passed: bool | None
    """None: there was nothing to look at, and `text` says why."""
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    is_error: bool = False
    """It could not be looked at."""


def foreign_keys_outcome(entity: Entity, find: FindRows, ask_for: AskFor) -> Outcome:
    """All foreign keys of an entity, each with a line of its own in the check's table."""
    children = find(entity.name)
    if children is None:
        return _absent(entity.name)
    keys = [_look_at(one, entity, children, find, ask_for) for one in entity.references]
    found = {key.column: key.found for key in keys if key.found}
    failures = [key.result for key in keys if not key.passed]
    metadata: dict[str, Any] = {"foreign keys": captions.table(_KEY_COLUMNS, (key.line() for key in keys))}
    examples = [(row, column, to) for column, one in found.items() for row, to in one.examples]
    if examples:
        names = ("row id", "column", "refers to")
        metadata["first rows"] = captions.table(names, (dict(zip(names, one, strict=True)) for one in examples))
    if not found and not failures:
        return Outcome(None, keys[0].result.removeprefix(_NOT_CHECKED))
    recent, references = (sum(getattr(one, name) for one in found.values()) for name in ("recent", "references"))
    text = "; ".join(failures) or f"{_count(len(found), 'key')} and {_count(references, 'reference')} looked at"
    return Outcome(not failures, f"{text}{_recent(recent, 'row')}.", metadata)


@dataclass(frozen=True)
class _ForeignKey:
    """What was found about one foreign key."""

    column: str
    to: str
    passed: bool
    result: str
    found: Dangling | None = None

    def line(self) -> dict[str, Any]:
        numbers = (self.found.references, self.found.rows, self.found.parents, self.found.recent) if self.found else ()
        values = (self.column, self.to, self.result, *(numbers or [None] * 4))
        return dict(zip(_KEY_COLUMNS, values, strict=True))


def _look_at(
    reference: Reference, entity: Entity, children: ExportedRows, find: FindRows, ask_for: AskFor
) -> _ForeignKey:
    """A key whose parents cannot be read is no reason to leave the others unseen."""
    name, to = reference.name, reference.target
    try:
        parents = {one: find(one) for one in reference.to}
        absent = [one for one, rows in parents.items() if rows is None]
        if absent:
            return _ForeignKey(name, to, True, f"{_NOT_CHECKED}{absent[0]} is not in this export")
        rows = there(children.frame)
        rows = rows.filter(pl.col(reference.where[0]) == reference.where[1]) if reference.where else rows
        found = dangling(rows, reference.column, _united(parents), row_id=entity.primary_key, key=_ID)
    except Exception as error:
        return _ForeignKey(name, to, False, f"{name} could not be checked: {_said(error)}")
    lost = f"{name}: {_count(found.rows, 'row')} refer to {found.parents:,} of {to} not there"
    if found.rows and (has := _asked(ask_for, reference.to, found.keys)) is not None:
        of_them = "them" if found.parents == len(found.keys) else f"the first {len(found.keys):,} of them"
        lost += f"; m3ter has {f'{len(has):,}' if has else 'none'} of {of_them}{_named(has) if has else ' either'}"
    return _ForeignKey(name, to, not found.rows, lost if found.rows else "passed", found)


def _united(parents: Mapping[str, ExportedRows | None]) -> ExportedRows:
    """The ids of all rows that a column may refer to."""
    there = {name: rows for name, rows in parents.items() if rows}
    ids = [rows.frame.select(pl.col(entities()[name].primary_key).alias(_ID)) for name, rows in there.items()]
    return ExportedRows(pl.concat(ids), min(rows.read_from for rows in there.values()))


def _asked(ask_for: AskFor, names: Sequence[str], ids: Sequence[str]) -> Collection[str] | None:
    answers = [ask_for(name, ids) for name in names]
    known = [one for one in answers if one is not None]
    return {id for one in known for id in one} if len(known) == len(answers) else None


def bill_total_outcome(find: FindRows, *, bill: str, line_item: str) -> Outcome:
    bills, line_items = find(bill), find(line_item)
    if bills is None or line_items is None:
        return _absent(bill if bills is None else line_item)
    bills, line_items = (replace(one, frame=there(one.frame)) for one in (bills, line_items))
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


def ledger_outcome(find: FindRows, ask: Callable[[Sequence[str]], Mapping[str, Summary]]) -> Outcome:
    """Whether the transactions of each balance add up to what m3ter says, which is asked for each of them."""
    balances, transactions = find("balance"), find("balance_transaction")
    if balances is None or transactions is None:
        return _absent("balance" if balances is None else "balance_transaction")
    key = entities()["balance"].primary_key
    ids = there(balances.frame).select(key).collect(engine="streaming")[key].to_list()
    found = compare_ledgers(replace(transactions, frame=there(transactions.frame)), ask(ids))
    wrong = f"{found.wrong:,} of {_count(found.compared, 'balance')} have transactions with another sum than m3ter says"
    metadata: dict[str, Any] = {
        "balances compared": found.compared,
        "balances without a summary": len(ids) - found.compared,
        "balances with a wrong sum": found.wrong,
    }
    if found.examples:
        metadata["first balances"] = captions.table(list(found.examples[0]), found.examples)
    text = wrong if found.wrong else f"{_count(found.compared, 'balance')} looked at"
    return Outcome(not found.wrong, f"{text}{_recent(found.recent, 'balance')}.", metadata)


def _named(ids: Collection[str]) -> str:
    return f" ({', '.join(sorted(ids)[:SHOWN_ROWS])})"


def error_outcome(error: Exception) -> Outcome:
    """A check that could not be made."""
    return Outcome(False, f"Could not be checked: {_said(error)}", is_error=True)


def _said(error: Exception) -> str:
    # Polars may quote a cell that it cannot read, which might be personal.
    return type(error).__name__ if isinstance(error, pl.exceptions.PolarsError) else str(error)


def _absent(name: str) -> Outcome:
    return Outcome(None, f"{name} is not in this export")


def _recent(count: int, what: str) -> str:
    if not count:
        return ""
    were = "was" if count == 1 else "were"
    return f"; {_count(count, what)} {were} written while the export ran and {were} not judged"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
