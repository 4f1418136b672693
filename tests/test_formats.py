"""The promises of file formats, kept by every format."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from api_rows import UNHURRIED
from hypothesis import given
from memory import PEAK
from pyarrow import parquet as pq
from typed_frames import ANY_FRAME, complete

from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.difference import hashes
from m3ter_dagster.frames.format import Format, RowsLost, Unreadable
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.frames.jsonl import JsonLines
from m3ter_dagster.frames.parquet import Parquet
from m3ter_dagster.frames.schema import SchemaBreached, frame_schema
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Column, Entity

FORMATS: list[Format] = [Csv(), Csv(is_compressed=True), JsonLines(), JsonLines(is_compressed=True), Parquet()]
METER = entities()["meter"]

every_format = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.suffix)


def meters(ids: list[str]) -> pl.DataFrame:
    """Names of many lines and quotes, over several chunks of a file when there are many meters."""
    names = ['a\n"b"\r\n' * (number % 40) for number in range(len(ids))]
    return complete(pl.DataFrame({"id": ids, "name": names}, schema={"id": pl.String, "name": pl.String}), METER)


@UNHURRIED
@given(drawn=ANY_FRAME)
def test_any_frame_reads_back_as_it_was_in_every_format(
    drawn: tuple[Entity, pl.DataFrame], shared_folder: Path
) -> None:
    """To draw a frame takes longer than to write and read it, so each is drawn for all formats."""
    entity, frame = drawn
    hashed = frame.select(hashes(entity))
    for format in FORMATS:
        path = shared_folder / f"{entity.name}.{format.suffix}"
        assert format.write([frame.lazy()], entity, path) == len(frame), format
        assert format.count(path) == len(frame), format
        again = format.read(path, entity).collect()
        assert again.schema == frame.schema, format
        assert again.equals(frame), format
        assert hashed.equals(again.select(hashes(entity))), format
        first = path.read_bytes()
        format.write([again.lazy()], entity, path)
        assert path.read_bytes() == first, format


@every_format
@pytest.mark.parametrize("entity", entities().values(), ids=lambda entity: entity.name)
def test_an_empty_frame_keeps_its_columns(format: Format, entity: Entity, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    assert format.write([pl.LazyFrame(schema=frame_schema(entity))], entity, path) == 0
    assert format.count(path) == 0
    again = format.read(path, entity).collect()
    assert (len(again), dict(again.schema)) == (0, frame_schema(entity))


@every_format
@pytest.mark.parametrize("rows", [1, 30_000])
def test_all_rows_are_written_in_their_order(format: Format, rows: int, tmp_path: Path) -> None:
    frame = meters([f"row-{number}" for number in range(rows)])
    path = tmp_path / "meters"
    assert format.write([frame.lazy()], METER, path) == format.count(path) == rows
    assert format.read(path, METER).collect().equals(frame)


@every_format
def test_the_same_frame_gives_the_same_bytes(format: Format, tmp_path: Path) -> None:
    frame = meters(["a", "b", "c"]).lazy()
    for name in ("first", "second"):
        format.write([frame], METER, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@every_format
def test_columns_that_are_not_the_tables_are_not_written_and_their_order_is_the_tables(
    format: Format, tmp_path: Path
) -> None:
    frame = meters(["a"])
    more = frame.with_columns(more=1)
    format.write([more.select(reversed(more.columns)).lazy()], METER, tmp_path / "more")
    format.write([frame.lazy()], METER, tmp_path / "plain")
    assert (tmp_path / "more").read_bytes() == (tmp_path / "plain").read_bytes()


@every_format
def test_parts_give_the_same_bytes_as_the_whole(format: Format, tmp_path: Path) -> None:
    whole, names = meters(["a", 'b"', "", "d\n"]).lazy(), ["whole", "parts"]
    parts = [whole.slice(0, 1), whole.slice(1, 0), whole.slice(1, 3)]
    assert [format.write(one, METER, tmp_path / name) for one, name in zip(([whole], parts), names, strict=True)] == [
        4,
        4,
    ]
    assert len({(tmp_path / name).read_bytes() for name in names}) == 1
    assert format.write([], METER, tmp_path / "none") == format.count(tmp_path / "none") == 0


@every_format
def test_bytes_do_not_depend_on_where_many_rows_are_parted(format: Format, tmp_path: Path) -> None:
    """Enough for several pages of a column in Parquet."""
    rows = meters([f"{number:0300}" for number in range(12_000)]).lazy()
    format.write([rows], METER, tmp_path / "whole")
    format.write([rows.head(1_777), rows.slice(1_777)], METER, tmp_path / "parts")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()


@every_format
@pytest.mark.parametrize(("written", "there"), [(2, 3), (3, 2)])
def test_a_file_without_the_rows_of_its_frame_is_refused(
    format: Format, written: int, there: int, tmp_path: Path
) -> None:
    """The rows on disk are read twice, and something takes some away, or adds some, in between."""
    counts = iter((written, there))
    frame = meters(["a", "b", "c"]).lazy().map_batches(lambda rows: rows.head(next(counts)))
    with pytest.raises(RowsLost) as lost:
        format.write([frame], METER, tmp_path / "meters")
    says = f"the {format.name} of meter holds {written} rows instead of {there}; it is not delivered."
    assert str(lost.value) == says


NUMBERS = [0.1, -0.0, 0.0, 1e-7, 1e16, 1e300, 5e-324, 9007199254740993.0, 0.30000000000000004, 10.0, None]


@every_format
def test_a_number_keeps_its_value(format: Format, tmp_path: Path) -> None:
    frame = complete(pl.DataFrame({"id": ["x"] * len(NUMBERS), "amount": NUMBERS}), entities()["balance"])
    format.write([frame.lazy()], entities()["balance"], tmp_path / "numbers")
    assert repr(format.read(tmp_path / "numbers", entities()["balance"]).collect()["amount"].to_list()) == repr(NUMBERS)


@every_format
def test_columns_may_have_any_name(format: Format, tmp_path: Path) -> None:
    """Customers name the columns of measurements."""
    names = ('6" pipes (ORIGINAL)', "a,b", "c\nd", "e.f", "株式会社", "{}", "back\\slash")
    table = replace(METER, columns=tuple(Column(name, "string", "") for name in names))
    frame = pl.DataFrame({name: [name, "", None] for name in names})
    format.write([frame.lazy()], table, tmp_path / "any")
    assert format.read(tmp_path / "any", table).collect().equals(frame)
    assert format.names(tmp_path / "any") == list(names)
    assert pl.concat(format.texts(tmp_path / "any", dict.fromkeys(names, "string"))).equals(frame)


SEGMENT = '{"n":0.12345678901234567890123,"b":[1.0,1e5,null,"null"],"a":{"z":1,"y":"\\u00e9\\n"}}'
AWKWARD: dict[str, list[Any]] = {
    "id": ["null", "", "b"],
    "quantity": [0.1, None, 10.0],
    "sequenceNumber": [2**63 - 1, -1, None],
    "deleted": [True, False, None],
    "segment": [SEGMENT, None, "{}"],
    "bandUsage": ["[]", None, '["\u2028", 1.50]'],
}
LINE_ITEM = entities()["bill_line_item"]


@pytest.fixture
def awkward() -> pl.DataFrame:
    return complete(pl.DataFrame(AWKWARD), LINE_ITEM)


@every_format
def test_json_keeps_every_digit(format: Format, awkward: pl.DataFrame, tmp_path: Path) -> None:
    format.write([awkward.lazy()], LINE_ITEM, tmp_path / "items")
    assert format.read(tmp_path / "items", LINE_ITEM).collect().equals(awkward)


@every_format
def test_some_columns_of_some_rows_can_be_read(format: Format, awkward: pl.DataFrame, tmp_path: Path) -> None:
    format.write([awkward.lazy()], LINE_ITEM, tmp_path / "items")
    frame = format.read(tmp_path / "items", LINE_ITEM)
    assert frame.filter(pl.col("deleted").not_()).select("bandUsage", "id").collect().rows() == [(None, "")]
    assert frame.head(2).select("segment").collect()["segment"].to_list() == [SEGMENT, None]
    assert frame.select(pl.len()).collect().item() == 3


@every_format
def test_every_cell_can_be_looked_at_as_text(format: Format, awkward: pl.DataFrame, tmp_path: Path) -> None:
    format.write([awkward.lazy()], LINE_ITEM, tmp_path / "items")
    assert format.names(tmp_path / "items") == awkward.columns
    texts = pl.concat(format.texts(tmp_path / "items", {column.name: column.type for column in LINE_ITEM.columns}))
    assert texts.schema == dict.fromkeys(awkward.columns, pl.String)
    expected = awkward.select("id", "segment", "bandUsage", pl.col("sequenceNumber", "deleted").cast(pl.String))
    assert texts.select(expected.columns).equals(expected)
    assert texts["quantity"].cast(pl.Float64).to_list() == AWKWARD["quantity"]


@every_format
def test_a_damaged_file_is_unreadable(format: Format, awkward: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "items"
    format.write([awkward.lazy()], LINE_ITEM, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: -len(whole) // 10])
    with pytest.raises(Unreadable):
        list(format.texts(path, {column.name: column.type for column in LINE_ITEM.columns}))


@pytest.mark.parametrize("format", FORMATS[1::2] + FORMATS[-1:], ids=lambda format: format.suffix)
def test_an_altered_byte_is_noticed_in_what_is_compressed(
    format: Format, awkward: pl.DataFrame, tmp_path: Path
) -> None:
    path, types = tmp_path / "items", {column.name: column.type for column in LINE_ITEM.columns}
    format.write([awkward.lazy()], LINE_ITEM, path)
    whole = path.read_bytes()
    place = whole.find(b"null") if format.suffix == "parquet" else len(whole) // 2  # in the page of the ids
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(Unreadable):
        list(format.texts(path, types))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id":"b","name":"x","more":1}', "Object contains unknown field `more` - at `$[1]` (counted from row 1)"),
        ('{"id":"b"}', "Object missing required field `name`"),
        ('{"id":"b","name":5}', "Expected `str | null`, got `int` - at `$[1].name`"),
        ('{"id":"b","name":"', "JSON is malformed"),
        ("[]", "Expected `object`, got `array`"),
    ],
)
def test_a_line_of_jsonl_with_other_columns_is_named(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "meters").write_text(f'{{"id":"a","name":null}}\n{line}\n', encoding="utf-8")
    with pytest.raises(Unreadable) as why:
        list(JsonLines().texts(tmp_path / "meters", {"id": "string", "name": "string"}))
    assert str(why.value).startswith(words)


WRITE = f"""
import sys
from pathlib import Path
import polars as pl
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.model.entities import entities
{PEAK}
file, part = Path(sys.argv[1]), Path(sys.argv[2])
for times in (10, 60):
    rows = format_of(file.name).write([pl.scan_parquet(part)] * times, entities()["meter"], file)
    print(rows, peak_megabytes())
"""


@pytest.mark.slow
@every_format
def test_memory_does_not_grow_with_the_parts(format: Format, tmp_path: Path) -> None:
    rows = 5000
    meters([f"row-{number}" for number in range(rows)]).write_parquet(tmp_path / "part")
    command = [sys.executable, "-c", WRITE, str(tmp_path / f"meters.{format.suffix}"), str(tmp_path / "part")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    written, peaks = zip(*(map(int, line.split()) for line in done.stdout.splitlines()), strict=True)
    assert written == (rows * 10, rows * 60)
    assert peaks[1] < peaks[0] + 60, peaks


def test_of_a_parquet_file_one_row_group_at_a_time_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m3ter_dagster.frames.parquet.GROUP_ROWS", 1000)
    random = Random(1)
    frame = complete(pl.DataFrame({"id": [random.randbytes(300).hex() for _ in range(20_000)]}), METER)
    path = tmp_path / "meters.parquet"
    Parquet().write([frame.lazy()], METER, path)
    assert pq.read_metadata(path).num_row_groups == 20
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in Parquet().texts(path, {"id": "string"})]
    assert max(held) < path.stat().st_size / 2, held


@every_format
def test_a_file_with_other_columns_is_unreadable_or_shows_them(format: Format, tmp_path: Path) -> None:
    plan = entities()["plan"]
    frame = complete(pl.DataFrame({"id": ["a"], "version": [1]}), plan)
    format.write([frame.lazy()], plan, tmp_path / "plan")
    assert format.names(tmp_path / "plan") == frame.columns
    numbers = replace(METER, columns=(Column("name", "string", ""), Column("id", "number", "")))
    format.write(
        [pl.LazyFrame({"name": [None], "id": [1.5]}, schema_overrides={"name": pl.String})],
        numbers,
        tmp_path / "numbers",
    )
    try:
        assert pl.concat(format.texts(tmp_path / "numbers", {"name": "string", "id": "string"}))["id"].to_list() == [
            "1.5"
        ]
    except Unreadable as why:
        assert "id" in str(why)  # noqa: PT017


# Parquet with times as times


TYPED = Parquet(is_typed=True)
ACCOUNT_PLAN, CONTRACT = entities()["account_plan"], entities()["contract"]


def account_plans(times: list[str | None]) -> pl.DataFrame:
    ids = [f"row-{number}" for number in range(len(times))]
    return complete(
        pl.DataFrame({"id": ids, "startDate": times}, schema_overrides={"startDate": pl.String}), ACCOUNT_PLAN
    )


@pytest.mark.parametrize(
    "times",
    [
        ["2024-06-01T10:00:00Z", None, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"],
        ["2024-06-01T10:00:00.000Z", "2024-02-29T23:59:59.120Z"],
        ["2024-06-01T10:00:00.123456Z", "1969-12-31T23:59:59.000000Z"],
        ["2024-06-01T10:00:00Z", "2024-06-01T10:00:00.120Z", "1969-12-31T23:59:59.999999Z"],
        [None],
        [],
    ],
)
def test_times_are_times_and_read_back_as_the_text_that_they_were(times: list[str | None], tmp_path: Path) -> None:
    frame, path = account_plans(times), tmp_path / "plans.parquet"
    assert TYPED.write([frame.lazy()], ACCOUNT_PLAN, path) == TYPED.count(path) == len(times)
    column = pq.read_table(path)["startDate"]
    assert column.type == pa.timestamp("us", tz="UTC")
    assert column.to_pylist() == [time and datetime.fromisoformat(time) for time in times]
    assert format_of(path.name).read(path, ACCOUNT_PLAN).collect().equals(frame)
    texts = [row for rows in TYPED.texts(path, {"id": "string", "startDate": "string"}) for row in rows["startDate"]]
    assert texts == times


def test_a_date_is_a_date(tmp_path: Path) -> None:
    frame = complete(pl.DataFrame({"id": ["a", "b"], "endDate": ["2024-02-29", None]}), CONTRACT)
    TYPED.write([frame.lazy()], CONTRACT, tmp_path / "contract")
    assert pq.read_table(tmp_path / "contract")["endDate"].to_pylist() == [date(2024, 2, 29), None]
    assert TYPED.read(tmp_path / "contract", CONTRACT).collect().equals(frame)


def test_typed_parts_give_the_same_bytes_as_the_whole(tmp_path: Path) -> None:
    whole = account_plans(["2024-06-01T10:00:00.120Z", "2024-06-01T10:00:00Z", None]).lazy()
    TYPED.write([whole], ACCOUNT_PLAN, tmp_path / "whole")
    TYPED.write([whole.head(1), whole.slice(1, 2)], ACCOUNT_PLAN, tmp_path / "parts")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "parts").read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        *("2024-06-01", "2024-06-01T10:00:00", "2024-06-01T10:00:00+01:00", "2024-06-01 10:00:00Z", "soon", ""),
        *("2023-02-29T10:00:00Z", "2024-06-01T24:00:00Z", "2024-06-01T10:00:60Z", "2024-06-01T10:00:00Z\n"),
        *("2024-06-01T10:00:00.1Z", "2024-06-01T10:00:00.123456789Z", "٢024-06-01T10:00:00Z"),
    ],
)
def test_a_text_that_is_no_time_is_named(text: str, tmp_path: Path) -> None:
    frame = account_plans(["2024-06-01T10:00:00Z", text])
    with pytest.raises(SchemaBreached) as breached:
        TYPED.write([frame.lazy()], ACCOUNT_PLAN, tmp_path / "plans")
    rule = "must be a date-time such as 2024-06-01T10:00:00.000Z"
    assert f"row row-1, column startDate, value {text}: {rule}" in str(breached.value)
    assert "Leave typed out, and the texts are delivered as they are." in str(breached.value)
    assert "value" not in breached.value.notification
    Parquet().write([frame.lazy()], ACCOUNT_PLAN, tmp_path / "plans")


def test_a_text_that_is_no_date_is_named(tmp_path: Path) -> None:
    frame = complete(pl.DataFrame({"id": ["a"], "endDate": ["2024-06-01T00:00:00Z"]}), CONTRACT)
    with pytest.raises(SchemaBreached, match="value 2024-06-01T00:00:00Z: must be a date such as 2024-06-01"):
        TYPED.write([frame.lazy()], CONTRACT, tmp_path / "contract")


def test_a_column_of_times_where_no_text_is_expected_is_unreadable(tmp_path: Path) -> None:
    TYPED.write([account_plans([]).lazy()], ACCOUNT_PLAN, tmp_path / "plans")
    with pytest.raises(Unreadable, match=r"the column startDate is timestamp\[us, tz=UTC\] and should be text"):
        list(TYPED.texts(tmp_path / "plans", {"startDate": "object"}))


@pytest.mark.parametrize(
    "metadata", ["{", "[]", "7", '{"startDate": 3}', '{"startDate": ["3"]}', '{"startDate": [99]}', "\ud800"]
)
def test_a_typed_file_with_metadata_that_is_not_its_own_is_unreadable(metadata: str, tmp_path: Path) -> None:
    TYPED.write([account_plans(["2024-06-01T10:00:00Z"]).lazy()], ACCOUNT_PLAN, tmp_path / "plans")
    forged = {"m3ter:fractions": metadata.encode("utf-8", "surrogatepass")}
    pq.write_table(pq.read_table(tmp_path / "plans").replace_schema_metadata(forged), tmp_path / "plans")
    with pytest.raises(Unreadable):
        list(TYPED.texts(tmp_path / "plans", {"startDate": "string"}))


NO_UTF8 = pa.StringArray.from_buffers(1, pa.py_buffer(bytes((0, 0, 0, 0, 1, 0, 0, 0))), pa.py_buffer(b"\xff"))


@pytest.mark.parametrize(
    ("cells", "type", "why"),
    [
        (pa.array([[1]]), "number", r"the column found is list<element: int64> and should be number"),
        (pa.array([b"\xff"]), "integer", "the column found is binary and should be integer"),
        (pa.array([1], pa.duration("us")), "boolean", "the column found is duration.* and should be boolean"),
        (pa.array([1]).cast(pa.decimal256(70)), "number", "the column found is decimal256.* and should be number"),
        (NO_UTF8, "string", "Invalid UTF8"),
        (pa.array([2**62], pa.timestamp("us", "UTC")), "string", "the column found has a time of no year from 1 to"),
        (pa.array([2**31 - 1], pa.date32()), "string", "the column found has a time of no year from 1 to 9999"),
    ],
)
def test_a_parquet_that_no_export_writes_is_unreadable(cells: pa.Array, type: str, why: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"found": cells}), tmp_path / "forged")
    with pytest.raises(Unreadable, match=why):
        list(Parquet().texts(tmp_path / "forged", {"found": type}))


def test_a_file_is_known_by_its_suffix() -> None:
    for format in FORMATS:
        assert format_of(f"s3://acme.com/m3ter/v1.2/e_bill.{format.suffix}") == format


def test_a_file_that_lost_rows_is_named() -> None:
    lost = RowsLost("CSV", "meter", expected=12345, found=7)
    assert str(lost) == "the CSV of meter holds 7 rows instead of 12,345; it is not delivered."
