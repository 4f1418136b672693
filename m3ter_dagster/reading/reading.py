"""The result of reading one entity, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity


class EntityUnreadable(Exception):
    """The list of an entity could not be read to its end."""

    def __init__(self, entity: str, cause: Exception, *, passes: bool) -> None:
        self.passes = passes
        super().__init__(f"{entity} is not exported because its list could not be read: {cause}")


@dataclass(frozen=True)
class Reuse:
    """What became of the wish to take rows over from an earlier export instead of reading them again."""

    export: str
    parents: int
    """How many parents had not changed since that export."""
    rows: int
    """How many rows were theirs in that export."""
    in_a_row: int
    """How many exports in a row have taken rows over, this one included; 0 where all was read to compare."""
    differing: Sequence[str] | None = None
    """Where all was read to compare: the ids of the parents whose rows are others. None where rows were taken."""


@dataclass(frozen=True)
class Completeness:
    """How far it is proven that nothing is missing although rows moved while they were read."""

    passes: int
    """How often the list, or its newest part, was read."""
    recovered: int
    """Records that had fallen out, and were found when they were looked for."""
    requests: int
    """Those made for this alone."""
    unconfirmed: frozenset[str] | None
    """Records of an earlier export that are missing, and of which m3ter does not say whether they are there.

    None: it was not asked for any of them.
    """
    is_proven: bool
    why: str
    """The proof, or why there is none."""
    written_meanwhile: int = 0
    """Rows that were created or changed while they were read."""


@dataclass(frozen=True)
class Deleted:
    """Rows of exports before this one that m3ter has no more."""

    rows: pl.LazyFrame
    """Those that stand in this export: with their last cells, and `deleted` true."""
    keys: pl.LazyFrame
    """The keys (`frames.difference`) of these rows, and of those of which m3ter does not say whether they are there."""
    count: int
    new: int
    """The number of those that the export before this one still had."""
    note: str = ""
    """Why rows that are gone do not stand in this export."""


@dataclass(frozen=True)
class Reading:
    """A whole entity, validated. Its frames are scanned from disk and live as long as the run."""

    entity: Entity
    frame: pl.LazyFrame
    parts: Sequence[pl.LazyFrame]
    """The same rows, one part after the other."""
    keys: pl.LazyFrame
    """The keys of the rows, see `frames.difference`."""
    rows: int
    duplicates: int
    """Rows dropped because a newer version of the same record was read."""
    unknown_fields: Mapping[str, int]
    """Fields that the API sent and the descriptor does not know, and how many rows had each."""
    empty_columns: tuple[str, ...]
    """Columns that the API documents and no row has a value in."""
    requests: int
    started: datetime
    finished: datetime
    how: str | None = None
    """How the list was read where there was a choice, and why, for people."""
    reuse: Reuse | None = None
    """None also where it was wished for and not possible; then `how` says why."""
    completeness: Completeness | None = None
    deleted: Deleted | None = None

    @property
    def seconds(self) -> float:
        return (self.finished - self.started).total_seconds()

    @property
    def table(self) -> Entity:
        return self.entity

    @property
    def excluded(self) -> tuple[str, ...]:
        """The columns of the entity that were not read."""
        read = {column.name for column in self.entity.columns}
        return tuple(one.name for one in entities()[self.entity.name].columns if one.name not in read)

    @property
    def delivered(self) -> Sequence[pl.LazyFrame]:
        """The rows of the export, one part after the other: those that were read, and those that are deleted."""
        return [*self.parts, self.deleted.rows] if self.deleted and self.deleted.count else self.parts

    @property
    def all_rows(self) -> pl.LazyFrame:
        return pl.concat([self.frame, self.deleted.rows]) if self.deleted and self.deleted.count else self.frame

    @property
    def all_keys(self) -> pl.LazyFrame:
        """What the next export needs to know about the rows of this one."""
        return pl.concat([self.keys, self.deleted.keys]) if self.deleted else self.keys
