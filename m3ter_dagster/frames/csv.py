"""The CSV of an export. UTF-8, comma, \\n, null as an empty field, an empty text as ""."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl

from m3ter_dagster.frames.format import AS_THEY_ARE, LONGEST_REASON, Unreadable, counted
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.frames.text_file import GZIP, GZIP_TYPE, created, opened
from m3ter_dagster.model.entity import Column, Table

_CHUNK_BYTES = 1 << 20
_FORMULA = r"^[=+\-@\t\r]"
"""What spreadsheets read as the start of a formula (OWASP, CSV injection)."""

LONGEST_ROW = 2 * 1024 * 1024
"""The most bytes that a row of a file may have of which the cells are looked at as text."""
LONGEST_HEADER = 1024 * 1024


@dataclass(frozen=True)
class Csv:
    """Writes cells as they are, or with `escape_formulas` so that a spreadsheet reads none as a formula."""

    name: ClassVar[str] = "CSV"
    media_type: ClassVar[str] = "text/csv"

    escape_formulas: bool = False
    is_compressed: bool = False

    @property
    def suffix(self) -> str:
        return f"csv.{GZIP}" if self.is_compressed else "csv"

    @property
    def content_type(self) -> str:
        return GZIP_TYPE if self.is_compressed else "text/csv; charset=utf-8"

    @property
    def cells(self) -> str:
        return "with formulas escaped" if self.escape_formulas else AS_THEY_ARE

    def write(self, parts: Iterable[pl.LazyFrame], table: Table, path: Path) -> int:
        """Write the file. Names in its header are quoted: DuckDB judges by the first rows whether a file has quotes.

        Part by part, since polars reads the rows of one frame faster than it writes them, and keeps what has to wait.
        """
        header = ",".join('"' + column.name.replace('"', '""') + '"' for column in table.columns)
        written = [_written(column, escape_formulas=self.escape_formulas) for column in table.columns]
        expected = 0
        with created(path, is_compressed=self.is_compressed) as file:
            file.write(f"{header}\n".encode())
            for part in parts:
                file.flush()
                part.select(written).sink_csv(file, include_header=False)
                expected += part.select(pl.len()).collect().item()
        return counted(self, path, table, expected=expected)

    def count(self, path: Path) -> int:
        """Counts the rows below the header: line ends outside quotes, where a doubled quote closes and opens again."""
        lines, quotes = 0, 0
        with opened(path, is_compressed=self.is_compressed) as file:
            while chunk := file.read(_CHUNK_BYTES):
                *ended, rest = chunk.split(b"\n")
                for line in ended:
                    quotes += line.count(b'"')
                    lines += not quotes & 1
                quotes += rest.count(b'"')
        return max(lines - 1, 0)

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
        """Scan the file. Polars reads a quote in a header's name as the two that stand for it."""
        schema = frame_schema(table)
        seen = {name.replace('"', '""'): name for name in schema}
        frame = pl.scan_csv(path, schema={name: schema[ours] for name, ours in seen.items()})
        return frame.rename({name: ours for name, ours in seen.items() if name != ours})

    def names(self, path: Path) -> list[str]:
        """The header, in which a name may have a line break if a meter's field does. Unreadable if it never ends."""
        with opened(path, is_compressed=self.is_compressed) as file:
            start = file.read(LONGEST_HEADER).decode("utf-8", "replace")
        try:
            return next(csv.reader(io.StringIO(start, newline="")), [])
        except csv.Error:
            words = f"its header has a name of more than {csv.field_size_limit():,} characters"
            raise Unreadable(words) from None

    def texts(self, path: Path, types: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        """The rows below the header. Pyarrow reads them, because it refuses short rows and maps no memory."""
        import pyarrow as pa  # here, since that takes a tenth of a second
        from pyarrow import csv as arrow_csv

        names = list(types)
        how = {
            "read_options": arrow_csv.ReadOptions(column_names=names, skip_rows_after_names=1, block_size=LONGEST_ROW),
            "parse_options": arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            "convert_options": arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],  # an empty field is null, and "" is not
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        }
        with opened(path, is_compressed=self.is_compressed) as file:
            if not file.read(1):
                return
            file.seek(0)
            try:
                for batch in arrow_csv.open_csv(file, **how):
                    yield pl.DataFrame(batch)
            except pa.ArrowInvalid as error:
                raise Unreadable(" ".join(str(error).split())[:LONGEST_REASON]) from None


def _written(column: Column, *, escape_formulas: bool) -> pl.Expr:
    value = pl.col(column.name)
    if escape_formulas and column.type == "string":
        escaped = pl.concat_str(pl.lit("'"), value)
        return pl.when(value.str.contains(_FORMULA)).then(escaped).otherwise(value).alias(column.name)
    return shortest(column) if column.whole_without_fraction else value


def shortest(column: Column) -> pl.Expr:
    """The numbers of a column in their shortest form, as text: 10.0 becomes 10, and 2.5 stays 2.5."""
    return pl.col(column.name).map_elements(_shortest, return_dtype=pl.String)


def _shortest(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)
