"""Nothing is missing although rows are inserted, changed and deleted while their list is read."""

from __future__ import annotations

import random
import threading
from datetime import timedelta
from pathlib import Path
from typing import cast

import polars as pl
import pytest
from moving import MovingApi, MovingList, Record, record

from m3ter_dagster.frames.difference import read_keys, write_keys
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.model.entities import find_entity
from m3ter_dagster.reading.past import Past, Previous
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.reading.reading import Reading

PRODUCT = find_entity("product")
DAY = timedelta(days=1)


class World:
    """One list, and the exports of it, each of which knows the one before."""

    def __init__(self, folder: Path, *, rows: int, seed: int = 1, rate: float = 1.0, counts_rows: bool = True) -> None:
        records = [record(f"old-{place}", place) for place in reversed(range(rows))]
        self.products = MovingList(records, random.Random(seed), rate, counts_rows)
        self.api = MovingApi({"/products": self.products})
        self._folder = folder
        self._previous: Previous | None = None
        self._number = 0

    def export(self, *, keep: timedelta | None = 90 * DAY, two_passes: bool | None = None) -> Reading:
        self._number += 1
        folder = self._folder / str(self._number)
        self.api.asked.clear()
        self.products.deleted.clear()
        self.before = self.products.ids()
        stop = threading.Event()
        reader = OrganizationReader(cast(M3terClient, self.api), folder, stop=stop)
        previous = {"product": self._previous} if self._previous else {}
        reader.start([PRODUCT], past=Past(previous, two_passes=two_passes, keep_deleted=keep))
        try:
            reading = reader.read(PRODUCT, waiting=lambda _: None)
        finally:
            reader.close()
        write_keys(reading.all_keys, PRODUCT, folder / "keys.parquet")
        rows = reading.all_rows
        self._previous = Previous(PRODUCT, "before", lambda: read_keys(folder / "keys.parquet"), lambda: rows)
        return reading

    @property
    def stayed(self) -> set[str]:
        """The rows that existed from the first request to the last."""
        return self.before & self.products.ids()


def ids(reading: Reading) -> list[str]:
    return reading.frame.collect()["id"].to_list()


def deleted(reading: Reading) -> dict[str, Record]:
    assert reading.deleted
    rows = reading.deleted.rows.collect().rows(named=True)
    assert all(row["deleted"] is True for row in rows)
    return {row["id"]: row for row in rows}


def assert_nothing_lost(reading: Reading, world: World) -> None:
    found = ids(reading)
    assert world.stayed - set(found) == set()
    assert len(found) == len(set(found))


SEEDS = range(8)


@pytest.mark.slow
@pytest.mark.parametrize("counts_rows", [True, False], ids=["a cursor that counts", "a cursor that does not"])
@pytest.mark.parametrize("rate", [0.2, 1.0])
def test_no_row_that_stayed_is_missing_or_doubled(tmp_path: Path, rate: float, *, counts_rows: bool) -> None:
    recovered = 0
    for seed in SEEDS:
        world = World(tmp_path / str(seed), rows=3_000, seed=seed, rate=rate, counts_rows=counts_rows)
        for _ in range(3):
            reading = world.export()
            assert_nothing_lost(reading, world)
            assert reading.completeness
            recovered += reading.completeness.recovered
    assert (recovered > 0) is counts_rows, "nothing was ever in danger"


def test_a_list_that_stays_as_it_is_is_read_twice_and_then_once(tmp_path: Path) -> None:
    world = World(tmp_path, rows=1_000, rate=0)
    first = world.export()
    assert first.completeness
    assert (first.completeness.passes, len(world.api.asked)) == (2, 5 + 6)
    assert first.completeness.why.endswith("the same records in the same versions: a consistent snapshot")
    second = world.export()
    assert second.completeness
    assert (second.completeness.is_proven, len(world.api.asked), second.requests) == (True, 5, 5)
    assert sorted(ids(second)) == sorted(ids(first))


def test_a_version_that_rose_between_two_passes_is_no_snapshot_and_yet_complete(tmp_path: Path) -> None:
    world = World(tmp_path, rows=1_000)
    world.products.change_of = lambda products: products.records[999].update(version=len(world.api.asked))
    reading = world.export()
    assert reading.completeness
    assert reading.completeness.is_proven
    assert reading.completeness.why == "all that one pass read was still there in the next"


@pytest.mark.parametrize(("two_passes", "requests"), [(True, 11), (False, 5)])
def test_a_schedule_can_ask_for_two_passes_each_time_or_for_one_only(
    tmp_path: Path, *, two_passes: bool, requests: int
) -> None:
    world = World(tmp_path, rows=1_000, rate=0)
    first = world.export(two_passes=two_passes)
    assert len(world.api.asked) == requests
    assert first.completeness
    assert first.completeness.is_proven is two_passes
    assert ("read once, without an earlier export" in first.completeness.why) is not two_passes
    world.export(two_passes=two_passes)
    assert len(world.api.asked) == requests


def test_one_answer_proves_itself(tmp_path: Path) -> None:
    world = World(tmp_path, rows=200, rate=0)
    reading = world.export()
    assert reading.completeness
    assert reading.completeness.why == "each list came in one answer"
    assert len(world.api.asked) == 1


def test_each_deletion_stands_in_the_next_export_once_with_its_last_values(tmp_path: Path) -> None:
    world = World(tmp_path, rows=1_000, rate=0)
    world.export()
    last = dict(world.products.records[300])
    world.products.delete(300)
    world.products.delete(0)
    second = world.export()
    gone = deleted(second)
    assert gone.keys() == {last["id"], "old-999"}
    assert (gone[last["id"]]["version"], gone[last["id"]]["name"]) == (last["version"], last["name"])
    assert second.deleted
    assert (second.deleted.new, second.deleted.count, second.rows) == (2, 2, 998)
    third = world.export()
    assert deleted(third) == gone
    assert third.deleted
    assert third.deleted.new == 0
    assert len(world.api.asked) == 5, "what was deleted before is not asked for again"
    assert len(third.all_keys.collect()) == 1_000


def test_a_deleted_row_leaves_when_its_days_are_over(tmp_path: Path) -> None:
    world = World(tmp_path, rows=10, rate=0)
    world.export()
    world.products.delete(3)
    assert len(deleted(world.export())) == 1
    after = world.export(keep=timedelta(microseconds=1))
    assert deleted(after) == {}
    assert len(after.all_keys.collect()) == 9
    assert deleted(world.export()) == {}


def test_a_row_that_comes_back_is_no_longer_deleted(tmp_path: Path) -> None:
    world = World(tmp_path, rows=10, rate=0)
    world.export()
    gone = world.products.records[3]
    world.products.delete(3)
    world.export()
    world.products.records.insert(3, gone)
    back = world.export()
    assert deleted(back) == {}
    assert gone["id"] in ids(back)


def test_deleted_rows_can_be_left_out_and_are_counted_all_the_same(tmp_path: Path) -> None:
    world = World(tmp_path, rows=10, rate=0)
    world.export(keep=None)
    world.products.delete(3)
    second = world.export(keep=None)
    assert second.deleted
    assert (second.deleted.new, second.deleted.count, len(second.delivered)) == (1, 0, len(second.parts))
    assert len(second.all_keys.collect()) == 9


def lose_one(world: World) -> None:
    """While the second page is asked for, the newest row is deleted: row 200 slips to the end of the first page."""
    world.products.rate = 1.0
    world.products.change_of = lambda products: products.delete(0) if len(world.api.asked) == 2 else None


@pytest.mark.parametrize("rows", [2, 3, 4])
@pytest.mark.parametrize("understood", ["first", "last"])
def test_a_filter_that_takes_one_id_only_deletes_nothing_by_mistake(tmp_path: Path, understood: str, rows: int) -> None:
    world = World(tmp_path, rows=rows, rate=0)
    world.export()
    world.api.filters_by, world.api.hidden = understood, {"old-0"}
    second = world.export()
    assert deleted(second) == {}
    assert second.completeness
    assert not second.completeness.is_proven


@pytest.mark.parametrize("understood", ["repeated", "commas", "any", "ignored"])
def test_a_filter_by_ids_is_believed_only_if_it_gives_what_was_asked_for(tmp_path: Path, understood: str) -> None:
    world = World(tmp_path, rows=500, rate=0)
    world.export()
    world.api.filters_by = understood
    for place in (400, 300, 3):
        world.products.delete(place)
    fallen_out = world.products.records[200]["id"]
    lose_one(world)
    second = world.export()
    assert deleted(second).keys() == {"old-99", "old-199", "old-496"}
    assert second.completeness
    singles = [one for one in world.api.asked if isinstance(one, str)]
    assert bool(singles) is (understood == "ignored")
    assert (second.completeness.is_proven, second.completeness.recovered) == (True, 1)
    assert (second.completeness.passes > 1) is (understood == "ignored"), "then all is read again to find it"
    assert fallen_out in ids(second)


def test_of_rows_that_break_their_schema_nothing_is_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path, rows=1_000, rate=0)
    world.export()
    world.products.records[0]["name"] = 5
    with pytest.raises(SchemaBreached):
        world.export()
    assert len(world.api.asked) == 5


@pytest.mark.parametrize("refused", [{"ids", "single"}, {"ids"}])
def test_what_cannot_be_confirmed_is_not_deleted_and_asked_for_again_next_time(
    tmp_path: Path, refused: set[str]
) -> None:
    world = World(tmp_path, rows=1_000, rate=0)
    world.export()
    world.products.delete(700)
    world.api.refused = refused
    second = world.export()
    assert second.completeness
    is_confirmed = "single" not in refused
    assert second.completeness.is_proven is is_confirmed
    assert len(deleted(second)) == is_confirmed
    assert second.rows == 999
    if not is_confirmed:
        in_doubt = second.all_keys.collect().row(by_predicate=pl.col("id") == "old-299", named=True)
        assert (in_doubt["row"], in_doubt["deleted"]) == (None, None)
        assert "1 records could not be confirmed: GET /products/old-299 was refused with status 403" in (
            second.completeness.why
        )
        world.api.refused = set()
        assert deleted(world.export()).keys() == {"old-299"}


def test_of_the_rows_that_are_new_since_the_previous_export_none_falls_out(tmp_path: Path) -> None:
    world = World(tmp_path, rows=1_000, rate=0)
    world.export()
    for _ in range(450):
        world.products.insert()
    lose_one(world)
    second = world.export()
    assert second.completeness
    assert_nothing_lost(second, world)
    assert (second.completeness.recovered, second.completeness.is_proven) == (1, True)


def test_a_list_is_read_until_all_of_one_pass_is_still_there_in_the_next(tmp_path: Path) -> None:
    world = World(tmp_path, rows=1_000)
    pages = iter(range(1_000))
    world.products.change_of = lambda products: products.delete(0) if next(pages) == 3 else None
    reading = world.export()
    assert reading.completeness
    assert (reading.completeness.passes, reading.completeness.is_proven) == (3, True)
    assert_nothing_lost(reading, world)


def test_a_list_that_is_torn_in_each_pass_is_not_proven(tmp_path: Path) -> None:
    world = World(tmp_path, rows=1_000)
    pages = iter(range(1_000))
    world.products.change_of = lambda products: products.delete(0) if next(pages) % 5 == 3 else None
    reading = world.export()
    assert reading.completeness
    assert not reading.completeness.is_proven
    assert_nothing_lost(reading, world)
