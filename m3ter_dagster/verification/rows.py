"""The rows of one delivered file, in one pass: columns, number, cells and primary key. Pure but for its files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from m3ter_dagster.frames.format import Format, Unreadable
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.frames.schema import DELETED_COLUMN
from m3ter_dagster.frames.uniqueness import repeated_values
from m3ter_dagster.verification.cells import Rule, rules
from m3ter_dagster.verification.data_package import Resource
from m3ter_dagster.verification.findings import SHOWN, Finding, counted, named, rows_text

LONGEST_VALUE = 80
CHANGED = ("dtLastModified", "dtCreated")
"""Columns that show whether a row changed while the export ran."""


@dataclass(frozen=True)
class CheckedRows:
    """What was found in the rows of a file; `rows` is None if they could not be counted."""

    rows: int | None
    findings: list[Finding]
    has_keys: bool
    """Whether the file of keys holds the keys of all rows."""


@dataclass
class Breaches:
    """The number of cells in a column that break a rule, and the first of them."""

    count: int = 0
    first: tuple[str | None, str | None] = field(default=(None, None))
    """The id of the row, and the value."""


def check_rows(file: Path, resource: Resource, keys: Path) -> CheckedRows:
    """Check the rows; the columns that keys are made of are written to a Parquet file."""
    about, findings, format = resource.entity, list[Finding](), format_of(resource.file_name)
    try:
        names = format.names(file)
        mistake = None if names is None else _header_mistake(names, resource.schema.names)
        findings += [Finding(about, "header", mistake)] if mistake else []
        if mistake:
            rows = format.count(file)
        else:
            rows, cells = _read(format, file, resource, keys)
            findings += [*cells, *_repeated(keys, resource, rows)]
    except Unreadable as error:
        findings.append(Finding(about, "rows", f"the file cannot be read as {format.name}: {error}"))
        return CheckedRows(None, findings, has_keys=False)
    if rows != resource.rows:
        says = f"the file has {rows_text(rows)} and the manifest says {resource.rows:,}"
        findings.insert(0, Finding(about, "rows", says))
    return CheckedRows(rows, findings, has_keys=not mistake)


def _header_mistake(found: Sequence[str], expected: Sequence[str]) -> str | None:
    """How the names in the file differ from those in the schema."""
    if found == expected:
        return None
    for number, (has, should) in enumerate(zip(found, expected, strict=False), 1):
        if has != should:
            return f"column {number} is named {_shown(has)} and should be {_shown(should)}; its cells are not checked"
    return f"it has {counted(len(found), 'column')} and should have {len(expected)}; its cells are not checked"


def _read(format: Format, file: Path, resource: Resource, keys: Path) -> tuple[int, list[Finding]]:
    """The number of rows, and the cells that break their rules."""
    schema = resource.schema
    rows, found = 0, [(rule, Breaches()) for rule in rules(schema)]
    wanted = {schema.primary_key, *schema.referring, *CHANGED, DELETED_COLUMN}
    kept = [name for name in schema.names if name in wanted]
    columns = pa.schema([(name, pa.large_string()) for name in kept])
    with parquet.ParquetWriter(keys, columns, compression="zstd") as writer:
        for batch in format.texts(file, {one.name: one.type for one in schema.fields}):
            rows += len(batch)
            writer.write_table(batch.select(kept).to_arrow(compat_level=pl.CompatLevel.oldest()))
            _tally(batch, found, schema.primary_key)
    return rows, [_cell_finding(rule, breaches, resource) for rule, breaches in found if breaches.count]


def _tally(frame: pl.DataFrame, found: Sequence[tuple[Rule, Breaches]], key: str | None) -> None:
    counts = frame.select(rule.broken.sum().alias(str(number)) for number, (rule, _) in enumerate(found)).row(0)
    for (rule, breaches), count in zip(found, counts, strict=True):
        if count and not breaches.count:
            columns = pl.col(key) if key else pl.lit(None), pl.col(rule.column).alias("value")
            breaches.first = frame.filter(rule.broken).select(columns).row(0)
        breaches.count += count


def _cell_finding(rule: Rule, breaches: Breaches, resource: Resource) -> Finding:
    row, value = breaches.first
    more = f" ({rows_text(breaches.count)} like this)" if breaches.count > 1 else ""
    says = f"{rule.column} is {_shown(value)} and {rule.says}{more}"
    return Finding(resource.entity, rule.check, says, row=row or None)


def _repeated(keys: Path, resource: Resource, rows: int) -> Iterator[Finding]:
    """Findings about ids that more than one row has; a missing id is another finding."""
    name = resource.schema.primary_key
    if name is None:
        return
    repeated = repeated_values(pl.scan_parquet(keys).filter(pl.col(name) != ""), name, rows=rows)
    for row, count, _ in repeated.values[:SHOWN]:
        yield Finding(resource.entity, "primary key", f"{name} must be unique and stands in {count:,} rows", row=row)
    if repeated.total > SHOWN:
        examples = named([repeated.values[0].value], repeated.total)
        yield Finding(resource.entity, "primary key", f"{name} must be unique; {examples} stand in more than one row")


def _shown(value: str | None) -> str:
    if value is None:
        return "missing"
    return repr(value if len(value) <= LONGEST_VALUE else f"{value[:LONGEST_VALUE]}...")
