"""Page bytes to typed polars frames, and the rules that a frame must keep. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from m3ter_dagster.model.entity import Column, Entity, Table

DTYPES: Mapping[str, type[pl.DataType]] = {
    "array": pl.String,
    "boolean": pl.Boolean,
    "integer": pl.Int64,
    "number": pl.Float64,
    "object": pl.String,
    "string": pl.String,
}

RECORD = "m3ter:record"
"""The column that says which listed record a row comes from, counted from 0; never exported."""
RECORD_ID = "m3ter:recordId"
RECORD_VERSION = "m3ter:recordVersion"
"""The id of a listed record; not the row's own where rows are elements of records (pricing bands)."""

DELETED_COLUMN = "deleted"
"""The column of every entity that says whether m3ter has the row no more."""

SHOWN = 120
"""The most characters of a value that a message shows."""
_CONTAINERS = {"{": "object", "[": "array"}
_EMPTY = ("null", '""', "[]", "{}")


@dataclass(frozen=True)
class Breach:
    """One cell that breaks the schema."""

    row_id: str | None
    column: str
    value: str
    """The value as `shown` shows it."""
    rule: str
    """The rule in words that hold nothing of any row."""

    def __str__(self) -> str:
        return f"{self._place}, value {self.value}: {self.rule}"

    @property
    def without_value(self) -> str:
        return f"{self._place}: {self.rule}"

    @property
    def _place(self) -> str:
        row = f"row {self.row_id}" if self.row_id else "a row without id"
        return f"{row}, column {self.column}"


class SchemaBreached(Exception):
    """Rows break the schema of their table; nothing of it may be delivered."""

    def __init__(
        self, table: str, breaches: Sequence[Breach], total: int, *, what: str | None = None, advice: str | None = None
    ) -> None:
        """`what` breaks which schema, and what to do about it, where that is not the descriptor of an entity."""
        self.breaches = breaches
        self.total = total
        self._why = f"{table} is not exported because {what or f'it breaks schemas/{table}.json'}"
        self._advice = advice or "Correct the row in m3ter, or the descriptor if m3ter's schema changed."
        super().__init__(self._words(str(breaches[0])))

    @property
    def notification(self) -> str:
        """The message without any value, for notifications."""
        return self._words(self.breaches[0].without_value)

    def _words(self, breach: str) -> str:
        more = f" ({self.total - 1} more in the report of this run)" if self.total > 1 else ""
        return f"{self._why}: {breach}{more}. {self._advice}"


def frame_schema(table: Table) -> dict[str, type[pl.DataType]]:
    """The columns of the exported frame, in their order."""
    return {column.name: DTYPES[column.type] for column in table.columns}


def there(rows: pl.LazyFrame) -> pl.LazyFrame:
    """The rows without those that are deleted."""
    return rows.filter(~pl.col(DELETED_COLUMN)) if DELETED_COLUMN in rows.collect_schema() else rows


def spool_schema(entity: Entity) -> dict[str, type[pl.DataType]]:
    """The columns of decoded rows: those of the export, and the one that tells records apart."""
    return {**frame_schema(entity), RECORD: pl.UInt32}


def validate(frame: pl.DataFrame, entity: Entity) -> list[Breach]:
    """The cells of this batch that break the schema: missing ids, empty keys. TypeError if the columns are others."""
    expected = frame_schema(entity)
    if (found := dict(frame.select(list(expected)).schema)) != expected:
        raise TypeError(f"the frame of {entity.name} has {found} instead of {expected}")
    rules = list(_rules(entity))
    broken = frame.select(cells.sum().alias(str(number)) for number, (_, _, cells) in enumerate(rules)).row(0)
    return [
        Breach(row_id or None, column.name, shown_json(json.dumps(value, ensure_ascii=False), column), rule)
        for (column, rule, cells), count in zip(rules, broken, strict=True)
        if count
        for row_id, value in frame.filter(cells).select(entity.primary_key, value=column.name).iter_rows()
    ]


def _rules(entity: Entity) -> Iterator[tuple[Column, str, pl.Expr]]:
    """Columns, what their cells must not be, and which are."""
    for column in entity.columns:
        cell = pl.col(column.name)
        if column.required:
            yield column, "must not be missing", cell.is_null()
        if column.non_empty:
            yield column, "must not be empty", (cell == "").fill_null(False)


def shown(value: str | None, column: Column | None, *, kind: str = "text") -> str:
    """How messages and metadata show a value, cut when long; this is the one place where that is decided.

    Of personal values it shows only kind and length, and likewise of unknown columns, which may hold anything.
    """
    if value is None:
        return "nothing"
    if column is None or column.is_personal:
        return f"{kind} of {len(value)} character{'' if len(value) == 1 else 's'}"
    return value if len(value) <= SHOWN else f"{value[:SHOWN]}... ({len(value)} characters)"


def shown_json(value: str | bytes, column: Column | None) -> str:
    """How messages show the value of a JSON text; of a whole object, which may hold anything, only kind and length."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    is_hidden = column is None or column.is_personal
    if text in _EMPTY:
        return text
    match text[:1]:
        case '"':
            return shown(text[1:-1], None) if is_hidden else shown(text, column)
        case "{" | "[" as opening:
            is_expected = column and column.is_json
            return shown(text, column if is_expected else None, kind=f"a JSON {_CONTAINERS[opening]}")
        case "t" | "f":
            return shown(text, column, kind="a boolean")
        case _:
            return shown(text, column, kind="a number")


def repeated_ids(entity: Entity, ids: Iterable[str]) -> list[Breach]:
    rule = "is the primary key and must be unique"
    key = entity.column(entity.primary_key)
    return [Breach(row_id, key.name, shown_json(json.dumps(row_id), key), rule) for row_id in ids]
