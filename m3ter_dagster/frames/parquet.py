"""The Parquet of an export: typed columns, compressed with zstd, in row groups of bounded size."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import polars as pl
import pyarrow as pa
from pyarrow import parquet

from m3ter_dagster.frames.format import AS_THEY_ARE, LONGEST_REASON, Unreadable, counted
from m3ter_dagster.frames.schema import Breach, SchemaBreached, frame_schema, shown
from m3ter_dagster.frames.times import EXAMPLES, digits_of_fractions, time_in, time_text
from m3ter_dagster.model.entity import DATE, DATE_TIME, Table

GROUP_ROWS, GROUP_BYTES = 10_000, 16 << 20
"""A row group ends with the row that reaches one of these; the bytes are those of its texts."""
_BATCH_ROWS = 10_000
# Texts are views, as polars has them: anything else is a copy of every text.
_TYPES: Mapping[str, pa.DataType] = {
    "array": pa.json_(pa.string_view()),
    "boolean": pa.bool_(),
    DATE: pa.date32(),
    DATE_TIME: pa.timestamp("us", tz="UTC"),
    "integer": pa.int64(),
    "number": pa.float64(),
    "object": pa.json_(pa.string_view()),
    "string": pa.string_view(),
}
_TEXTS = ("array", "object", "string")
_FIRST_AND_LAST: Mapping[str, tuple[date, date]] = {
    DATE: (date.min, date.max),
    DATE_TIME: (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
}
_FRACTIONS = "m3ter:fractions"
"""In the metadata of a typed file: by column, how many digits the fractions of seconds had in the texts."""


@dataclass(frozen=True)
class Parquet:
    """Numbers are doubles, integers have 64 bits; objects and arrays are text of the logical type JSON.

    Times stay text unless `is_typed`, and are text again when read. Pyarrow writes it: polars writes whole files only,
    and no logical type JSON.
    """

    is_typed: bool = False
    name: ClassVar[str] = "Parquet"
    suffix: ClassVar[str] = "parquet"
    media_type: ClassVar[str] = "application/vnd.apache.parquet"
    content_type: ClassVar[str] = media_type
    cells: ClassVar[str] = AS_THEY_ARE

    def write(self, parts: Iterable[pl.LazyFrame], table: Table, path: Path) -> int:
        """SchemaBreached if `is_typed` and a text that should be a time is none."""
        times = _Times(table, self.is_typed)
        schema = pa.schema([(one.name, _TYPES[times.formats.get(one.name, one.type)]) for one in table.columns])
        parts = list(parts)
        # Without Arrow's own schema beside it a reader sees what every program sees.
        with parquet.ParquetWriter(
            path, schema, compression="zstd", write_page_checksum=True, store_schema=False
        ) as writer:
            for group in _groups(parts, schema.names):
                rows = times.typed(group).to_arrow(compat_level=pl.CompatLevel.newest())
                writer.write_table(rows.cast(schema))
                del group, rows  # else they stay in memory while the next group is read
            writer.add_key_value_metadata(times.metadata)
        expected = sum(part.select(pl.len()).collect().item() for part in parts)
        return counted(self, path, table, expected=expected)

    def count(self, path: Path) -> int:
        """Counts the cells of the first column, and does not believe the file's own number."""
        with _opened(path) as file:
            return sum(batch.num_rows for batch in _batches(file, file.schema_arrow.names[:1]))

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
        """Scan the file; polars knows no logical type JSON, and takes such text for bytes."""
        frame, texts = pl.scan_parquet(path), _texts_of_times(pl.read_parquet_metadata(path))
        types = frame.collect_schema()
        return frame.select(
            texts(name, types[name]) if types[name].is_temporal() else pl.col(name).cast(type)
            for name, type in frame_schema(table).items()
        )

    def names(self, path: Path) -> list[str]:
        with _opened(path) as file:
            return file.schema_arrow.names

    def texts(self, path: Path, types: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        with _opened(path) as file:
            for name, type in types.items():
                found = file.schema_arrow.field(name).type
                if not _may_be(type, found):
                    raise Unreadable(f"the column {name} is {found} and should be {'text' if type in _TEXTS else type}")
            metadata = file.metadata.metadata or {}
            texts = _texts_of_times({name.decode(): value.decode() for name, value in metadata.items()})
            for batch in _batches(file, list(types)):
                batch.validate(full=True)  # polars panics at text that is no UTF-8
                rows = pl.DataFrame(batch)
                _check_years(rows)
                yield rows.select(
                    texts(name, type) if type.is_temporal() else pl.col(name).cast(pl.String)
                    for name, type in rows.schema.items()
                )


def _may_be(type: str, found: pa.DataType) -> bool:
    """Whether a column of this type in the words of Table Schema may hold what was found: its cells can be texts."""
    if pa.types.is_string(found) or pa.types.is_large_string(found):
        return True
    others = (DATE, DATE_TIME) if type == "string" else () if type in _TEXTS else ("boolean", "integer", "number")
    return found in [_TYPES[one] for one in others]


def _check_years(rows: pl.DataFrame) -> None:
    """Unreadable if a time is of no year from 1 to 9999, of which there is no text: polars panics at such times."""
    for column in rows.select(pl.selectors.temporal()):
        first, last = _FIRST_AND_LAST[DATE if column.dtype == pl.Date else DATE_TIME]
        if not column.drop_nulls().is_between(first, last).all():
            raise Unreadable(f"the column {column.name} has a time of no year from 1 to 9999")


class _Times:
    """The columns of a table that are written as dates and times: none unless `is_typed`."""

    def __init__(self, table: Table, is_typed: bool) -> None:
        self._table = table
        self._columns = [one for one in table.columns if one.format and is_typed]
        self._fractions: dict[str, set[int]] = {one.name: set() for one in self._columns if one.format == DATE_TIME}
        self.formats = {one.name: str(one.format) for one in self._columns}

    def typed(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows with times in the place of texts. SchemaBreached if one is none."""
        typed = rows.with_columns(time_in(one) for one in self._columns)
        breaches = [
            Breach(row_id, one.name, shown(value, one), f"must be a {one.format} such as {EXAMPLES[str(one.format)]}")
            for one in self._columns
            if typed[one.name].null_count() > rows[one.name].null_count()
            for row_id, value in self._misfits(rows, typed, one.name)
        ]
        if breaches:
            what = "exports.yaml says typed: true, and m3ter sent a text that is no time"
            advice = "Leave typed out, and the texts are delivered as they are."
            raise SchemaBreached(self._table.name, breaches, len(breaches), what=what, advice=advice)
        for name, found in self._fractions.items():
            found |= set(rows.select(digits_of_fractions(name)).to_series().drop_nulls().unique())
        return typed

    def _misfits(self, rows: pl.DataFrame, typed: pl.DataFrame, name: str) -> Iterator[tuple[str | None, str]]:
        misfits = rows.filter(typed[name].is_null() & rows[name].is_not_null())
        key = self._table.primary_key
        return misfits.select(pl.col(key) if key else pl.lit(None), value=name).iter_rows()

    @property
    def metadata(self) -> dict[str, str]:
        if not self._columns:
            return {}
        return {_FRACTIONS: json.dumps({name: sorted(found) for name, found in self._fractions.items()})}


def _texts_of_times(metadata: Mapping[str, str]) -> Callable[[str, pl.DataType], pl.Expr]:
    """How the columns of a typed file that has this metadata become text, by their names and types. Unreadable."""
    try:
        fractions = msgspec.json.decode(metadata.get(_FRACTIONS, "{}"), type=dict[str, list[Literal[0, 3, 6]]])
    except msgspec.MsgspecError as error:
        raise Unreadable(f"what it says in {_FRACTIONS} of its times is not so: {error}") from None
    return lambda name, type: time_text(name, None if type == pl.Date else fractions.get(name, []))


@contextmanager
def _opened(path: Path) -> Generator[parquet.ParquetFile]:
    try:
        with parquet.ParquetFile(path, page_checksum_verification=True, arrow_extensions_enabled=False) as file:
            yield file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Unreadable(" ".join(str(error).split())[:LONGEST_REASON]) from None


def _batches(file: parquet.ParquetFile, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Row group by row group: pyarrow keeps all that it was asked for at once until the last batch."""
    for group in range(file.num_row_groups):
        yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names, use_threads=False)


def _groups(parts: Iterable[pl.LazyFrame], names: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The rows of all parts, a row group at a time: where a part ends makes no difference."""
    waiting = pl.DataFrame()
    for part in parts:
        for some in part.select(names).collect_batches(chunk_size=_BATCH_ROWS):
            waiting = pl.concat([waiting, some]) if len(waiting) else some
            while rows := _rows_of_a_group(waiting):
                yield waiting.head(rows).rechunk()  # pyarrow ends pages where chunks end
                waiting = waiting.tail(-rows)
    if len(waiting):
        yield waiting.rechunk()


def _rows_of_a_group(rows: pl.DataFrame) -> int:
    """How many of these rows make a row group; 0 if more are needed."""
    sizes = rows.select(pl.sum_horizontal(pl.col(pl.String).str.len_bytes()).cum_sum()).to_series()
    enough = int((sizes < GROUP_BYTES).sum()) + 1
    rows_at_most = min(enough, GROUP_ROWS)
    return rows_at_most if rows_at_most <= len(rows) else 0
