"""The result of reading one entity, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from m3ter_dagster.model.entities import Entity


class EntityUnreadable(Exception):
    """The list of an entity could not be read to its end."""

    def __init__(self, entity: str, cause: Exception) -> None:
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
class Reading:
    """A whole entity, validated. Its frames are scanned from disk and live as long as the run."""

    entity: Entity
    frame: pl.LazyFrame
    parts: Sequence[pl.LazyFrame]
    """The same rows, one part after the other."""
    hashes: pl.LazyFrame
    """What `frames.difference.hashes` gives for each row."""
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

    @property
    def seconds(self) -> float:
        return (self.finished - self.started).total_seconds()

    @property
    def table(self) -> Entity:
        return self.entity
