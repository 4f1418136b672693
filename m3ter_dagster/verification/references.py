"""Foreign keys across the entities of an export, from the files of their keys. Pure but for those files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.schema import DELETED_COLUMN
from m3ter_dagster.verification.data_package import DataPackage, Resource
from m3ter_dagster.verification.findings import SHOWN, Finding, VerifiedReference, named, rows_text
from m3ter_dagster.verification.rows import CHANGED

TO_THE_SECOND = len("2025-01-27T10:00:00")


@dataclass(frozen=True)
class Reference:
    """A column whose values are primary keys of one of these resources, in all rows or only `where` that is so."""

    column: str
    parents: Sequence[Resource]
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        conditions = " and ".join(f"{column} is {value}" for column, value in self.where.items())
        return f"{self.column} where {conditions}" if conditions else self.column

    @property
    def target(self) -> str:
        return " or ".join(one.entity for one in self.parents)


@dataclass(frozen=True)
class Unresolved:
    """The number of rows that refer to nothing, and some of them: their id and what they refer to."""

    count: int
    examples: list[tuple[str, str]]

    @property
    def ids(self) -> list[str]:
        return [str(row) for row, _ in self.examples]


def check_references(package: DataPackage, keys: Mapping[str, Path]) -> tuple[list[VerifiedReference], list[Finding]]:
    """Check every foreign key of the manifest. `keys` has a file for each entity whose rows could be read."""
    verified: list[VerifiedReference] = []
    findings: list[Finding] = []
    for child in package.resources:
        for reference in _references(package, child):
            one, found = _check(child, reference, keys)
            verified.append(one)
            findings += found
    return verified, findings


def _references(package: DataPackage, child: Resource) -> Iterator[Reference]:
    """The foreign keys of a resource, and what it notes of columns for which Table Schema has none."""
    for key in child.schema.foreign_keys:
        yield Reference(key.column, [package.parent(child, key)])
    by_entity = {one.entity: one for one in package.resources}
    for column in child.schema.fields:
        for one in column.references:
            if by_entity.keys() >= {*one.entities}:
                yield Reference(column.name, [by_entity[name] for name in one.entities], one.where)


def _check(child: Resource, reference: Reference, keys: Mapping[str, Path]) -> tuple[VerifiedReference, list[Finding]]:
    name, to = reference.name, reference.target
    if not keys.keys() >= {one.name for one in (child, *reference.parents)}:
        return VerifiedReference(child.entity, name, to, broken=None), []
    broken = _broken(keys[child.name], reference, keys)
    is_new = _is_new(child, since=min(one.reading.started for one in reference.parents))
    settled = _unresolved(broken.filter(~is_new), child, reference.column)
    moving = _unresolved(broken.filter(is_new), child, reference.column)
    where = f"{name} -> {to}"
    findings = []
    if settled.count:
        findings.append(Finding(child.entity, f"foreign key {where}", _says(settled), severity="warning"))
    if moving.count:
        says = f"{_says(moving)}; they changed after {to} was read"
        findings.append(Finding(child.entity, f"foreign key {where}", says, severity="note"))
    examples = [*settled.ids, *moving.ids][:SHOWN]
    total = settled.count + moving.count
    return VerifiedReference(child.entity, name, to, total, examples), findings


def _broken(child: Path, reference: Reference, keys: Mapping[str, Path]) -> pl.LazyFrame:
    """The rows of the child whose key no row of the parents has; empty keys and deleted rows do not count."""
    key = pl.col(reference.column)
    refers = [pl.col(column) == value for column, value in reference.where.items()]
    rows = pl.scan_parquet(child).filter(key.is_not_null(), key != "", *refers)
    if DELETED_COLUMN in rows.collect_schema():
        rows = rows.filter(pl.col(DELETED_COLUMN).ne_missing("true"))
    asked = rows.select(key.hash().alias("hash")).unique()
    known = pl.concat(
        [
            pl.scan_parquet(keys[one.name]).select(pl.col(one.schema.primary_key or "").hash().alias("hash"))
            for one in reference.parents
        ]
    )
    unknown = asked.join(known, on="hash", how="anti").collect(engine="streaming")["hash"]
    return rows.filter(key.hash().is_in(unknown.implode()))


def _is_new(child: Resource, *, since: str) -> pl.Expr:
    """Whether the row changed when or after its parents were read. All times are UTC in ISO 8601."""
    times = [pl.col(name).str.slice(0, TO_THE_SECOND) for name in CHANGED if name in child.schema.names]
    if not times:
        return pl.lit(False)
    return (pl.max_horizontal(times) >= since[:TO_THE_SECOND]).fill_null(False)


def _unresolved(rows: pl.LazyFrame, child: Resource, column: str) -> Unresolved:
    row_id = pl.col(child.schema.primary_key) if child.schema.primary_key else pl.lit(None, pl.String)
    columns = [row_id.alias("row"), pl.col(column).alias("to")]
    count = rows.select(pl.len()).collect(engine="streaming").item()
    return Unresolved(count, rows.select(columns).head(SHOWN).collect(engine="streaming").rows() if count else [])


def _says(unresolved: Unresolved) -> str:
    examples = [f"row {row} to {to}" for row, to in unresolved.examples]
    verb = "refers" if unresolved.count == 1 else "refer"
    return f"{rows_text(unresolved.count)} {verb} to what the export does not have: {named(examples, unresolved.count)}"
