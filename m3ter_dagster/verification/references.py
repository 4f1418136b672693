"""Foreign keys across the entities of an export, from the files of their keys. Pure but for those files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.schema import DELETED_COLUMN
from m3ter_dagster.verification.data_package import DataPackage, ForeignKey, Resource
from m3ter_dagster.verification.findings import SHOWN, Finding, VerifiedReference, named, rows_text
from m3ter_dagster.verification.rows import CHANGED

TO_THE_SECOND = len("2025-01-27T10:00:00")


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
        for key in child.schema.foreign_keys:
            one, found = _check(child, key, package.parent(child, key), keys)
            verified.append(one)
            findings += found
    return verified, findings


def _check(
    child: Resource, key: ForeignKey, parent: Resource, keys: Mapping[str, Path]
) -> tuple[VerifiedReference, list[Finding]]:
    if child.name not in keys or parent.name not in keys:
        return VerifiedReference(child.entity, key.column, parent.entity, broken=None), []
    broken = _broken(keys[child.name], key, keys[parent.name])
    is_new = _is_new(child, since=parent.reading.started)
    settled = _unresolved(broken.filter(~is_new), child, key)
    moving = _unresolved(broken.filter(is_new), child, key)
    where = f"{key.column} -> {parent.entity}"
    findings = []
    if settled.count:
        findings.append(Finding(child.entity, f"foreign key {where}", _says(settled), severity="warning"))
    if moving.count:
        says = f"{_says(moving)}; they changed after {parent.entity} was read"
        findings.append(Finding(child.entity, f"foreign key {where}", says, severity="note"))
    examples = [*settled.ids, *moving.ids][:SHOWN]
    total = settled.count + moving.count
    return VerifiedReference(child.entity, key.column, parent.entity, total, examples), findings


def _broken(child: Path, key: ForeignKey, parent: Path) -> pl.LazyFrame:
    """The rows of the child whose key no row of the parent has; empty keys and deleted rows do not count."""
    used = pl.col(key.column).is_not_null() & (pl.col(key.column) != "")
    rows = pl.scan_parquet(child).filter(used)
    if DELETED_COLUMN in rows.collect_schema():
        rows = rows.filter(pl.col(DELETED_COLUMN).ne_missing("true"))
    asked = rows.select(pl.col(key.column).hash().alias("hash")).unique()
    known = pl.scan_parquet(parent).select(pl.col(key.reference.column).hash().alias("hash"))
    unknown = asked.join(known, on="hash", how="anti").collect(engine="streaming")["hash"]
    return rows.filter(pl.col(key.column).hash().is_in(unknown.implode()))


def _is_new(child: Resource, *, since: str) -> pl.Expr:
    """Whether the row changed when or after its parents were read. All times are UTC in ISO 8601."""
    times = [pl.col(name).str.slice(0, TO_THE_SECOND) for name in CHANGED if name in child.schema.names]
    if not times:
        return pl.lit(False)
    return (pl.max_horizontal(times) >= since[:TO_THE_SECOND]).fill_null(False)


def _unresolved(rows: pl.LazyFrame, child: Resource, key: ForeignKey) -> Unresolved:
    row_id = pl.col(child.schema.primary_key) if child.schema.primary_key else pl.lit(None, pl.String)
    columns = [row_id.alias("row"), pl.col(key.column).alias("to")]
    count = rows.select(pl.len()).collect(engine="streaming").item()
    return Unresolved(count, rows.select(columns).head(SHOWN).collect(engine="streaming").rows() if count else [])


def _says(unresolved: Unresolved) -> str:
    examples = [f"row {row} to {to}" for row, to in unresolved.examples]
    verb = "refers" if unresolved.count == 1 else "refer"
    return f"{rows_text(unresolved.count)} {verb} to what the export does not have: {named(examples, unresolved.count)}"
