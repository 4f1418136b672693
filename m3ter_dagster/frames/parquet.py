"""The Parquet of an export: typed columns, compressed with zstd, in row groups of bounded size."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import polars as pl
import pyarrow as pa
from pyarrow import parquet

from m3ter_dagster.frames.format import AS_THEY_ARE, LONGEST_REASON, Unreadable, counted
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import Table

GROUP_ROWS, GROUP_BYTES = 20_000, 32 << 20
"""A row group ends with the row that reaches one of these; the bytes are those of its texts."""
_BATCH_ROWS = 10_000
_TYPES: Mapping[str, pa.DataType] = {
    "array": pa.json_(pa.large_string()),
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "object": pa.json_(pa.large_string()),
    "string": pa.large_string(),
}
_TEXTS = ("array", "object", "string")


@dataclass(frozen=True)
class Parquet:
    """Numbers are doubles, integers have 64 bits; times stay text, as do objects and arrays: of the logical type JSON.

    Pyarrow writes it: polars writes whole files only, and no logical type JSON.
    """

    name: ClassVar[str] = "Parquet"
    suffix: ClassVar[str] = "parquet"
    media_type: ClassVar[str] = "application/vnd.apache.parquet"
    content_type: ClassVar[str] = media_type
    cells: ClassVar[str] = AS_THEY_ARE

    def write(self, parts: Iterable[pl.LazyFrame], table: Table, path: Path) -> int:
        schema = pa.schema([(column.name, _TYPES[column.type]) for column in table.columns])
        parts = list(parts)
        # Without Arrow's own schema beside it a reader sees what every program sees.
        with parquet.ParquetWriter(
            path, schema, compression="zstd", write_page_checksum=True, store_schema=False
        ) as writer:
            for group in _groups(parts, schema.names):
                writer.write_table(group.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema))
        expected = sum(part.select(pl.len()).collect().item() for part in parts)
        return counted(self, path, table, expected=expected)

    def count(self, path: Path) -> int:
        """Counts the cells of the first column, and does not believe the file's own number."""
        with _opened(path) as file:
            return sum(batch.num_rows for batch in _batches(file, file.schema_arrow.names[:1]))

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
        """Scan the file; polars knows no logical type JSON, and takes such text for bytes."""
        schema = frame_schema(table)
        return pl.scan_parquet(path).select(pl.col(name).cast(type) for name, type in schema.items())

    def names(self, path: Path) -> list[str]:
        with _opened(path) as file:
            return file.schema_arrow.names

    def texts(self, path: Path, types: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        with _opened(path) as file:
            for name, type in types.items():
                found = file.schema_arrow.field(name).type
                if type in _TEXTS and not (pa.types.is_string(found) or pa.types.is_large_string(found)):
                    raise Unreadable(f"the column {name} is {found} and should be text")
            for batch in _batches(file, list(types)):
                yield pl.DataFrame(batch).cast(pl.String)


@contextmanager
def _opened(path: Path) -> Generator[parquet.ParquetFile]:
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True, arrow_extensions_enabled=False) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(" ".join(str(error).split())[:LONGEST_REASON]) from None


def _batches(file: parquet.ParquetFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    return file.iter_batches(_BATCH_ROWS, columns=names, use_threads=False)


def _groups(parts: Iterable[pl.LazyFrame], names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The rows of all parts, a row group at a time: where a part ends makes no difference."""
    waiting = pl.DataFrame()
    for part in parts:
        for some in part.select(names).collect_batches(chunk_size=_BATCH_ROWS):
            waiting = pl.concat([waiting, some]) if len(waiting) else some
            while rows := _rows_of_a_group(waiting):
                yield waiting.head(rows)
                waiting = waiting.tail(-rows)
    if len(waiting):
        yield waiting


def _rows_of_a_group(rows: pl.DataFrame) -> int:
    """How many of these rows make a row group; 0 if more are needed."""
    sizes = rows.select(pl.sum_horizontal(pl.col(pl.String).str.len_bytes()).cum_sum()).to_series()
    enough = int((sizes < GROUP_BYTES).sum()) + 1
    rows_at_most = min(enough, GROUP_ROWS)
    return rows_at_most if rows_at_most <= len(rows) else 0
