"""What a verification found, in words, and its result. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SHOWN = 5
"""The most rows that a finding names."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    entity: str
    check: str
    says: str
    row: str | None = None
    severity: Severity = "error"

    def __str__(self) -> str:
        row = f", row {self.row}" if self.row else ""
        return f"{self.severity}: {self.entity}{row}: {self.check}: {self.says}"


@dataclass(frozen=True)
class VerifiedEntity:
    """One entity as it was found; None for what could not be counted."""

    entity: str
    rows: int | None
    bytes: int | None


@dataclass(frozen=True)
class VerifiedReference:
    """One foreign key as it was found."""

    entity: str
    column: str
    parent: str
    broken: int | None
    """The number of rows that refer to nothing; None if it could not be determined."""
    examples: Sequence[str] = ()

    def __str__(self) -> str:
        if self.broken is None:
            return "not checked"
        return f"{rows_text(self.broken)}: {named(self.examples, self.broken)}" if self.broken else "holds"


@dataclass(frozen=True)
class Report:
    entities: Sequence[VerifiedEntity]
    references: Sequence[VerifiedReference]
    findings: Sequence[Finding]

    def count(self, severity: Severity) -> int:
        return sum(one.severity == severity for one in self.findings)

    def result(self, entity: str) -> str:
        """The result for an entity, in a word or two."""
        found = Counter(one.severity for one in self.findings if one.entity == entity)
        severities: tuple[Severity, ...] = ("error", "warning", "note")
        return ", ".join(counted(found[one], one) for one in severities if found[one]) or "all right"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def rows_text(count: int) -> str:
    return counted(count, "row")


def named(examples: Sequence[str], total: int) -> str:
    """The first of many names, as text."""
    more = total - len(examples)
    return ", ".join(examples) + (f" and {more:,} more" if more > 0 else "")
