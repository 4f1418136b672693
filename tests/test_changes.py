"""For any two exports, the rows of the previous one and its changes give those of the current one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from api_rows import UNHURRIED
from hypothesis import given
from hypothesis import strategies as st

from m3ter_dagster.frames.changes import Changes, all_added, changes_since
from m3ter_dagster.frames.difference import (
    DELETED,
    KEYS_SCHEMA,
    LAST,
    ROW,
    IdsUnknown,
    count_kinds,
    difference,
    encoded_cells,
    keys_of,
    kinds,
    row_hash,
    write_keys,
)
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.changes import KINDS, changes_table
from m3ter_dagster.model.entities import entities, find_entity
from m3ter_dagster.model.entity import Entity

PRODUCT = replace(find_entity("product"), columns=tuple(map(find_entity("product").column, ("id", "name", "deleted"))))
THEN = datetime(2026, 3, 1, tzinfo=UTC)
Row = dict[str, Any]
Cells = tuple[str | None, bool]


@dataclass(frozen=True)
class Written:
    """An export: the parts of its file, and its file of keys."""

    parts: Sequence[pl.LazyFrame]
    keys: Path

    @property
    def rows(self) -> dict[str, Row]:
        return {row["id"]: row for part in self.parts for row in part.collect().rows(named=True)}


def write(
    path: Path,
    there: Mapping[str, Cells],
    doubtful: Sequence[str] = (),
    *,
    entity: Entity = PRODUCT,
    cells: str = "",
    rows_a_part: int = 2,
) -> Written:
    """An export with these names, and whether each is deleted; of the doubtful it has the keys only."""
    rows = [{"id": id, "name": name, "deleted": deleted} for id, (name, deleted) in there.items()]
    frame = pl.LazyFrame(rows, schema=frame_schema(entity))
    since = pl.when("deleted").then(pl.lit(THEN, pl.Datetime("us", "UTC")))
    last = pl.when("deleted").then(encoded_cells(entity))
    keys = frame.with_columns(row_hash(entity), since.alias("since"), last.alias(LAST)).select(
        *keys_of(entity)[:3], pl.col("since").alias(DELETED), LAST
    )
    doubts = pl.LazyFrame([{"id": id} for id in doubtful], schema=KEYS_SCHEMA)
    write_keys(pl.concat([keys, doubts]), entity, path, cells=cells)
    return Written([frame.slice(place, rows_a_part) for place in range(0, len(rows), rows_a_part)], path)


def changes_of(previous: Written, current: Written, folder: Path, entity: Entity = PRODUCT) -> Changes:
    return changes_since(previous.keys, current.keys, current.parts, entity, folder / "changes")


def rows_of(changes: Changes) -> list[Row]:
    return [row for part in changes.parts for row in part.collect().rows(named=True)]


def kinds_of(changes: Changes) -> dict[str, str]:
    return {row["id"]: row["change"] for row in rows_of(changes)}


def applied(changes: Sequence[Row], to: Mapping[str, Row]) -> dict[str, Row]:
    """What a MERGE does: what is removed is deleted, and everything else replaces the row with its id."""
    target = dict(to)
    for row in changes:
        if row["change"] == "removed":
            target.pop(row["id"], None)
        else:
            target[row["id"]] = {name: value for name, value in row.items() if name != "change"}
    return target


IDS = [f"row {number}" for number in range(6)]
STATES = st.sampled_from(["absent", "doubtful", *[(name, gone) for name in (None, "", "a") for gone in (False, True)]])
EXPORTS = st.lists(st.lists(STATES, min_size=len(IDS), max_size=len(IDS)), min_size=1, max_size=4)


@UNHURRIED
@given(exports=EXPORTS, other_cells=st.booleans())
def test_changes_in_their_order_give_the_last_full_file(exports: list[list[Any]], *, other_cells: bool) -> None:
    """But for rows in doubt, which stay as they were."""
    target: dict[str, Row] = {}
    known: set[str] = set()
    previous: Written | None = None
    with tempfile.TemporaryDirectory() as name:
        for number, states in enumerate(exports):
            folder, found = Path(name) / str(number), dict(zip(IDS, states, strict=True))
            folder.mkdir()
            there = {id: state for id, state in found.items() if isinstance(state, tuple)}
            # Only what the export before knows of can be in doubt.
            doubtful = [id for id, state in found.items() if state == "doubtful" and id in known]
            current = write(folder / "keys", there, doubtful, cells=str(number) if other_cells else "")
            changes = changes_of(previous, current, folder) if previous else all_added(current.parts, current.keys)
            rows = rows_of(changes)
            before, target = target, applied(rows, target)
            assert len({row["id"] for row in rows}) == len(rows) == sum(changes.counts.values())
            assert {id: row for id, row in target.items() if id not in doubtful} == current.rows
            assert {id: target.get(id) for id in doubtful} == {id: before.get(id) for id in doubtful}
            known, previous = {*there, *doubtful}, current


BEFORE = {
    "same": ("a", False),
    "gone": ("a", True),
    "other": ("a", False),
    "dies": ("a", False),
    "leaves": ("a", False),
}
NOW = {"new": ("a", False), "other": ("b", False), "same": ("a", False), "gone": ("a", True), "dies": ("a", True)}


def test_each_change_has_its_kind_and_rows_stay_in_their_order(tmp_path: Path) -> None:
    changes = changes_of(write(tmp_path / "before", BEFORE), write(tmp_path / "now", NOW), tmp_path)
    assert rows_of(changes) == [
        {"id": "new", "name": "a", "deleted": False, "change": "added"},
        {"id": "other", "name": "b", "deleted": False, "change": "changed"},
        {"id": "dies", "name": "a", "deleted": True, "change": "deleted"},
        {"id": "leaves", "name": None, "deleted": None, "change": "removed"},
    ]
    assert (changes.counts, changes.not_compared) == (dict.fromkeys(KINDS, 1), None)


def test_a_row_that_was_deleted_leaves_with_its_last_cells(tmp_path: Path) -> None:
    before = write(tmp_path / "before", {"gone": ("last", True), "dies": ("a", False)})
    changes = changes_of(before, write(tmp_path / "now", {}), tmp_path)
    assert rows_of(changes) == [
        {"id": "gone", "name": "last", "deleted": True, "change": "removed"},
        {"id": "dies", "name": None, "deleted": None, "change": "removed"},
    ]


def test_equal_exports_have_no_changes(tmp_path: Path) -> None:
    before, now = write(tmp_path / "before", BEFORE), write(tmp_path / "now", dict(reversed(BEFORE.items())))
    changes = changes_of(before, now, tmp_path)
    assert (rows_of(changes), set(changes.counts.values())) == ([], {0})


def test_without_an_export_before_all_rows_are_added(tmp_path: Path) -> None:
    now = write(tmp_path / "now", NOW, ["doubtful"])
    changes = all_added(now.parts, now.keys)
    assert kinds_of(changes) == dict.fromkeys(NOW, "added")
    assert changes.counts == {"added": len(NOW), "changed": 0, "deleted": 0, "removed": 0}


def test_a_row_in_doubt_is_no_change_until_it_is_none(tmp_path: Path) -> None:
    there = write(tmp_path / "there", {"x": ("a", False)})
    doubt, again = write(tmp_path / "doubt", {}, ["x"]), write(tmp_path / "again", {}, ["x"])
    died, gone = write(tmp_path / "died", {"x": ("a", True)}), write(tmp_path / "gone", {})
    pairs = [(there, doubt), (doubt, again), (doubt, there), (doubt, died), (doubt, gone)]
    found = [kinds_of(changes_of(*pair, Path(tempfile.mkdtemp(dir=tmp_path)))) for pair in pairs]
    assert found == [{}, {}, {"x": "added"}, {"x": "deleted"}, {"x": "removed"}]
    assert difference(there.keys, doubt.keys).changed == 0


WIDER = replace(PRODUCT, columns=tuple(map(find_entity("product").column, ("id", "name", "code", "deleted"))))
RETYPED = replace(
    PRODUCT, columns=(PRODUCT.columns[0], replace(PRODUCT.columns[1], type="integer"), PRODUCT.columns[2])
)


@pytest.mark.parametrize("how", ["polars", "columns", "types", "cells"])
def test_where_hashes_say_nothing_every_row_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    with monkeypatch.context() as then:
        if how == "polars":
            then.setattr(pl, "__version__", "0.1")
        before = write(tmp_path / "before", {**BEFORE, "fades": ("a", True)})
    entity = {"columns": WIDER, "types": RETYPED}.get(how, PRODUCT)
    names = {id: (None if how == "types" else name, gone) for id, (name, gone) in NOW.items()}
    now = write(tmp_path / "now", names, entity=entity, cells="Csv" if how == "cells" else "")
    changes = changes_of(before, now, tmp_path, entity)
    assert kinds_of(changes) == {
        "new": "added",
        **dict.fromkeys(["same", "other", "gone"], "changed"),
        "dies": "deleted",
        "leaves": "removed",
        "fades": "removed",
    }
    words = {"polars": "with polars 0.1", "cells": "cells are written as Csv now, and were as  before"}
    assert words.get(how, "the columns changed since the previous export") in (changes.not_compared or "")
    (faded,) = [row for row in rows_of(changes) if row["id"] == "fades"]
    assert (faded["name"], faded["deleted"]) == (None if how == "types" else "a", True)


def test_a_file_without_ids_cannot_be_used(tmp_path: Path) -> None:
    before, now = write(tmp_path / "before", BEFORE), write(tmp_path / "now", NOW)
    pl.read_parquet(before.keys).select(pl.col("id").hash().alias("key"), ROW).write_parquet(before.keys)
    with pytest.raises(IdsUnknown):
        changes_of(before, now, tmp_path)


@pytest.mark.parametrize("at_once", [1, 2, 1000])
def test_a_few_hashes_at_a_time_find_the_same(tmp_path: Path, at_once: int) -> None:
    before, now = write(tmp_path / "before", BEFORE), write(tmp_path / "now", NOW)
    found = list(kinds(before.keys, now.keys, at_once=at_once))
    assert len(found) == len(BEFORE) // at_once + 1
    assert count_kinds(pl.concat(found)) == dict.fromkeys(KINDS, 1)


@pytest.mark.parametrize("entity", entities().values(), ids=lambda entity: entity.name)
def test_a_file_of_changes_has_the_columns_of_its_entity_and_the_change(entity: Entity) -> None:
    table, schema = changes_table(entity), json.loads(changes_table(entity).table_schema)
    names = [column.name for column in entity.columns]
    assert [column.name for column in table.columns] == [*names, "change"] == [one["name"] for one in schema["fields"]]
    assert [one["name"] for one in schema["fields"] if one.get("constraints", {}).get("required")] == ["id", "change"]
    assert (table.name, table.primary_key, table.foreign_keys) == (f"{entity.name}_changes", "id", ())
    assert "foreignKeys" not in schema
    assert schema["fields"][-1]["constraints"]["enum"] == ["added", "changed", "deleted", "removed"]
