"""Each export leaves its hashes in its destinations; the next one is compared with them, or says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest
from deliveries import CSV, EXPORT, destination, destinations
from stores import Store

from m3ter_dagster.delivery.destinations import PARQUET, Destinations
from m3ter_dagster.delivery.differences import Compared, Previous, compare
from m3ter_dagster.frames.difference import keys_of, row_hash
from m3ter_dagster.frames.format import RowsLost
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import find_entity
from m3ter_dagster.model.entity import Entity

ACCOUNT = find_entity("account")
NARROW = replace(ACCOUNT, columns=ACCOUNT.columns[:-1])
"""The same without its last column."""
NONE = {"added": 0, "changed": 0, "deleted": 0, "removed": 0}


@pytest.fixture
def warehouse(moto_store: Store, moto_bucket: str) -> Destinations:
    return destinations(destination(moto_store, moto_bucket))


def compared(
    folder: Path,
    to: Destinations,
    ids: Sequence[str],
    *,
    previous: Previous | None,
    entity: Entity = ACCOUNT,
    in_parts: Sequence[str] | None = None,
) -> Compared:
    """With the changes if `in_parts` says which rows the parts of the export have."""
    frame = pl.LazyFrame({"id": ids}).with_columns(
        pl.lit(None, dtype=dtype).alias(name) for name, dtype in frame_schema(entity).items() if name != "id"
    )
    export = replace(EXPORT, id="now" if previous else "before")
    return compare(
        frame.with_columns(row_hash(entity)).select(keys_of(entity)),
        entity,
        previous=previous,
        destinations=to,
        export=export,
        to=["warehouse"],
        folder=folder,
        format=CSV,
        parts=None if in_parts is None else [frame.filter(pl.col("id").is_in(in_parts))],
    )


def export_of(first: Compared, **changes: str) -> Previous:
    return Previous("before", [asdict(one) | changes for one in first.keys])


def test_the_first_export_has_nothing_to_be_compared_with(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a"], previous=None)
    assert first.difference == {"notCompared": "there is no previous export of this entity by the same schedule"}
    assert [one.destination for one in first.keys] == ["warehouse"]


def test_the_next_export_is_compared_with_the_first(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a", "b", "c"], previous=None)
    then = compared(tmp_path, warehouse, ["b", "d", "e", "c"], previous=export_of(first))
    assert then.difference == {"previous": "before", "added": 2, "removed": 1, "changed": 0, "deleted": 0}
    assert [one.name for one in tmp_path.iterdir()] == [first.keys[0].sha256], "others may need it too"


def test_a_new_column_is_told_in_words(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a", "b"], previous=None, entity=NARROW)
    then = compared(tmp_path, warehouse, ["a", "b"], previous=export_of(first))
    assert then.difference == {
        "notCompared": "the columns changed since the previous export, so every row would count as changed "
        "(previous export: before)"
    }


def test_hashes_that_are_gone_are_told_in_words(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a"], previous=None)
    then = compared(tmp_path, warehouse, ["a"], previous=export_of(first, uri=f"{first.keys[0].uri}.gone"))
    assert then.difference["notCompared"].startswith("the previous export before cannot be used: ")
    assert then.keys


def test_changes_are_delivered_in_a_folder_of_their_own(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a", "b"], previous=None, in_parts=["a", "b"])
    assert first.changes
    assert (first.changes.previous, first.changes.rows) == (None, {**NONE, "added": 2})
    assert first.changes.not_compared == first.difference["notCompared"]
    then = [compared(tmp_path, warehouse, ["c", "b"], previous=export_of(first), in_parts=["b", "c"]) for _ in range(2)]
    for again in then:
        assert again.changes
        assert (again.changes.previous, again.changes.rows) == ("before", {**NONE, "added": 1, "removed": 1})
        assert again.changes.not_compared is None
        (uri,) = (one.uri for one in again.changes.objects)
        assert uri.endswith("/type=account_changes/now_account_changes.csv")
    assert then[0].changes == then[1].changes, "a retry writes other bytes"
    assert [one.name for one in tmp_path.iterdir()] == [first.keys[0].sha256]


def test_without_the_changes_of_all_rows_nothing_is_delivered(tmp_path: Path, warehouse: Destinations) -> None:
    words = "the CSV of account_changes holds 1 rows instead of 2; it is not delivered"
    with pytest.raises(RowsLost, match=words):
        compared(tmp_path, warehouse, ["a", "b"], previous=None, in_parts=["a"])
    assert list(tmp_path.iterdir()) == []


def test_changes_since_an_export_without_ids_are_all_rows(tmp_path: Path, warehouse: Destinations) -> None:
    """It may be of another version of polars, too."""
    old = tmp_path / "old"
    pl.DataFrame({"key": [1], "row": [1]}).write_parquet(old, metadata={"polars": "0.1"})
    delivered = warehouse.deliver(old, EXPORT, "manifest", to=["warehouse"], kind=PARQUET)
    previous = Previous("before", list(map(asdict, delivered)))
    found = compared(tmp_path, warehouse, ["a"], previous=previous, in_parts=["a"])
    assert found.changes
    assert (found.changes.previous, found.changes.rows) == (None, {**NONE, "added": 1})
    assert "was written by an earlier version of m3ter-dagster" in (found.changes.not_compared or "")


def test_changes_since_other_columns_are_of_every_row(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a", "b"], previous=None, entity=NARROW)
    then = compared(tmp_path, warehouse, ["a", "c"], previous=export_of(first), in_parts=["a", "c"])
    assert then.changes
    assert (then.changes.previous, then.changes.rows) == ("before", {**NONE, "added": 1, "changed": 1, "removed": 1})
    assert (then.changes.not_compared or "").startswith("the columns changed since the previous export")


def test_an_altered_file_of_keys_is_not_compared_with(tmp_path: Path, warehouse: Destinations) -> None:
    first, other = (compared(tmp_path, warehouse, [id], previous=None) for id in "ab")
    assert first.keys[0].uri == other.keys[0].uri
    then = compared(tmp_path, warehouse, ["a"], previous=export_of(first), in_parts=["a"])
    assert then.changes
    assert (then.changes.previous, then.changes.rows) == (None, {**NONE, "added": 1})
    assert "has another sha256" in then.difference["notCompared"]
