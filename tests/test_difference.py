"""Rows are counted as added, removed or changed by their key; files whose hashes cannot be equal are not compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from m3ter_dagster.frames.difference import Difference, NotComparable, difference, keys_of, row_hash, write_keys
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import find_entity
from m3ter_dagster.model.entity import Entity

COLUMNS = ("id", "name", "version")


def account(columns: Iterable[str] = COLUMNS) -> Entity:
    """The entity with these columns only."""
    entity = find_entity("account")
    return replace(entity, columns=tuple(entity.column(name) for name in columns))


def keys_file(path: Path, rows: Sequence[tuple[str | int | None, ...]], entity: Entity | None = None) -> Path:
    entity = entity or account()
    frame = pl.LazyFrame(rows, schema=frame_schema(entity), orient="row")
    write_keys(frame.with_columns(row_hash(entity)).select(keys_of(entity)), entity, path)
    return path


def of_hashes(path: Path) -> Path:
    """The file as the version before wrote it, which kept hashes instead of ids."""
    metadata = {name: text for name, text in pl.read_parquet_metadata(path).items() if name in ("polars", "columns")}
    pl.read_parquet(path).select(pl.col("id").hash().alias("key"), "row").write_parquet(path, metadata=metadata)
    return path


BEFORE = [("same", "a", 1), ("changed", "b", 1), ("gone 1", "c", 1), ("gone 2", "d", 1)]
NOW = [("new 1", "x", 1), ("new 2", "y", 1), ("changed", "b", 2), ("new 3", None, None), ("same", "a", 1)]


def test_added_removed_and_changed_rows_are_counted(tmp_path: Path) -> None:
    before, now = keys_file(tmp_path / "before", BEFORE), keys_file(tmp_path / "now", NOW)
    assert difference(before, now) == Difference(added=3, removed=2, changed=1)
    assert difference(now, before) == Difference(added=2, removed=3, changed=1)


@pytest.mark.parametrize("rows", [NOW, []], ids=["rows", "no rows"])
def test_equal_exports_do_not_differ(tmp_path: Path, rows: list[tuple[str | int | None, ...]]) -> None:
    before, now = keys_file(tmp_path / "before", rows), keys_file(tmp_path / "now", rows[::-1])
    assert difference(before, now) == Difference(added=0, removed=0, changed=0)


def renamed(entity: Entity) -> Entity:
    return replace(entity, columns=(*entity.columns[:-1], replace(entity.columns[-1], name="revision")))


def retyped(entity: Entity) -> Entity:
    return replace(entity, columns=(*entity.columns[:-1], replace(entity.columns[-1], type="number")))


OTHER_COLUMNS = {
    "one more": (account((*COLUMNS, "code")), ("a", "b", 1, None)),
    "one less": (account(COLUMNS[:-1]), ("a", "b")),
    "another order": (account(("id", "version", "name")), ("a", 1, "b")),
    "another name": (renamed(account()), ("a", "b", 1)),
    "another type": (retyped(account()), ("a", "b", 1)),
}


@pytest.mark.parametrize(("entity", "row"), OTHER_COLUMNS.values(), ids=OTHER_COLUMNS)
def test_exports_of_other_columns_are_not_compared(
    tmp_path: Path, entity: Entity, row: tuple[str | int | None, ...]
) -> None:
    before, now = keys_file(tmp_path / "before", [("a", "b", 1)]), keys_file(tmp_path / "now", [row], entity)
    with pytest.raises(NotComparable) as refused:
        difference(before, now)
    reason = "the columns changed since the previous export, so every row would count as changed"
    assert str(refused.value) == reason


def test_what_is_no_column_does_not_matter(tmp_path: Path) -> None:
    described = replace(account(), title="Customer", description="Whoever pays.", foreign_keys=())
    before, now = keys_file(tmp_path / "before", BEFORE), keys_file(tmp_path / "now", NOW, described)
    assert difference(before, now) == Difference(added=3, removed=2, changed=1)


def test_a_file_of_the_version_before_is_not_compared(tmp_path: Path) -> None:
    before, now = of_hashes(keys_file(tmp_path / "before", BEFORE)), keys_file(tmp_path / "now", NOW)
    with pytest.raises(NotComparable, match="was written by an earlier version of m3ter-dagster"):
        difference(before, now)


@pytest.mark.parametrize("metadata", [{"polars": "0.20.31"}, None], ids=["another version", "no version"])
def test_a_file_of_another_polars_is_not_compared(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    before, now = keys_file(tmp_path / "before", BEFORE), keys_file(tmp_path / "now", NOW)
    pl.read_parquet(before).write_parquet(before, metadata=metadata)
    version = metadata["polars"] if metadata else None
    with pytest.raises(NotComparable, match=f"written with polars {version}, this one with {pl.__version__}"):
        difference(before, now)


def test_the_hash_of_the_columns_is_the_same_everywhere(tmp_path: Path) -> None:
    """A file is compared by another process, on another day: SHA-256 of [["id", "string"], ...]."""
    path = keys_file(tmp_path / "now", NOW)
    assert pl.read_parquet_metadata(path)["columns"] == (
        "996edf21528026ef458e2f1e9c2a4f4724c4aa617d69862a7e70d63d694b93fc"
    )
