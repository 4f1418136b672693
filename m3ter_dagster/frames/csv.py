"""The CSV of an export. UTF-8, comma, \\n, null as an empty field, an empty text as "", no compression."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from m3ter_dagster.frames.format import RowsLost
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import Column, Table

_CHUNK_BYTES = 1 << 20
_FORMULA = r"^[=+\-@\t\r]"
"""What spreadsheets read as the start of a formula (OWASP, CSV injection)."""


@dataclass(frozen=True)
class Csv:
    """Writes cells as they are, or with `escape_formulas` so that a spreadsheet reads none as a formula."""

    name: ClassVar[str] = "CSV"
    suffix: ClassVar[str] = "csv"
    content_type: ClassVar[str] = "text/csv; charset=utf-8"

    escape_formulas: bool = False

    def write(self, parts: Iterable[pl.LazyFrame], table: Table, path: Path) -> int:
        """Write the file. Names in its header are quoted: DuckDB judges by the first rows whether a file has quotes.

        Part by part, since polars reads the rows of one frame faster than it writes them, and keeps what has to wait.
        """
        header = ",".join('"' + column.name.replace('"', '""') + '"' for column in table.columns)
        written = [_written(column, escape_formulas=self.escape_formulas) for column in table.columns]
        expected = 0
        with path.open("wb") as file:
            file.write(f"{header}\n".encode())
            for part in parts:
                file.flush()
                part.select(written).sink_csv(file, include_header=False)
                expected += part.select(pl.len()).collect().item()
        found = self.count(path)
        if found != expected:
            raise RowsLost(self.name, table.name, expected=expected, found=found)
        return found

    def count(self, path: Path) -> int:
        """Counts the rows below the header: line ends outside quotes, where a doubled quote closes and opens again."""
        lines, quotes = 0, 0
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                *ended, rest = chunk.split(b"\n")
                for line in ended:
                    quotes += line.count(b'"')
                    lines += not quotes & 1
                quotes += rest.count(b'"')
        return lines - 1

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
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
    """The number in its shortest form: 10.0 becomes 10, and 2.5 stays 2.5."""
    return str(int(value)) if value == int(value) else repr(value)
