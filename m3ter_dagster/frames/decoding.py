"""The pages of a listing to the rows of an entity: every digit and character as sent, or a named breach. Pure."""

from __future__ import annotations

import gc
import itertools
import re
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import msgspec
import polars as pl

from m3ter_dagster.frames.cells import Unfit, Value, compact_json, read_cell
from m3ter_dagster.frames.elements import Elements, Origin, elements_of
from m3ter_dagster.frames.raw_rows import RawRow, may_repeat_a_key, raw_elements, raw_rows, row_id
from m3ter_dagster.frames.schema import (
    DTYPES,
    RECORD,
    RECORD_ID,
    RECORD_VERSION,
    Breach,
    frame_schema,
    shown_json,
    spool_schema,
)
from m3ter_dagster.model.entity import Column, Entity

_NULL = msgspec.Raw(b"null")
_TYPES: dict[str, Any] = {
    "array": msgspec.Raw,
    "boolean": bool | None,
    "integer": int | float | None,
    "number": float | None,
    "object": msgspec.Raw,
    "string": str | None,
}

_NEGATIVE_ZERO = re.compile(rb":\s*-0(?![.0-9eE])")

UNESCAPED = re.compile(r'[^"\\\x00-\x1f]*')
"""Names that msgspec can look for; a page with another unknown name is read cell by cell."""

SEARCHED = 32
"""Pages at the start that are searched for a key that a record has twice; later it is one of so many."""

_Cells = dict[str, pl.Series]
_ODD = (msgspec.MsgspecError, UnicodeDecodeError, OverflowError, RecursionError, TypeError, Unfit)
"""What decoding raises for a value that is not as documented."""


class Decoder:
    """Decodes page after page for one entity, and counts the fields that its descriptor does not know.

    Some pages are decoded at once into typed rows. A row that this refuses is read again cell by cell, which is as
    exact, ten times slower, and can say which cell is wrong; its neighbours are not.

    Of a key that a record has twice typed rows keep the last value without a word. So the first `SEARCHED` pages are
    searched for one, and then every `SEARCHED`th: to search all would make an export a sixth dearer.
    """

    def __init__(self, entity: Entity) -> None:
        self.entity = entity
        self.unknown_fields: Counter[str] = Counter()
        self._records = 0
        self._page_numbers = itertools.count()
        self._enclosing: list[pl.DataFrame] = []
        self._columns = [column for column in entity.columns if column.api_field]
        self._rows, self._row = self._decoders()

    def decode(self, *pages: bytes) -> tuple[pl.DataFrame, list[Breach]]:
        """The rows of some pages with the columns of `spool_schema`, and the cells that break the schema."""
        with collector_paused():
            return self._decode(pages)

    def _decode(self, pages: Sequence[bytes]) -> tuple[pl.DataFrame, list[Breach]]:
        if not self.entity.elements:
            cells, rows, breaches = self._decode_rows(pages)
            frame = self._frame(cells, rows, None)
            self._records += rows
            return frame, breaches
        elements = elements_of(pages, self.entity, first_ordinal=self._records)
        self._records += len(elements.records)
        self._enclosing.append(_enclosing_records(elements))
        cells, rows, breaches = self._decode_rows([elements.page])
        return self._frame(cells, rows, elements.origins), elements.breaches + breaches

    def numbered(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows that were decoded in an earlier export, with the columns of `spool_schema`."""
        assert not self.entity.elements
        first, self._records = self._records, self._records + len(rows)
        ordinals = pl.int_range(first, self._records, dtype=pl.UInt32)
        return rows.select(*frame_schema(self.entity), ordinals.alias(RECORD))

    def enclosing_records(self) -> pl.DataFrame:
        """Ordinal, id and version of every record whose elements are this entity's rows, also of those without any."""
        return pl.concat(self._enclosing)

    def _decode_rows(self, pages: Sequence[bytes]) -> tuple[_Cells, int, list[Breach]]:
        numbered = zip(pages, self._page_numbers, strict=False)
        searched = [page for page, number in numbered if number < SEARCHED or number % SEARCHED == 0]
        if any(map(may_repeat_a_key, searched)):
            return self._decode_by_cell([raw for page in pages for raw in raw_elements(page)])
        try:
            rows = [row for page in pages for row in self._rows.decode(page)]
            return self._cells_at_once(rows, pages), len(rows), []
        except _ODD:
            return self._decode_by_row([raw for page in pages for raw in raw_elements(page)])

    def _decode_by_row(self, raws: Sequence[bytes]) -> tuple[_Cells, int, list[Breach]]:
        """Only rows that are refused by themselves are read cell by cell. All stay in their order."""
        rows = [self._decoded(raw) for raw in raws]
        plain, odd = [row for row in rows if row], [raw for row, raw in zip(rows, raws, strict=True) if not row]
        try:
            cells = self._cells_at_once(plain, [_page(raw for row, raw in zip(rows, raws, strict=True) if row)])
        except _ODD:  # a cell that fits its type and breaks a rule: the report names all such cells of the page
            return self._decode_by_cell(raws)
        odd_cells, _, breaches = self._decode_by_cell(odd)
        places = {True: itertools.count(), False: itertools.count(len(plain))}
        order = [next(places[bool(row)]) for row in rows]
        return {name: some.append(odd_cells[name]).gather(order) for name, some in cells.items()}, len(raws), breaches

    def _decoded(self, raw: bytes) -> msgspec.Struct | None:
        try:
            return self._row.decode(raw)
        except _ODD:
            return None

    def _cells_at_once(self, rows: Sequence[msgspec.Struct], pages: Sequence[bytes]) -> _Cells:
        """The `rows` of `pages` as columns. For a value that fits no column it raises one of `_ODD`."""
        by_field = list(zip(*map(msgspec.structs.astuple, rows), strict=True)) or [()] * len(self._fields)
        sent = _Sent(pages)
        cells = {
            column.name: _series(column, self._values(column, values, sent))
            for column, values in zip(self._columns, by_field, strict=False)
        }
        for name, values in zip(self._fields, by_field, strict=True):
            if name in self.unknown_fields:
                self.unknown_fields[name] += sum(value is not _NULL for value in values)
        return cells

    def _values(self, column: Column, values: Sequence[Any], sent: _Sent) -> Sequence[Value]:
        if column.is_json:
            return compact_json(column.type, values)
        if not _may_be_inexact(column, values, sent):
            return values
        pairs = zip(values, sent.rows, strict=True)
        field = _field_decoder(column.api_field or "")
        return [
            read_cell(column.type, bytes(field.decode(row).raw)) if _is_inexact(column, value) else value
            for value, row in pairs
        ]

    def _decode_by_cell(self, raws: Sequence[bytes]) -> tuple[_Cells, int, list[Breach]]:
        breaches: list[Breach] = []
        columns: list[list[Value]] = [[] for _ in self._columns]
        rows, known = raw_rows(raws, self.entity, breaches), len(self.unknown_fields)
        for row in rows:
            self._notice_unknown(row)
            for column, values in zip(self._columns, columns, strict=True):
                values.append(self._read_cell(column, row, breaches))
        if len(self.unknown_fields) > known:
            self._rows, self._row = self._decoders()
        cells = {c.name: _series(c, values) for c, values in zip(self._columns, columns, strict=True)}
        return cells, len(rows), breaches

    def _notice_unknown(self, row: RawRow) -> None:
        known = {column.api_field for column in self._columns} | self.entity.not_exported
        self.unknown_fields.update(name for name in row if name not in known)

    def _read_cell(self, column: Column, row: RawRow, breaches: list[Breach]) -> Value:
        raw = row.get(column.api_field or "", b"null")
        try:
            return read_cell(column.type, raw)
        except Unfit as unfit:
            breaches.append(Breach(row_id(row, self.entity), column.name, shown_json(raw, column), str(unfit)))
            return None

    def _decoders(self) -> tuple[msgspec.json.Decoder[list[Any]], msgspec.json.Decoder[Any]]:
        """Of pages and of one row: exported fields are typed, other known ones skipped unread, unknown ones refused."""
        exported = [column.api_field or "" for column in self._columns]
        unknown = filter(UNESCAPED.fullmatch, self.unknown_fields)
        others = sorted(self.entity.not_exported.union(unknown) - set(exported))
        self._fields = [*exported, *others]
        types = [_TYPES[column.type] for column in self._columns] + [msgspec.Raw] * len(others)
        defaults = [_NULL if type_ is msgspec.Raw else None for type_ in types]
        names = [f"field{number}" for number in range(len(types))]
        row = msgspec.defstruct(
            self.entity.name,
            list(zip(names, types, defaults, strict=True)),
            rename=dict(zip(names, self._fields, strict=True)),
            forbid_unknown_fields=True,
            gc=False,
        )
        return msgspec.json.Decoder(list.__class_getitem__(row)), msgspec.json.Decoder(row)

    def _frame(self, cells: _Cells, rows: int, origins: Sequence[Origin] | None) -> pl.DataFrame:
        constants = {column.name: column.constant for column in self.entity.columns}
        schema = spool_schema(self.entity)
        columns = {
            name: cells[name] if name in cells else pl.Series([constants.get(name)] * rows, dtype=dtype)
            for name, dtype in schema.items()
        }
        columns |= _origin_columns(self.entity, origins) if origins is not None else _ordinals(self._records, rows)
        return pl.DataFrame(columns, schema=schema)


@contextmanager
def collector_paused() -> Generator[None]:
    """Rows hold no cycles, and the collector would look at each of them more than once.

    Threads that decode at once may start it again for each other, which costs only time; it always runs in the end.
    """
    was_running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_running:
            gc.enable()


def _is_inexact(column: Column, value: Value) -> bool:
    """Whether the value no longer tells what was written: for 10.0 also 10.00000000000000000001, for 0 also -0."""
    return type(value) is float if column.type == "integer" else value == 0


class _Sent:
    """What the values of some rows were written as. It is looked at where one of them no longer tells."""

    def __init__(self, pages: Sequence[bytes]) -> None:
        self._pages = pages

    @cached_property
    def rows(self) -> Sequence[bytes]:
        return [row for page in self._pages for row in raw_elements(page)]

    @cached_property
    def has_negative_zeros(self) -> bool:
        return any(map(_NEGATIVE_ZERO.search, self._pages))


def _may_be_inexact(column: Column, values: Sequence[Value], sent: _Sent) -> bool:
    if column.type == "integer":
        return any(type(value) is float for value in values)
    return column.type == "number" and 0.0 in values and sent.has_negative_zeros


def _page(raws: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(raws) + b"]"


@cache
def _field_decoder(field: str) -> msgspec.json.Decoder[Any]:
    """Of rows: one field, as it was sent."""
    return msgspec.json.Decoder(msgspec.defstruct("Row", [("raw", msgspec.Raw, _NULL)], rename={"raw": field}))


def _series(column: Column, values: Sequence[Value]) -> pl.Series:
    return pl.Series(column.name, values, dtype=DTYPES[column.type], strict=True)


def _ordinals(first: int, rows: int) -> _Cells:
    return {RECORD: pl.Series(range(first, first + rows), dtype=pl.UInt32)}


def _origin_columns(entity: Entity, origins: Sequence[Origin]) -> _Cells:
    columns = {
        column.name: pl.Series([origin.record.fields[column.parent_field] for origin in origins], dtype=pl.String)
        for column in entity.columns
        if column.parent_field
    }
    for name in {name for _, constants in entity.elements for name, _ in constants}:
        columns[name] = pl.Series([origin.constants.get(name) for origin in origins], dtype=pl.String)
    columns[RECORD] = pl.Series([origin.record.ordinal for origin in origins], dtype=pl.UInt32)
    return columns


def _enclosing_records(elements: Elements) -> pl.DataFrame:
    rows = [(record.ordinal, record.fields["id"], record.version) for record in elements.records]
    schema = {RECORD: pl.UInt32, RECORD_ID: pl.String, RECORD_VERSION: pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")
