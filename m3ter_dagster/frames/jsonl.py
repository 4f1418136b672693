"""The JSONL of an export: a JSON object per row and line, with every column in its order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import polars as pl
from polars.io.plugins import register_io_source

from m3ter_dagster.frames.csv import shortest
from m3ter_dagster.frames.decoding import UNESCAPED, collector_paused
from m3ter_dagster.frames.format import AS_THEY_ARE, Unreadable, counted
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.frames.text_file import GZIP, GZIP_TYPE, created, opened
from m3ter_dagster.model.entity import Column, Table

_CHUNK_BYTES = 1 << 20
_LINES_BYTES = 8 << 20
"""About so many bytes of lines are decoded at once."""
_TYPES: Mapping[str, Any] = {
    "array": msgspec.Raw,
    "boolean": bool | None,
    "integer": int | None,
    "number": float | None,
    "object": msgspec.Raw,
    "string": str | None,
}
_AS_TEXT: Mapping[str, Any] = {**dict.fromkeys(_TYPES, msgspec.Raw), "string": str | None}
_DAMAGED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True)
class JsonLines:
    """Objects and arrays are JSON in the line, as m3ter sent them: numbers with every digit."""

    name: ClassVar[str] = "JSONL"
    media_type: ClassVar[str] = "application/jsonl"
    cells: ClassVar[str] = AS_THEY_ARE

    is_compressed: bool = False

    @property
    def suffix(self) -> str:
        return f"jsonl.{GZIP}" if self.is_compressed else "jsonl"

    @property
    def content_type(self) -> str:
        return GZIP_TYPE if self.is_compressed else self.media_type

    def write(self, parts: Iterable[pl.LazyFrame], table: Table, path: Path) -> int:
        """Polars writes the lines, as the only column of a CSV whose cells are never quoted."""
        expected, lines = 0, pl.concat_str(list(_pieces(table.columns)))
        with created(path, is_compressed=self.is_compressed) as file:
            for part in parts:
                part.select(lines.alias("line")).sink_csv(file, include_header=False, quote_style="never")
                expected += part.select(pl.len()).collect().item()
        return counted(self, path, table, expected=expected)

    def count(self, path: Path) -> int:
        lines = 0
        with opened(path, is_compressed=self.is_compressed) as file:
            while chunk := file.read(_CHUNK_BYTES):
                lines += chunk.count(b"\n")
        return lines

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
        """Scan the file. Polars' own reader would write objects and arrays anew, with fewer digits."""
        types = {column.name: column.type for column in table.columns}
        schema = frame_schema(table)

        def source(
            columns: list[str] | None, predicate: pl.Expr | None, most: int | None, _batch: int | None
        ) -> Iterator[pl.DataFrame]:
            # A column that is only filtered by is among the columns.
            wanted = {name: types[name] for name in (types if columns is None else columns)}
            for cells in self._cells(path, wanted, _TYPES, is_strict=False):
                frame = pl.DataFrame(cells, schema={name: schema[name] for name in wanted})
                frame = frame if most is None else frame.head(most)
                most = None if most is None else most - len(frame)
                yield frame if predicate is None else frame.filter(predicate)
                if most == 0:
                    return

        return register_io_source(source, schema=schema, is_pure=True)

    def names(self, path: Path) -> list[str] | None:
        with opened(path, is_compressed=self.is_compressed) as file:
            line = file.readline()
        if not line:
            return None
        try:
            first = json.loads(line, object_pairs_hook=lambda pairs: [name for name, _ in pairs])
        except (ValueError, RecursionError):
            raise Unreadable("its first line is no JSON") from None
        if not line.startswith(b"{"):
            raise Unreadable("its first line is no JSON object")
        return first

    def texts(self, path: Path, types: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        for cells in self._cells(path, types, _AS_TEXT, is_strict=True):
            yield pl.DataFrame(cells, schema=dict.fromkeys(types, pl.String))

    def _cells(
        self, path: Path, types: Mapping[str, str], as_: Mapping[str, Any], *, is_strict: bool
    ) -> Iterator[dict[str, Sequence[Any]]]:
        """The columns of some lines at a time. `is_strict` refuses a line that has others, too."""
        decode, rows = _decoder({name: as_[type] for name, type in types.items()}, is_strict=is_strict), 0
        with opened(path, is_compressed=self.is_compressed) as file:
            while lines := file.readlines(_LINES_BYTES):
                try:
                    with collector_paused():
                        decoded = decode(b"".join(lines))
                    columns = list(zip(*decoded, strict=True)) or [()] * len(types)
                    yield {
                        name: [_text(value) for value in values] if as_[type] is msgspec.Raw else values
                        for (name, type), values in zip(types.items(), columns, strict=True)
                    }
                except _DAMAGED as error:
                    raise Unreadable(f"{error} (counted from row {rows + 1:,})") from None
                rows += len(decoded)


def _decoder(types: Mapping[str, Any], *, is_strict: bool) -> Callable[[bytes], list[tuple[Any, ...]]]:
    """What decodes lines to the values of these columns, row by row."""
    if not all(map(UNESCAPED.fullmatch, types)):
        return partial(_decode_any_names, types, is_strict=is_strict)
    fields = [(f"field{number}", type) for number, type in enumerate(types.values())]
    names = dict(zip((name for name, _ in fields), types, strict=True))
    row = msgspec.defstruct("Row", fields, rename=names, forbid_unknown_fields=is_strict, gc=False)
    decoder = msgspec.json.Decoder(row)
    return lambda lines: [msgspec.structs.astuple(one) for one in decoder.decode_lines(lines)]


def _decode_any_names(types: Mapping[str, Any], lines: bytes, *, is_strict: bool) -> list[tuple[Any, ...]]:
    """Slower, and for names too that hold quotes or backslashes, of which msgspec wants no field."""
    decoders = {name: msgspec.json.Decoder(type) for name, type in types.items()}
    found = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode_lines(lines)
    for row in found:
        if not types.keys() <= row.keys() or (is_strict and len(row) > len(types)):
            raise Unreadable("a row has other columns")
    return [tuple(decoder.decode(row[name]) for name, decoder in decoders.items()) for row in found]


def _pieces(columns: Sequence[Column]) -> Iterator[pl.Expr]:
    """The texts that make a line. Neighbouring columns that polars can write as JSON are written together."""
    before, together = "{", list[str]()
    for column in columns:
        is_written = column.is_json or column.whole_without_fraction
        if together and is_written:
            yield from (pl.lit(before), _members(together))
            before, together = ",", []
        if is_written:
            text = pl.col(column.name) if column.is_json else shortest(column)
            yield from (pl.lit(f"{before}{json.dumps(column.name, ensure_ascii=False)}:"), text.fill_null("null"))
            before = ","
        else:
            together.append(column.name)
    yield from (pl.lit(before), _members(together)) if together else ()
    yield pl.lit("}")


def _members(names: Sequence[str]) -> pl.Expr:
    """The columns as members of a JSON object, without its braces."""
    return pl.struct(names).struct.json_encode().str.slice(1).str.head(-1)


def _text(value: msgspec.Raw) -> str | None:
    text = bytes(value).decode()
    return None if text == "null" else text
