"""A delivered file is read alike by the programs that customers load it with."""

from __future__ import annotations

import json
from collections.abc import Hashable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pytest
from frictionless import Resource, Schema, system
from typed_frames import complete

from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.format import Format
from m3ter_dagster.frames.jsonl import JsonLines
from m3ter_dagster.frames.parquet import Parquet
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:frictionless.*")

LINE_ITEM = entities()["bill_line_item"]
OTHERS = (JsonLines(), JsonLines(is_compressed=True), Parquet())
PLAIN_ROWS = 25_000
"""More than the rows from which readers guess how a file is written."""

TEXTS = (
    "",
    " blanks around ",
    "NA",
    "null",
    "N/A",
    "a,b",
    'say "so"',
    '"',
    '""',
    "line\nend",
    "line\r\nend",
    "return\ralone",
    "\\N",
    "\\.",
    "back\\slash",
    "\\",
    "O'Neill",
    "=SUM(A1:A9)",
    "001",
    "1e5",
    "true",
    "2024-06-01",
    "株式会社サンプル",
    "Émile 🚀",
    "e\u0301",
    "\ufeffmark",
    "\u2028",
    "\x7f",
    "\ttab\t",
    "x" * 10_000,
)
"""No NUL: PostgreSQL has no such character."""
NUMBERS = (0.1, -0.0, 1e-7, 1e300, 5e-324, 12345678.875, 1e16, 0.30000000000000004)
SEGMENTS = ("{}", '{"a":"b,\\"c\\"\\n"}', '{"n":0.12345678901234567890123}', None)
DUCKDB_TYPES = {
    **{"array": "JSON", "boolean": "BOOLEAN", "integer": "BIGINT"},
    **{"number": "DOUBLE", "object": "JSON", "string": "VARCHAR"},
}
POSTGRES_TYPES = {
    "array": "json",
    "boolean": "boolean",
    "integer": "bigint",
    "number": "double precision",
    "object": "json",
    "string": "text",
}


def line_items(plain: int) -> pl.DataFrame:
    """Plain rows with whole amounts, and then one row for each awkward text."""
    awkward = [{"id": f"awkward-{number}", **awkward_cells(number, text)} for number, text in enumerate(TEXTS)]
    rows = [{"id": f"plain-{number}", **PLAIN} for number in range(plain)] + awkward
    return pl.DataFrame(rows, schema=frame_schema(LINE_ITEM))


PLAIN: dict[str, Any] = {
    "version": 1,
    "description": "usage",
    "quantity": 2.0,
    "subtotal": 3.0,
    "sequenceNumber": 5,
    "deleted": False,
}


def awkward_cells(number: int, text: str) -> dict[str, Any]:
    amount = NUMBERS[number % len(NUMBERS)]
    return {
        **PLAIN,
        "description": text,
        "productName": text or None,
        "quantity": amount,
        "units": amount if number % 2 else None,
        "segment": SEGMENTS[number % len(SEGMENTS)],
        "bandUsage": json.dumps([text], ensure_ascii=False),
        "sequenceNumber": 2**63 - 1 - number,
    }


FRAME = line_items(PLAIN_ROWS)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readers") / "bill_line_item.csv"
    Csv().write([FRAME.lazy()], LINE_ITEM, path)
    return path


def awkward(column: str) -> list[Any]:
    return FRAME[column].to_list()[PLAIN_ROWS:]


def test_polars_reads_it_with_the_schema_and_without(file: Path) -> None:
    assert Csv().read(file, LINE_ITEM).collect().equals(FRAME)
    guessed = pl.read_csv(file)
    assert guessed.columns == FRAME.columns
    assert guessed["description"].to_list() == FRAME["description"].to_list()
    assert guessed["quantity"].to_list() == FRAME["quantity"].to_list()


def test_duckdb_reads_it_without_being_told_anything(file: Path) -> None:
    with closing(duckdb.connect()) as connection:
        found = connection.sql(f"SELECT * FROM read_csv('{file}')")
        assert found.columns == FRAME.columns
        types = dict(zip(found.columns, map(str, found.types), strict=True))
        rows = found.fetchall()
    assert len(rows) == len(FRAME)
    assert (types["quantity"], types["version"], types["deleted"]) == ("DOUBLE", "BIGINT", "BOOLEAN")
    last = [dict(zip(FRAME.columns, row, strict=True)) for row in rows[PLAIN_ROWS:]]
    assert [row["quantity"] for row in last] == awkward("quantity")
    assert [row["sequenceNumber"] for row in last] == awkward("sequenceNumber")
    assert [row["description"] or "" for row in last] == awkward("description")
    assert [row["bandUsage"] for row in last] == awkward("bandUsage")


def test_pandas_reads_it(file: Path) -> None:
    texts: dict[Hashable, Any] = {
        column.name: str for column in LINE_ITEM.columns if column.type in ("string", "object", "array")
    }
    frame = pd.read_csv(file, dtype=texts, keep_default_na=False)
    assert list(frame.columns) == FRAME.columns
    assert len(frame) == len(FRAME)
    last = frame.iloc[PLAIN_ROWS:]
    assert list(last["description"]) == awkward("description")
    assert list(last["quantity"]) == awkward("quantity")
    assert list(last["bandUsage"]) == awkward("bandUsage")


def test_pandas_counts_the_same_rows_without_being_told_anything(file: Path) -> None:
    frame = pd.read_csv(file, low_memory=False)
    assert list(frame.columns) == FRAME.columns
    assert len(frame) == len(FRAME)


@pytest.fixture(scope="module", params=OTHERS, ids=lambda format: format.suffix)
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readers") / f"bill_line_item.{request.param.suffix}"
    request.param.write([FRAME.lazy()], LINE_ITEM, path)
    return path


def test_duckdb_reads_other_formats(other: Path) -> None:
    """Of JSONL it must know the types: a column of nulls in the first 20,480 rows would stay one of nulls."""
    columns = {column.name: DUCKDB_TYPES[column.type] for column in LINE_ITEM.columns}
    read = f"read_json('{other}', format = 'newline_delimited', columns = {columns})"
    with closing(duckdb.connect()) as connection:
        found = connection.sql(f"FROM '{other}'" if other.suffix == ".parquet" else f"FROM {read}")
        types = dict(zip(found.columns, map(str, found.types), strict=True))
        rows = found.fetchall()
    assert (len(rows), types) == (len(FRAME), columns)
    last = [dict(zip(FRAME.columns, row, strict=True)) for row in rows[PLAIN_ROWS:]]
    for name in ("quantity", "units", "sequenceNumber", "description", "bandUsage"):
        assert [row[name] for row in last] == awkward(name), name
    if other.suffix == ".parquet":
        assert [row["segment"] for row in last] == awkward("segment")
    else:  # DuckDB itself keeps no more digits of a number in JSON than a double has
        read, sent = [row["segment"] for row in last], awkward("segment")
        assert [one and json.loads(one) for one in read] == [one and json.loads(one) for one in sent]


def test_pandas_reads_other_formats(other: Path) -> None:
    is_parquet = other.suffix == ".parquet"
    frame = pd.read_parquet(other) if is_parquet else pd.read_json(other, lines=True, dtype=False)
    assert (len(frame), list(frame.columns)) == (len(FRAME), FRAME.columns)
    last = frame.iloc[PLAIN_ROWS:]
    assert list(last["description"]) == awkward("description")
    assert list(last["sequenceNumber"]) == awkward("sequenceNumber")
    if is_parquet:
        assert list(last["quantity"]) == awkward("quantity")
        assert [None if pd.isna(one) else one for one in last["segment"]] == awkward("segment")


def test_polars_reads_other_formats(other: Path) -> None:
    if other.suffix == ".parquet":
        rows = pl.scan_parquet(other).with_columns(pl.col("segment", "bandUsage").cast(pl.String)).collect()
        assert rows.equals(FRAME)
    else:
        rows = pl.read_ndjson(other, infer_schema_length=None)
        assert set(rows.columns) == set(FRAME.columns)
        for name in ("description", "quantity", "units", "sequenceNumber"):
            assert rows[name].to_list() == FRAME[name].to_list(), name


def create_table(postgres: Any, entity: Entity) -> None:
    columns = ", ".join(f'"{column.name}" {POSTGRES_TYPES[column.type]}' for column in entity.columns)
    with postgres.cursor() as cursor:
        cursor.execute(f"DROP TABLE IF EXISTS {entity.name}; CREATE TABLE {entity.name} ({columns})")


def copy(postgres: Any, entity: Entity, file: Path) -> None:
    with postgres.cursor() as cursor, file.open("rb") as lines:
        cursor.copy_expert(f"COPY {entity.name} FROM STDIN WITH (FORMAT csv, HEADER match)", lines)


def test_postgresql_copies_it_and_tells_null_from_empty_text(postgres: Any, file: Path) -> None:
    create_table(postgres, LINE_ITEM)
    copy(postgres, LINE_ITEM, file)
    names = ("description", "productName", "quantity", "units", "segment", "bandUsage", "sequenceNumber")
    chosen = ", ".join(f'"{name}"::text' if name in ("segment", "bandUsage") else f'"{name}"' for name in names)
    with postgres.cursor() as cursor:
        cursor.execute("SELECT count(*), count(*) FILTER (WHERE NOT deleted) FROM bill_line_item")
        assert cursor.fetchone() == (len(FRAME), len(FRAME))
        cursor.execute(f"SELECT {chosen} FROM bill_line_item WHERE id LIKE 'awkward-%' ORDER BY substr(id, 9)::int")
        assert cursor.fetchall() == list(zip(*map(awkward, names), strict=True))


@pytest.mark.parametrize("entity", entities().values(), ids=lambda entity: entity.name)
def test_postgresql_copies_an_empty_file_of_any_entity(postgres: Any, entity: Entity, tmp_path: Path) -> None:
    path = tmp_path / f"{entity.name}.csv"
    Csv().write([pl.LazyFrame(schema=frame_schema(entity))], entity, path)
    create_table(postgres, entity)
    copy(postgres, entity, path)
    with postgres.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {entity.name}")
        assert cursor.fetchone() == (0,)


def test_frictionless_validates_it_against_its_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "bill_line_item.csv"
    frame = line_items(plain=50)
    Csv().write([frame.lazy()], LINE_ITEM, path)
    report = validate(path, LINE_ITEM)
    assert report.valid, report.flatten(["rowNumber", "fieldName", "note"])[:5]
    assert report.tasks[0].stats["rows"] == len(frame)


def test_frictionless_finds_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "bill_line_item.csv"
    Csv().write([line_items(plain=1).lazy()], LINE_ITEM, path)
    path.write_text(path.read_text(encoding="utf-8").replace("plain-0,1,", "plain-0,one,"), encoding="utf-8")
    assert validate(path, LINE_ITEM).flatten(["rowNumber", "fieldName"]) == [[2, "version"]]


def validate(path: Path, entity: Entity) -> Any:
    """Foreign keys are for a whole export to check."""
    descriptor = {name: value for name, value in json.loads(entity.table_schema).items() if name != "foreignKeys"}
    with system.use_context(trusted=True):
        return Resource(path=str(path), schema=Schema.from_descriptor(descriptor)).validate()


@pytest.mark.parametrize("format", [Csv(), *OTHERS], ids=lambda format: format.suffix)
def test_duckdb_reads_the_files_own_columns_at_its_address_where_hive_partitions_are_off(
    format: Format, tmp_path: Path
) -> None:
    """As docs/loading.md says: else `type=` in the address takes the place of the column `type`."""
    band, folder = entities()["pricing_band"], tmp_path / "date=2026-11-29" / "hour=02" / "type=pricing_band"
    folder.mkdir(parents=True)
    file = folder / f"ID_pricing_band.{format.suffix}"
    rows = complete(pl.DataFrame({"id": ["a"], "type": ["STANDARD"]}), band)
    format.write([rows.lazy()], band, file)
    reader = f"read_{format.name.lower().replace('jsonl', 'json')}"
    with closing(duckdb.connect()) as connection:
        found = connection.sql(f"FROM {reader}('{file}', hive_partitioning = false)")
        assert found.columns == rows.columns
        assert found.select("type").fetchall() == [("STANDARD",)]
