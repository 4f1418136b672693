"""m3ter's file of measurements becomes a typed frame with the columns of the document, or is refused by name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.model.time_periods import Window
from m3ter_dagster.usage.columns import UsageTable, aggregated_table, raw_table
from m3ter_dagster.usage.meters import Meter, MeterField
from m3ter_dagster.usage.rows import Usage, read_usage

WINDOW = Window(datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC))
METERS = [
    Meter("m1", (MeterField("gb", "Gigabytes", "MEASURE"), MeterField("region", 'Region, "where"', "WHERE"))),
    Meter("m2", (MeterField("calls", "Calls\nmade", "COST"), MeterField("gb", "Gigabytes", "INCOME"))),
    Meter("m3", (MeterField("code", "Code", "MEASURE"), MeterField("x", "Calls\nmade", "OTHER"))),
]
RAW = raw_table("usage_raw", METERS[:2])
DAILY = aggregated_table("usage_aggregated", frequency="DAY", aggregated=[("Gigabytes", "SUM")], has_accounts=True)
HEADER = "meter_id,timestamp,uid,ets,received_at,account_id,Gigabytes (ORIGINAL)"
ROW = "m1,2024-02-29T10:00:00.000Z,u1,,2024-02-29T10:00:01Z,a1,1.5"


def read(tmp_path: Path, text: str, table: UsageTable = RAW, window: Window = WINDOW) -> Usage:
    path = tmp_path / "m3ter.csv"
    path.write_text(text, encoding="utf-8")
    return read_usage(path, table, window, tmp_path / "usage.parquet")


def breach_in(tmp_path: Path, text: str, table: UsageTable = RAW) -> str:
    with pytest.raises(SchemaBreached) as raised:
        read(tmp_path, text, table)
    assert "usage_" in str(raised.value)
    return str(raised.value.breaches[0])


def test_the_columns_are_those_of_the_document_and_of_every_meter() -> None:
    assert [(column.name, column.type) for column in raw_table("usage_raw", METERS).columns] == [
        ("meter_id", "string"),
        ("timestamp", "string"),
        ("uid", "string"),
        ("ets", "string"),
        ("received_at", "string"),
        ("account_id", "string"),
        ("Gigabytes (ORIGINAL)", "number"),
        ('Region, "where" (ORIGINAL)', "string"),
        ("Calls\nmade (ORIGINAL)", "string"),
        ("Code (ORIGINAL)", "number"),
    ]
    assert json.loads(RAW.table_schema)["primaryKey"] == "uid"


@pytest.mark.parametrize(
    ("frequency", "parts"),
    [
        ("MONTH", ["month"]),
        ("WEEK", ["month", "week"]),
        ("DAY", ["month", "week", "day"]),
        ("HOUR", ["month", "week", "day", "hour"]),
    ],
)
def test_the_columns_of_each_frequency(frequency: str, parts: list[str]) -> None:
    table = aggregated_table("a", frequency=frequency, aggregated=[("GB", "SUM"), ("GB", "MAX")], has_accounts=False)
    assert [one.name for one in table.columns] == ["meter_id", "timestamp", "year", "GB (SUM)", "GB (MAX)", *parts]
    assert table.primary_key is None
    assert [key.column for key in table.foreign_keys] == ["meter_id"]


def test_rows_are_read_by_name_typed_and_completed(tmp_path: Path) -> None:
    text = (
        'Gigabytes (ORIGINAL),"Region, ""where"" (ORIGINAL)",meter_id,timestamp,uid,ets,received_at,account_id,other\n'
        '1e3,"EU\nWest",m1,2024-02-29T00:00:00.000Z,u1,,2024-02-29T10:00:01Z,a1,x\n'
        ',"",m2,2024-02-29 23:59:59.999,u2,2024-02-29T10:00:00Z,2024-02-29T10:00:01Z,a2,y\n'
    )
    found = read(tmp_path, text)
    assert found.frame.collect_schema().names() == [column.name for column in RAW.columns]
    rows = found.frame.collect().rows(named=True)
    assert [row["Gigabytes (ORIGINAL)"] for row in rows] == [1000.0, None]
    assert [row['Region, "where" (ORIGINAL)'] for row in rows] == ["EU\nWest", ""]
    assert [row["Calls\nmade (ORIGINAL)"] for row in rows] == [None, None]
    assert (found.rows, found.unknown_columns, found.empty_columns) == (2, ("other",), ("Calls\nmade (ORIGINAL)",))
    assert (found.meter_ids, found.account_ids) == ({"m1", "m2"}, {"a1", "a2"})
    assert found.sums["m1"] == {"Gigabytes (ORIGINAL)": 1000.0, "Calls\nmade (ORIGINAL)": 0.0}


def test_it_is_written_with_the_rules_of_this_project(tmp_path: Path) -> None:
    file = tmp_path / "out.csv"
    found = read(tmp_path, f"{HEADER}\n{ROW}\n")
    assert Csv().write([found.frame], RAW, file) == 1
    assert file.read_text() == (
        '"meter_id","timestamp","uid","ets","received_at","account_id","Gigabytes (ORIGINAL)",'
        '"Region, ""where"" (ORIGINAL)","Calls\nmade (ORIGINAL)"\n'
        "m1,2024-02-29T10:00:00.000Z,u1,,2024-02-29T10:00:01Z,a1,1.5,,\n"
    )
    assert read(tmp_path, file.read_text()).frame.collect().equals(found.frame.collect())


@pytest.mark.parametrize("text", ["", "\ufeff", "\r\n\n", HEADER, f"{HEADER}\n"])
def test_an_empty_file_has_its_columns(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text)
    assert found.rows == 0
    assert Csv().write([found.frame], RAW, tmp_path / "out.csv") == 0


def test_a_year_is_told_from_the_time_where_m3ter_gives_none(tmp_path: Path) -> None:
    text = "meter_id,timestamp,account_id,Gigabytes (SUM),month,week,day\nm1,2024-02-29T00:00:00Z,a1,5,2,9,29\n"
    assert read(tmp_path, text, DAILY).frame.collect()["year"].to_list() == ["2024"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("u1", "", "row 1 of the file, column uid, value nothing: must not be missing or empty"),
        (",1.5", ",1.5x", "row 1 of the file, column Gigabytes (ORIGINAL), value 1.5x: must be a number"),
        (",1.5", ",NaN", "value NaN: must be a number"),
        (
            "2024-02-29T10:00:00.000Z",
            "2024-03-01T00:00:00.000Z",
            "must be a time in the window of the export, 2024-02-29",
        ),
        ("2024-02-29T10:00:00.000Z", "2024-02-28T23:59:59.999Z", "to 2024-03-01 00:00 UTC"),
        ("2024-02-29T10:00:00.000Z", "yesterday", "column timestamp, value yesterday: must be a time"),
        ("received_at", "receivedAt", "column received_at, value missing: must be a column of m3ter's file"),
        ("uid", "ets", "column ets, value the header: must name each column once"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert words in breach_in(tmp_path, f"{HEADER}\n{ROW}\n".replace(old, new))


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (
            "m1,2024-02-29T10:0",
            "row 2 of the file, column uid, value missing: must be there; the row has 2 of 7 fields",
        ),
        ("m1", "row 2 of the file, column timestamp, value missing: must be there"),
        (
            f"{ROW.replace('u1', 'u2')},9\n",
            "row 2 of the file, column beyond the last, value text of 1 character: must not",
        ),
        (f"{ROW},9\nm1,2024-02-29,u3,,,a1\n", "row 2 of the file, column beyond the last"),
        ('m1,"2024', "row 2 of the file, column unknown, value unexpected end of data: must be CSV"),
        (
            'm1,2024-02-29,u2,"x"y,,a1,1\n',
            "row 2 of the file, column unknown, value ',' expected after '\"': must be CSV",
        ),
        ('m1,2024-02-29,u2,x"y,,a1,1\n', "a row without id, column unknown, value ComputeError of polars: must be CSV"),
        (
            "m1,2024-02-29,Z\udcffrich,,,a1,1\n",
            "row 2 of the file, column uid, value text of 6 characters: must be UTF-8",
        ),
    ],
)
def test_a_file_that_is_damaged_is_named(tmp_path: Path, end: str, words: str) -> None:
    """Polars would fill up a row that is cut off."""
    path = tmp_path / "m3ter.csv"
    path.write_bytes(f"{HEADER}\n{ROW}\n{end}".encode(errors="surrogateescape"))
    with pytest.raises(SchemaBreached) as raised:
        read_usage(path, RAW, WINDOW, tmp_path / "usage.parquet")
    assert words in str(raised.value.breaches[0])


def test_lines_that_only_look_cut_off_are_none(tmp_path: Path) -> None:
    text = f'{HEADER},"Region, ""where"" (ORIGINAL)"\n{ROW},"one,\n""two"", three"\n{ROW.replace("u1", "u2")},'
    assert read(tmp_path, text).frame.collect()['Region, "where" (ORIGINAL)'].to_list() == ['one,\n"two", three', None]


@pytest.mark.parametrize(
    ("text", "came"),
    [
        ("<html>maintenance</html>", "'<html>maint"),
        ("<html>maintenance,\n</html>\n", "'<html>maint"),
        ('{"message": "Forbidden"}\n', "text of 24 characters"),
        (HEADER.replace(",", ";"), "'meter_id;timestamp"),
        (ROW, f"text of {len(ROW)} characters"),
    ],
)
def test_what_is_no_usage_file_is_not_taken_for_one_without_rows(tmp_path: Path, text: str, came: str) -> None:
    assert f"column meter_id, value missing; instead came {came}" in breach_in(tmp_path, text)


def test_rows_below_an_empty_line_are_not_an_empty_file(tmp_path: Path) -> None:
    assert "instead came text of 0 characters: must be a column of m3ter's file" in breach_in(tmp_path, f"\n{ROW}\n")


def test_a_file_in_utf_16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m3ter.csv"
    path.write_text(f"{HEADER}\n{ROW}\n", encoding="utf-16")
    with pytest.raises(SchemaBreached, match="must be a column of m3ter's file"):
        read_usage(path, RAW, WINDOW, tmp_path / "usage.parquet")


def test_fields_under_names_nobody_knows_are_refused(tmp_path: Path) -> None:
    """All of them would be empty; one that m3ter leaves out, or adds, is no reason to export nothing."""
    assert breach_in(tmp_path, f"{HEADER}\n{ROW}\n".replace("Gigabytes (ORIGINAL)", "gb")) == (
        "a row without id, column Gigabytes (ORIGINAL), value missing, and there are 'gb': must be a column of m3ter's "
        "file; it has others that are not named after any field"
    )
    assert read(tmp_path, f"{HEADER},gb\n{ROW},1\n").unknown_columns == ("gb",)
    assert read(tmp_path, f"{HEADER}\n{ROW}\n".replace(",Gigabytes (ORIGINAL)", "").replace(",1.5", "")).rows == 1


def test_a_dimension_grouped_by_is_not_lost(tmp_path: Path) -> None:
    table = aggregated_table(
        "a", frequency="MONTH", aggregated=[("GB", "SUM")], dimensions=["Region"], has_accounts=False
    )
    text = "meter_id,timestamp,Region,GB (SUM),month\nm1,2024-02-29,EU,1,02\n"
    with pytest.raises(SchemaBreached, match=r"column Region \(ORIGINAL\), value missing"):
        read(tmp_path, text, table)
    assert read(tmp_path, text.replace("Region", "Region (ORIGINAL)"), table).rows == 1
    assert (
        read(tmp_path, text.replace("Region", "Region (ORIGINAL)").replace("GB (SUM)", "account_id"), table).rows == 1
    )


def test_an_empty_text_is_no_number_whether_quoted_or_not(tmp_path: Path) -> None:
    found = read(tmp_path, f"{HEADER}\n{ROW}\n".replace(",1.5", ',""'))
    assert found.frame.collect()["Gigabytes (ORIGINAL)"].to_list() == [None]


def test_a_uid_stands_once(tmp_path: Path) -> None:
    rows = [ROW.replace("u1", f"u{number % 6}") for number in range(7)]
    assert breach_in(tmp_path, "\n".join([HEADER, *rows])) == (
        "row 1 of the file, column uid, value text of 2 characters: is the primary key and must be unique"
    )
    assert read(tmp_path, "\n".join([HEADER, *rows[:6]])).rows == 6


def test_more_rows_than_a_batch(tmp_path: Path) -> None:
    rows = [
        f"m1,2024-02-29T10:00:00Z,u{number},,2024-02-29T10:00:01Z,a{number % 7},{number}" for number in range(50_000)
    ]
    found = read(tmp_path, "\n".join([HEADER, *rows]))
    assert (found.rows, len(found.account_ids)) == (50_000, 7)
    assert found.sums["m1"]["Gigabytes (ORIGINAL)"] == sum(range(50_000))
    assert found.frame.select(pl.col("uid").last()).collect().item() == "u49999"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_other_systems(tmp_path: Path, line_end: str, mark: str) -> None:
    text = f"{mark}{HEADER},Region (ORIGINAL)\n{ROW},EU\n{ROW},\n".replace("u1", "u2", 1).replace("\n", line_end)
    table = raw_table("usage_raw", [Meter("m1", (*METERS[0].fields[:1], MeterField("r", "Region", "WHERE")))])
    path = tmp_path / "m3ter.csv"
    path.write_bytes(text.encode())
    found = read_usage(path, table, WINDOW, tmp_path / "usage.parquet").frame.collect()
    assert found["uid"].to_list() == ["u2", "u1"]
    assert found["Region (ORIGINAL)"].to_list() == ["EU", None]


@pytest.mark.parametrize(
    "time",
    [
        "2024-02-29",
        "2024-02-29 10:00",
        "2024-02-29T10:00:00",
        "2024-02-29T10:00:00.123456Z",
        "2024-03-01T01:00:00+02:00",
        "2024-02-29 10:00:00.5",
    ],
)
def test_times_of_iso_8601(tmp_path: Path, time: str) -> None:
    assert read(tmp_path, f"{HEADER}\n{ROW}\n".replace("2024-02-29T10:00:00.000Z", time)).rows == 1
