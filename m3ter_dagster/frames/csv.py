"""The CSV of an export. UTF-8, comma, \\n, null as an empty field, an empty text as "", no compression."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import Column, Table

_CHUNK_BYTES = 1 << 20
_FORMULA = r"^[=+\-@\t\r]"
"""What spreadsheets take for the start of a formula (OWASP, CSV injection)."""


class RowsLost(Exception):
    """The finished file does not hold the rows of its frame."""

    def __init__(self, entity: str, *, expected: int, found: int) -> None:
        super().__init__(f"the CSV of {entity} holds {found:,} rows instead of {expected:,}; it is not delivered.")


def write_csv(frame: pl.LazyFrame, table: Table, path: Path, *, escape_formulas: bool = False) -> int:
    """Write the whole frame to `path`, read it back, and return its number of rows.

    Cells are data, also those that a spreadsheet would take for a formula, unless `escape_formulas`. The names are
    quoted: DuckDB takes the first rows to say whether a file quotes at all.
    """
    header = ",".join('"' + column.name.replace('"', '""') + '"' for column in table.columns)
    with path.open("wb") as file:
        file.write(f"{header}\n".encode())
        file.flush()
        written = [_written(column, escape_formulas=escape_formulas) for column in table.columns]
        frame.select(written).sink_csv(file, include_header=False)
    expected = frame.select(pl.len()).collect().item()
    found = count_rows(path)
    if found != expected:
        raise RowsLost(table.name, expected=expected, found=found)
    return expected


def count_rows(path: Path) -> int:
    """The rows below the header: line ends outside quotes, where a doubled quote closes and opens again."""
    return sum(part.count(b"\n") for part in outside_quotes(path)) - 1


def outside_quotes(path: Path) -> Iterator[bytes]:
    """What stands outside quotes, some bytes at a time."""
    is_quoted = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            parts = chunk.split(b'"')
            yield b"".join(parts[is_quoted::2])
            is_quoted ^= (len(parts) - 1) % 2


def read_csv(path: Path, table: Table) -> pl.LazyFrame:
    """A delivered file as the frame that it was written from; objects and arrays are their JSON text."""
    return pl.scan_csv(path, schema=frame_schema(table))


def _written(column: Column, *, escape_formulas: bool) -> pl.Expr:
    value = pl.col(column.name)
    if escape_formulas and column.type == "string":
        escaped = pl.concat_str(pl.lit("'"), value)
        return pl.when(value.str.contains(_FORMULA)).then(escaped).otherwise(value).alias(column.name)
    if not column.whole_without_fraction:
        return value
    return value.map_elements(_shortest, return_dtype=pl.String).alias(column.name)


def _shortest(value: float) -> str:
    """10.0 is 10 and 2.5 is 2.5."""
    return str(int(value)) if value == int(value) else repr(value)
