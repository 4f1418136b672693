"""Line items are read bill by bill where that is faster: the same rows, whatever comes and goes in the meantime."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from scripted_api import KEY, ORGANIZATION, SECRET, Answer, Request, ScriptedApi, page, refusal

from m3ter_dagster.frames.difference import KEY as ROW_KEY
from m3ter_dagster.frames.difference import ROW, hashes
from m3ter_dagster.frames.schema import SchemaBreached, frame_schema
from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.model.entities import find_entity
from m3ter_dagster.reading.collectors import RecordIds
from m3ter_dagster.reading.long_list import Outlook
from m3ter_dagster.reading.pages import Pages, ReaderLimits
from m3ter_dagster.reading.past import Past
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.reading.reading import Reading, Reuse
from m3ter_dagster.reading.unchanged import Earlier, EarlierRows
from m3ter_sandbox import SampleOrganization, SandboxApi

AT_ONCE = ReaderLimits(pages_before_choice=2, advantage=0.0)
"""Any other way is taken as soon as it is known."""
NEVER = ReaderLimits(pages_before_choice=2, advantage=1e9)
PAGE = 4
OLD = {"dtLastModified": "2025-01-01T00:00:00Z"}
UNLIMITED = Limits(requests_per_second=10_000)


class World:
    """Bills and their line items, newest first, as the lists of m3ter show them from moment to moment."""

    def __init__(self, bills: int, lines: int) -> None:
        self.bills: list[dict[str, Any]] = [{"id": f"b{number}", "version": 1, **OLD} for number in range(bills)]
        self.items = [self.item(f"b{number}", line) for number in range(bills) for line in range(lines)]
        self.change: Callable[[str], Answer | None] = lambda _: None
        """Told of each bill whose line items are asked for, before it is answered; may answer instead."""
        self.bills_answer: Answer | None = None
        self.change: Callable[[str], Answer | None] = lambda _: None
        """Told of each bill whose line items are asked for, before it is answered; may answer instead."""
        self.bills_answer: Answer | None = None
        self.bills_are_asked_for = threading.Event()
        """Before that, the whole list does not go on for long."""

    @staticmethod
    def item(bill: str | None, line: int) -> dict[str, Any]:
        return {"id": f"{bill}/{line}", "version": 1, "billId": bill, "description": f"line {line} of {bill}"}

    def add(self, bill: str, lines: int) -> None:
        self.bills.insert(0, {"id": bill, "version": 1})
        self.items[:0] = [self.item(bill, line) for line in range(lines)]

    def remove(self, bill: str) -> None:
        self.bills = [one for one in self.bills if one["id"] != bill]
        self.items = [one for one in self.items if one["billId"] != bill]

    def all_bills(self, _: Request) -> Answer:
        return self.bills_answer or page(*self.bills)

    def all_items(self, request: Request) -> Answer:
        return self.paged(self.items, request)

    def items_of(self, request: Request) -> Answer:
        bill = request.path.split("/")[-2]
        if instead := self.change(bill):
            return instead
        if not any(one["id"] == bill for one in self.bills):
            return refusal(404, f"no bill {bill}")
        return self.paged([one for one in self.items if one["billId"] == bill], request)

    @staticmethod
    def paged(rows: list[dict[str, Any]], request: Request) -> Answer:
        """The pages of the whole list are small, so that it is long; a cursor names the row that it goes on with."""
        following = request.query.get("nextToken")
        first = next((number for number, row in enumerate(rows) if row["id"] == following), 0)
        rest = rows[first + PAGE :]
        return page(*rows[first : first + PAGE], next_token=rest[0]["id"] if rest else None)


Serve = Callable[[World], ScriptedApi]
ReaderOf = Callable[..., OrganizationReader]


@pytest.fixture
def serve(no_proxy: None) -> Iterator[Serve]:  # noqa: ARG001
    with ExitStack() as stack:

        def make(world: World, **lists: Any) -> ScriptedApi:
            scripts = {f"/bills/{name}/lineitems": world.items_of for name in [f"b{n}" for n in range(40)] + ["x", "y"]}
            whole = {"/bills": world.all_bills, "/lineitems": world.all_items, **lists}
            return stack.enter_context(ScriptedApi(scripts | whole))

        yield make


@pytest.fixture
def reader_of(tmp_path: Path) -> Iterator[ReaderOf]:
    readers: list[OrganizationReader] = []

    def make(api: ScriptedApi | SandboxApi, limits: ReaderLimits = AT_ONCE) -> OrganizationReader:
        stop, is_scripted = threading.Event(), isinstance(api, ScriptedApi)
        credentials = Credentials(KEY, SECRET) if is_scripted else Credentials(api.key, api.secret)
        org_id = ORGANIZATION if is_scripted else api.organization_id
        client = M3terClient(api.base_url, org_id, credentials, limits=UNLIMITED, stop=stop)
        readers.append(OrganizationReader(client, tmp_path / f"{len(readers)}", stop=stop, limits=limits))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


def read(reader: OrganizationReader) -> Reading:
    """The line items, begun when the bills are known, so that no test depends on which of the two lists is faster."""
    reader.collected(find_entity("bill").listing, RecordIds)
    return read_alone(reader)


def read_alone(reader: OrganizationReader) -> Reading:
    return reader.read(find_entity("bill_line_item"), waiting=lambda _: None)


def frames_of(world: World) -> EarlierRows:
    """An export of all there is, when every bill was in its first version."""
    bill, item = find_entity("bill"), find_entity("bill_line_item")
    bills = pl.LazyFrame([{**one, "version": 1} for one in world.bills], schema=frame_schema(bill))
    items = pl.LazyFrame(world.items, schema=frame_schema(item)).with_columns(hashes(item))
    return EarlierRows("earlier", bills, items, items.select(ROW_KEY, ROW), datetime(2026, 1, 1, tzinfo=UTC))


def read_reusing(reader: OrganizationReader, known: EarlierRows, *chosen: str) -> Reading:
    earlier = {"bill_line_item": Earlier(lambda _: known, full_every=7, reused_in_a_row=2)}
    reader.start(map(find_entity, chosen or ("bill", "bill_line_item")), past=Past(reused=earlier, two_passes=False))
    return read_alone(reader)


def rows(reading: Reading) -> list[tuple[Any, ...]]:
    return reading.frame.collect().rows()


def ids(reading: Reading) -> list[str]:
    return reading.frame.collect()["id"].to_list()


def asked_by_bill(api: ScriptedApi) -> list[str]:
    return [
        one.path.split("/")[-2] for one in api.requests if one.path.endswith("/lineitems") and "/bills/" in one.path
    ]


# The choice


def outlook(
    lines: int, *, bills: int = 10_000, per_second: float = 50, latency: float = 0.1, others: int = 0
) -> Outlook:
    requests = bills * -(-lines // 100)
    return Outlook("bill", bills, lines, False, requests, others, 1 / per_second, bills * lines // 100, latency)


@pytest.mark.parametrize(
    ("one", "by_parent"),
    [
        (outlook(5), False),
        (outlook(20), False),
        (outlook(24), True),
        (outlook(100), True),
        (outlook(250), True),
        (outlook(24, latency=0.05), False),
        (outlook(24, per_second=25), False),
        (outlook(9, latency=0.3), True),
        (outlook(40, others=9_000), False),
        (outlook(0), False),
        (outlook(0, bills=0), False),
    ],
)
def test_what_is_clearly_faster_is_chosen(one: Outlook, by_parent: bool) -> None:
    assert one.is_faster_by_parent(ReaderLimits().advantage) == by_parent


def test_the_choice_is_worded() -> None:
    by_bill = "bill by bill (1,200 with about 35 rows each): about 1,200 requests side by side in 24 s"
    one = outlook(35, bills=1200)
    assert one.words(by_parent=True) == f"{by_bill}, instead of about 420 more pages one after the other in 42 s"
    assert replace(one, is_at_least=True).words(by_parent=True) == (
        "bill by bill (1,200 with at least 35 rows each): at least 1,200 requests side by side in 24 s, instead of "
        "at least 420 more pages one after the other in 42 s"
    )
    assert one.words(by_parent=False) == (
        f"over one cursor: about 420 more pages one after the other in 42 s, instead of {by_bill}"
    )


def test_many_lines_per_bill_are_read_bill_by_bill(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)
    api = serve(world)
    reader = reader_of(api, replace(AT_ONCE, bytes_ahead=1))
    reading = read(reader)
    assert sorted(rows(reading)) == sorted(rows(read(reader_of(serve(world), NEVER))))
    assert (reading.rows, reading.duplicates, reading.requests) == (330, 0, 90)
    assert reading.how
    assert reading.how.startswith("bill by bill (30 with about 11 rows each): about 90 requests side by side in 0 s, ")
    assert set(asked_by_bill(api)) == {f"b{number}" for number in range(30)}
    assert len([one for one in api.asked("/lineitems") if "nextToken" not in one.query]) == 2
    assert len(api.asked("/lineitems")) < 330 / PAGE


def test_the_rows_are_those_of_the_cursor_cell_by_cell(reader_of: ReaderOf) -> None:
    with SandboxApi(SampleOrganization(12).records(), requests_per_second=None) as api:
        by_bill, over_cursor = read(reader_of(api)), read(reader_of(api, NEVER))
    assert (by_bill.how or "").startswith("bill by bill")
    assert (over_cursor.how or "").startswith("over one cursor: ")
    both = [one.frame.collect() for one in (by_bill, over_cursor)]
    assert both[0].sort("id").equals(both[1].sort("id"))
    assert both[0]["billId"].rle().len() == both[0]["billId"].n_unique()


def test_of_large_bills_a_few_pages_are_enough_to_choose(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=4, lines=40)
    api = serve(world)
    reading = read(reader_of(api))
    assert reading.how
    assert reading.how.startswith("bill by bill (4 with at least 12 rows each): at least 12 requests side by side ")
    assert set(ids(reading)) == {item["id"] for item in world.items}
    assert len(asked_by_bill(api)) == 4 * 3 + 4 * 10


@pytest.mark.parametrize("pages", [1, 2])
def test_a_short_list_needs_no_bills(reader_of: ReaderOf, serve: Serve, pages: int) -> None:
    api = serve(World(bills=pages, lines=PAGE))
    reading = read_alone(reader_of(api))
    assert (reading.rows, reading.how) == (pages * PAGE, None)
    assert api.asked("/bills") == asked_by_bill(api) == []


def test_the_bills_are_read_once_for_all(reader_of: ReaderOf, serve: Serve) -> None:
    api = serve(World(bills=30, lines=30))
    reader = reader_of(api)
    reader.start([find_entity("bill"), find_entity("bill_line_item")])
    assert (read_alone(reader).how or "").startswith("bill by bill")
    assert reader.read(find_entity("bill"), waiting=lambda _: None).rows == 30
    assert len(api.asked("/bills")) == 1


WHY_NOT: dict[str, tuple[Callable[[World], None], str]] = {
    "a bill without an id": (
        lambda world: setattr(world, "bills_answer", page(*world.bills, {"version": 1})),
        "1 of the bill records have no id",
    ),
    "the lists of the bills are refused": (
        lambda world: setattr(world, "change", lambda _: refusal(403, "Forbidden")),
        "GET .*/bills/b.*/lineitems.* was refused with status 403",
    ),
    "the lists of the bills are not there": (
        lambda world: setattr(world, "change", lambda _: refusal(404, "no route")),
        "GET .*/bills/b.*/lineitems.* was refused with status 404",
    ),
    "rows of no bill": (
        lambda world: world.items.insert(0, World.item(None, 0)),
        "there are rows without billId",
    ),
    "the lists of the bills leave out whose they are": (
        lambda world: setattr(world, "change", lambda _: page({"id": "b0/0"})),
        "there are rows without billId",
    ),
    "every bill's list is that of another": (
        lambda world: setattr(world, "change", lambda _: page(World.item("x", 0))),
        "the rows of one bill name another",
    ),
}


@pytest.mark.parametrize(("spoil", "why"), WHY_NOT.values(), ids=WHY_NOT)
def test_the_cursor_is_followed_to_its_end_where_bill_by_bill_is_not_safe(
    reader_of: ReaderOf, serve: Serve, spoil: Callable[[World], None], why: str
) -> None:
    world = World(bills=30, lines=11)
    spoil(world)
    reading = read(reader_of(serve(world)))
    assert ids(reading) == [item["id"] for item in world.items]
    with pytest.raises(AssertionError, match=f"^over one cursor, not bill by bill: {why}"):
        raise AssertionError(reading.how)


def test_so_it_is_where_the_bills_are_refused(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=30)
    world.bills_answer = refusal(403, "Forbidden")
    reading = read_alone(reader_of(serve(world)))
    assert ids(reading) == [item["id"] for item in world.items]
    assert (reading.how or "").startswith(
        "over one cursor, not bill by bill: the bill records cannot be listed: GET http://127.0.0.1:"
    )


# What comes and goes in between


def test_a_bill_that_comes_in_between_is_read_too(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)
    first, last = set[str](), set[str]()

    def change(bill: str) -> None:
        """When the last of the known bills is read there is one more, and again when that one is read."""
        for trigger, name, told in (("b29", "x", first), ("x", "y", last)):
            if bill == trigger and not told:
                told.add(bill)
                world.add(name, 3)

    world.change = change
    reading = read(reader_of(serve(world)))
    assert ids(reading)[-6:] == ["x/0", "x/1", "x/2", "y/0", "y/1", "y/2"]
    assert set(ids(reading)) == {item["id"] for item in world.items}
    assert (reading.how or "").endswith("; 2 more came in between")


def test_so_it_is_where_the_other_bills_are_known(reader_of: ReaderOf, serve: Serve) -> None:
    """No line item of theirs is requested, and that of the new bill is older than the bills that were read."""
    world = World(bills=30, lines=14)
    for number in (5, 6):
        world.bills[number]["version"] = 2
    at_first, known = list(world.bills), frames_of(world)
    world.add("x", PAGE + 1)
    world.bills_answer = page(*at_first)

    def change(bill: str) -> None:
        if bill == "b6":
            world.add("y", 1)

    world.change = change
    api = serve(world)
    reader = reader_of(api)
    reading = read_reusing(reader, known)
    assert set(ids(reading)) == {item["id"] for item in world.items}
    assert set(asked_by_bill(api)) == {"b5", "b6", "x", "y"}
    assert reading.how == (
        "bill by bill, 2 of 30: the others have not changed, so their 392 rows are taken from export earlier; "
        "2 more came in between"
    )
    assert reading.reuse == Reuse("earlier", 28, 392, in_a_row=3)
    assert reading.started == reader.read(find_entity("bill"), waiting=lambda _: None).started


def test_where_the_bills_are_not_read_nothing_is_taken_over(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=14)
    reading = read_reusing(reader_of(serve(world), NEVER), frames_of(world), "bill_line_item")
    assert (reading.rows, reading.reuse) == (420, None)


def test_what_was_taken_over_is_dropped_where_bill_by_bill_fails(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=14)
    world.bills[5]["version"] = 2
    known = frames_of(world)
    world.change = lambda _: refusal(403, "Forbidden")
    reading = read_reusing(reader_of(serve(world)), known)
    assert ids(reading) == [item["id"] for item in world.items]
    assert (reading.how or "").startswith("over one cursor after all, since bill by bill failed: GET ")
    assert (reading.reuse, reading.duplicates) == (None, 0)


def test_it_is_found_behind_new_rows_of_bills_that_are_known(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)

    def change(bill: str) -> None:
        if bill == "b29" and len(world.bills) == 30:
            world.add("x", 3)
            world.items[:0] = [World.item("b7", 100 + line) for line in range(2 * PAGE)]

    world.change = change
    assert {"x/0", "x/1", "x/2"} <= set(ids(read(reader_of(serve(world)))))


def test_it_is_found_even_if_it_is_not_quite_the_newest(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)

    def change(bill: str) -> None:
        if bill == "b29" and len(world.bills) == 30:
            world.add("x", 1)
            world.bills.insert(0, {"id": "y", "version": 1})
            world.items.insert(PAGE + 1, World.item("y", 0))

    world.change = change
    assert set(ids(read(reader_of(serve(world))))) == {item["id"] for item in world.items}


def test_a_bill_that_is_known_from_its_rows_only_is_read_too(reader_of: ReaderOf, serve: Serve) -> None:
    """It came between the first page of the bills and that of the line items, and stands on the second of these."""
    world = World(bills=30, lines=3)
    world.bills_answer = page(*(bill for bill in world.bills if bill["id"] != "b2"))
    reading = read(reader_of(serve(world)))
    assert set(ids(reading)) == {item["id"] for item in world.items}
    assert reading.how
    assert "bill by bill (29 with" in reading.how
    assert reading.how.endswith("; 1 more came in between")


def test_the_cursor_does_not_wait_for_the_bills(reader_of: ReaderOf, serve: Serve) -> None:
    world, is_read = World(bills=30, lines=3), threading.Event()
    world.bills_answer = replace(page(*world.bills), waits_for=is_read)
    at_last = threading.Timer(10, is_read.set)
    at_last.start()
    reading = read_alone(reader_of(serve(world)))
    is_read.set()
    at_last.cancel()
    assert (ids(reading), reading.how) == ([item["id"] for item in world.items], None)


def test_a_bill_that_goes_in_between_is_named_as_gone(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)

    def change(bill: str) -> None:
        if bill == "b28":  # which is no part of the sample
            world.remove("b28")

    world.change = change
    reading = read(reader_of(serve(world)))
    assert set(ids(reading)) == {f"b{bill}/{line}" for bill in range(30) for line in range(11) if bill != 28}
    assert (reading.how or "").endswith("; 1 no longer there, says m3ter with status 404, and so without rows")


def test_rows_of_a_bill_that_is_not_there_are_read_over_the_cursor(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)
    world.bills.pop(0)
    reading = read(reader_of(serve(world), replace(AT_ONCE, restarts=0)))
    assert ids(reading) == [item["id"] for item in world.items]
    assert reading.duplicates == 0
    assert reading.how == (
        "over one cursor after all, since bill by bill failed: m3ter listed rows of a bill and says with status 404 "
        "that there is none"
    )


def test_so_are_those_of_one_that_came_in_between(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)

    def change(bill: str) -> None:
        if bill == "b29" and len(world.items) == 330:
            world.items[:0] = [World.item("x", 0)]

    world.change = change
    reading = read(reader_of(serve(world)))
    assert ids(reading) == [item["id"] for item in world.items]


def test_all_is_read_over_the_cursor_after_a_refusal_on_the_way(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)
    world.change = lambda bill: refusal(403, "Forbidden") if bill == "b28" else None
    reading = read(reader_of(serve(world)))
    assert ids(reading) == [item["id"] for item in world.items]
    assert (reading.how or "").startswith("over one cursor after all, since bill by bill failed: GET ")


def test_what_is_still_to_be_read_side_by_side_is_counted(serve: Serve) -> None:
    api = serve(World(bills=40, lines=1))
    stop, listing = threading.Event(), find_entity("bill_line_item").listing
    client = M3terClient(api.base_url, ORGANIZATION, Credentials(KEY, SECRET), limits=UNLIMITED, stop=stop)
    pages = Pages(client, ReaderLimits())
    for taken, _ in enumerate(pages.side_by_side(listing, [f"b{one}" for one in range(40)])):
        assert pages.to_come == 40 - taken
    assert pages.to_come == 0
    abandoned = pages.side_by_side(listing, [f"b{one}" for one in range(40)])
    next(abandoned)
    del abandoned
    assert pages.to_come == 0
    pages.close()


@pytest.mark.parametrize(("per_second", "seconds"), [(50, 0.02), (10_000, 0.005)])
def test_a_request_takes_its_time_at_any_pace(per_second: float, seconds: float) -> None:
    limits = Limits(requests_per_second=per_second)
    client = M3terClient(
        "http://m3ter.test", ORGANIZATION, Credentials(KEY, SECRET), limits=limits, stop=threading.Event()
    )
    assert Pages(client, ReaderLimits()).seconds_per_request == seconds


def test_the_list_of_a_bill_whose_cursor_expires_is_read_anew(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)
    asked: list[str] = []

    def change(bill: str) -> Answer | None:
        asked.append(bill)
        return refusal(410, "expired") if bill == "b28" and asked.count(bill) == 2 else None

    world.change = change
    reading = read(reader_of(serve(world)))
    assert (set(ids(reading)), reading.duplicates) == ({item["id"] for item in world.items}, 0)
    assert (reading.how or "").startswith("bill by bill")


def test_the_whole_list_may_expire_before_the_choice(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)
    whole: list[Request] = []

    def expiring(request: Request) -> Answer:
        whole.append(request)
        return refusal(410, "expired") if len(whole) == 2 else world.all_items(request)

    reading = read(reader_of(serve(world, **{"/lineitems": expiring})))
    assert (set(ids(reading)), reading.duplicates) == ({item["id"] for item in world.items}, 0)
    assert (reading.how or "").startswith("bill by bill")


def test_the_ids_of_the_bills_are_read_anew_after_a_failure(reader_of: ReaderOf, serve: Serve) -> None:
    world = World(bills=30, lines=11)
    bad = {**World.item("b29", 99), "description": 5}
    world.items.append(bad)
    api = serve(world)
    reader = reader_of(api)
    with pytest.raises(SchemaBreached):
        read(reader)
    world.items.remove(bad)
    assert set(ids(read(reader))) == {item["id"] for item in world.items}
    assert len(api.asked("/bills")) == 2
