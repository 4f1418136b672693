"""Every byte of a CSV: by the letter of RFC 4180, quoted only where it must be, numbers in their shortest form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from api_rows import UNHURRIED
from hypothesis import given
from hypothesis import strategies as st
from typed_frames import ANY_FRAME, complete

from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Column, Entity

AGGREGATION, BALANCE, METER = (entities()[name] for name in ("aggregation", "balance", "meter"))

Cell = str | None
"""A field as it stands in the file: None is an empty one, "" is two quotes."""


def write(frame: pl.DataFrame, entity: Entity, folder: Path) -> Path:
    path = folder / f"{entity.name}.csv"
    Csv().write([frame.lazy()], entity, path)
    return path


def read_strictly(text: str) -> list[list[Cell]]:
    """Every record of the file; anything that RFC 4180 does not know is refused."""
    records: list[list[Cell]] = []
    position = 0
    while position < len(text):
        record, position = _record(text, position)
        records.append(record)
    return records


def _record(text: str, position: int) -> tuple[list[Cell], int]:
    cells: list[Cell] = []
    while True:
        cell, position = _quoted(text, position + 1) if text[position] == '"' else _plain(text, position)
        cells.append(cell)
        assert text[position] in ",\n", f"{text[position]!r} after a cell"
        if text[position] == "\n":
            return cells, position + 1
        position += 1


def _plain(text: str, position: int) -> tuple[Cell, int]:
    end = min(found for mark in ",\n" if (found := text.find(mark, position)) >= 0)
    cell = text[position:end]
    assert not set(cell) & set('"\r'), f"{cell!r} is not quoted"
    return cell or None, end


def _quoted(text: str, position: int) -> tuple[Cell, int]:
    parts: list[str] = []
    while True:
        end = text.index('"', position)
        parts.append(text[position:end])
        if text[end : end + 2] != '""':
            return "".join(parts), end + 1
        parts.append('"')
        position = end + 2


def cells_of(row: dict[str, Any], entity: Entity) -> Iterator[Any]:
    """What the cells of a row have to mean."""
    for column in entity.columns:
        value = row[column.name]
        yield str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int) else value


def meaning(cell: Cell, column: Column) -> Any:
    return float(cell) if cell is not None and column.type == "number" else cell


@UNHURRIED
@given(drawn=ANY_FRAME)
def test_any_frame_is_written_to_the_letter_of_rfc_4180(
    drawn: tuple[Entity, pl.DataFrame], shared_folder: Path
) -> None:
    entity, frame = drawn
    path = write(frame, entity, shared_folder)
    header, *records = read_strictly(path.read_bytes().decode("utf-8"))
    assert header == frame.columns
    assert len(records) == len(frame)
    for row, record in zip(frame.iter_rows(named=True), records, strict=True):
        found = [meaning(cell, column) for cell, column in zip(record, entity.columns, strict=True)]
        assert found == list(cells_of(row, entity))


@UNHURRIED
@given(amounts=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_a_float_keeps_its_value_in_the_shortest_form(amounts: list[float], shared_folder: Path) -> None:
    frame = pl.DataFrame({"id": ["x"] * len(amounts), "amount": amounts})
    path = write(complete(frame, BALANCE), BALANCE, shared_folder)
    column = list(frame_schema(BALANCE)).index("amount")
    texts = [str(record[column]) for record in read_strictly(path.read_text(encoding="utf-8"))[1:]]
    assert [repr(float(text)) for text in texts] == [repr(amount) for amount in amounts]
    assert repr(Csv().read(path, BALANCE).collect()["amount"].to_list()) == repr(amounts)
    for text, amount in zip(texts, amounts, strict=True):
        assert digits(text) == digits(repr(amount))
        assert "." in text or "e" in text


def digits(number: str) -> str:
    """The digits that count."""
    return number.split("e")[0].replace(".", "").strip("-0")


@pytest.mark.parametrize("entity", entities().values(), ids=lambda entity: entity.name)
def test_the_header_is_quoted_and_stands_in_an_empty_file_too(entity: Entity, tmp_path: Path) -> None:
    path = write(complete(pl.DataFrame({"id": []}), entity), entity, tmp_path)
    assert path.read_bytes() == (",".join(f'"{column.name}"' for column in entity.columns) + "\n").encode()


def test_a_quote_in_the_name_of_a_column_is_doubled(tmp_path: Path) -> None:
    """Customers name the columns of measurements."""
    table = replace(METER, columns=(replace(METER.columns[0], name='6" pipes'),))
    assert write(pl.DataFrame({'6" pipes': ["a"]}), table, tmp_path).read_bytes() == b'"6"" pipes"\na\n'


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        (None, b""),
        ("", b'""'),
        (" ", b" "),
        ("plain", b"plain"),
        ("a b", b"a b"),
        ("null", b"null"),
        ("a,b", b'"a,b"'),
        ('a"b', b'"a""b"'),
        ("a\nb", b'"a\nb"'),
        ("a\r\nb", b'"a\r\nb"'),
        ("a\rb", b'"a\rb"'),
        ("é🚀", "é🚀".encode()),
        ("=1+1", b"=1+1"),
        ("a\\b", b"a\\b"),
    ],
)
def test_a_text_is_quoted_only_where_it_must_be(tmp_path: Path, text: str | None, cell: bytes) -> None:
    frame = complete(pl.DataFrame({"id": ["x"], "name": [text]}, schema={"id": pl.String, "name": pl.String}), METER)
    line = write(frame, METER, tmp_path).read_bytes().split(b"\n", 1)[1]
    assert line == b"x,," + cell + b"," * (len(METER.columns) - 3) + b"\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10.0, "10"),
        (0.0, "0"),
        (-0.0, "0"),
        (-3.0, "-3"),
        (2.5, "2.5"),
        (0.1, "0.1"),
        (1e-7, "1e-07"),
        (9007199254740993.0, "9007199254740992"),
        (1e16, "10000000000000000"),
        (123456.75, "123456.75"),
        (None, None),
    ],
)
def test_a_number_documented_as_integer_has_a_fraction_only_where_there_is_one(
    tmp_path: Path, value: float | None, text: Cell
) -> None:
    frame = complete(
        pl.DataFrame({"id": ["x"], "defaultValue": [value]}, schema_overrides={"defaultValue": pl.Float64}), AGGREGATION
    )
    path = write(frame, AGGREGATION, tmp_path)
    record = read_strictly(path.read_text(encoding="utf-8"))[1]
    assert record[list(frame_schema(AGGREGATION)).index("defaultValue")] == text
    assert Csv().read(path, AGGREGATION).collect()["defaultValue"].to_list() == [value]


def test_booleans_and_integers_are_written_plainly(tmp_path: Path) -> None:
    plan = entities()["plan"]
    frame = complete(pl.DataFrame({"id": ["x"], "version": [2**63 - 1], "bespoke": [True], "deleted": [False]}), plan)
    record = dict(zip(frame.columns, read_strictly(write(frame, plan, tmp_path).read_text("utf-8"))[1], strict=True))
    assert (record["version"], record["bespoke"], record["deleted"]) == ("9223372036854775807", "true", "false")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_what_a_spreadsheet_takes_for_a_formula_is_escaped_only_when_asked(tmp_path: Path, text: str) -> None:
    entity = entities()["product"]
    values = {"id": "p", "name": text, "code": "a=b", "customFields": '{"a":1}', "version": -1}
    frame = pl.LazyFrame({name: [values.get(name)] for name in frame_schema(entity)}, schema=frame_schema(entity))
    Csv().write([frame], entity, tmp_path / "data.csv")
    Csv(escape_formulas=True).write([frame], entity, tmp_path / "escaped.csv")
    assert Csv().read(tmp_path / "data.csv", entity).collect().equals(frame.collect())
    escaped = Csv().read(tmp_path / "escaped.csv", entity).collect()
    assert escaped.equals(frame.collect().with_columns(name=pl.lit(f"'{text}")))
