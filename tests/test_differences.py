"""Each export leaves its hashes in its destinations; the next one is compared with them, or says why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import polars as pl
import pytest
from deliveries import EXPORT, destination, destinations
from stores import Store

from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.delivery.differences import Compared, Previous, compare
from m3ter_dagster.frames.difference import keys_of, row_hash
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import Entity, find_entity

ACCOUNT = find_entity("account")
NARROW = replace(ACCOUNT, columns=ACCOUNT.columns[:-1])
"""The same without its last column."""


@pytest.fixture
def warehouse(moto_store: Store, moto_bucket: str) -> Destinations:
    return destinations(destination(moto_store, moto_bucket))


def compared(
    folder: Path, to: Destinations, ids: Sequence[str], *, previous: Previous | None, entity: Entity = ACCOUNT
) -> Compared:
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
    assert list(tmp_path.iterdir()) == []


def test_a_new_column_is_told_in_words(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a", "b"], previous=None, entity=NARROW)
    then = compared(tmp_path, warehouse, ["a", "b"], previous=export_of(first))
    assert then.difference == {
        "notCompared": "the columns changed since the previous export, so every row would count as changed "
        "(previous export: before)"
    }
    assert list(tmp_path.iterdir()) == []


def test_hashes_that_are_gone_are_told_in_words(tmp_path: Path, warehouse: Destinations) -> None:
    first = compared(tmp_path, warehouse, ["a"], previous=None)
    then = compared(tmp_path, warehouse, ["a"], previous=export_of(first, uri=f"{first.keys[0].uri}.gone"))
    assert then.difference["notCompared"].startswith("the previous export before cannot be used: ")
    assert then.keys
