"""The promises of file formats, kept by every format."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from api_rows import UNHURRIED
from hypothesis import given
from typed_frames import ANY_FRAME, complete

from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.difference import hashes
from m3ter_dagster.frames.format import Format, RowsLost
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import Entity, entities

FORMATS: list[Format] = [Csv()]
METER = entities()["meter"]

every_format = pytest.mark.parametrize("format", FORMATS, ids=lambda format: format.name)


def meters(ids: list[str]) -> pl.DataFrame:
    """Names of many lines and quotes, over several chunks of a file when there are many meters."""
    names = ['a\n"b"\r\n' * (number % 40) for number in range(len(ids))]
    return complete(pl.DataFrame({"id": ids, "name": names}, schema={"id": pl.String, "name": pl.String}), METER)


@every_format
@UNHURRIED
@given(drawn=ANY_FRAME)
def test_any_frame_reads_back_as_it_was(
    format: Format, drawn: tuple[Entity, pl.DataFrame], shared_folder: Path
) -> None:
    entity, frame = drawn
    path = shared_folder / f"{entity.name}.{format.suffix}"
    assert format.write([frame.lazy()], entity, path) == len(frame)
    assert format.count(path) == len(frame)
    again = format.read(path, entity).collect()
    assert again.schema == frame.schema
    assert again.equals(frame)
    assert frame.select(hashes(entity)).equals(again.select(hashes(entity)))
    first = path.read_bytes()
    format.write([again.lazy()], entity, path)
    assert path.read_bytes() == first


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


def test_a_file_that_lost_rows_is_named() -> None:
    lost = RowsLost("CSV", "meter", expected=12345, found=7)
    assert str(lost) == "the CSV of meter holds 7 rows instead of 12,345; it is not delivered."
