"""What each cell of a delivered file must be, as expressions over columns of text. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl

from m3ter_dagster.verification.data_package import Field, Schema


@dataclass(frozen=True)
class Rule:
    """A rule for a column. `broken` is true where the cell breaks it, and never null."""

    check: str
    column: str
    says: str
    broken: pl.Expr


def rules(schema: Schema) -> list[Rule]:
    return [rule for field in schema.fields for rule in _rules(field, is_key=field.name == schema.primary_key)]


def _rules(field: Field, *, is_key: bool) -> Iterator[Rule]:
    cell = pl.col(field.name)
    check = "primary key" if is_key else "cells"
    if is_key or field.constraints.required:
        yield Rule(check, field.name, "must not be missing", cell.is_null())
    if is_key or field.constraints.min_length:
        yield Rule(check, field.name, "must not be empty", (cell == "").fill_null(False))
    if known := field.constraints.enum:
        yield Rule(check, field.name, f"must be one of {', '.join(known)}", ~cell.is_in(known).fill_null(True))
    if field.type in _READABLE:
        says, readable = _READABLE[field.type]
        yield Rule("cells", field.name, says, cell.is_not_null() & ~readable(cell).fill_null(False))


def _is_boolean(cell: pl.Expr) -> pl.Expr:
    return cell.is_in(["true", "false"])


def _is_integer(cell: pl.Expr) -> pl.Expr:
    return cell.cast(pl.Int64, strict=False).is_not_null()


def _is_number(cell: pl.Expr) -> pl.Expr:
    return cell.cast(pl.Float64, strict=False).is_finite()


def _is_json(kind: Any) -> Callable[[pl.Expr], pl.Expr]:
    """Whether a text is JSON of this `kind`, whose parts are Raw: numbers may have more digits than Python keeps."""
    decoder = msgspec.json.Decoder(kind)

    def reads(text: str | None) -> bool | None:
        try:
            return None if text is None else decoder.decode(text) is not None
        except (msgspec.MsgspecError, RecursionError):
            return False

    def read(cells: pl.Series) -> pl.Series:
        return pl.Series(cells.name, [reads(text) for text in cells], dtype=pl.Boolean)

    return lambda cell: cell.map_batches(read, return_dtype=pl.Boolean, is_elementwise=True)


_READABLE: Mapping[str, tuple[str, Callable[[pl.Expr], pl.Expr]]] = {
    "array": ("must be a JSON array", _is_json(list[msgspec.Raw])),
    "boolean": ("must be true or false", _is_boolean),
    "integer": ("must be a whole number of 64 bits", _is_integer),
    "number": ("must be a number", _is_number),
    "object": ("must be a JSON object", _is_json(dict[str, msgspec.Raw])),
}
