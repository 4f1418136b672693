"""Entities are read side by side, each list once, and a whole entity is one frame whatever the pages looked like."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import polars as pl
import pytest
from scripted_api import KEY, ORGANIZATION, SECRET, Answer, Request, ScriptedApi, page, refusal

from m3ter_dagster.frames.schema import SchemaBreached, frame_schema
from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.errors import Refused
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.model.entities import entities, find_entity
from m3ter_dagster.model.entity import ForEach, Listing
from m3ter_dagster.reading.collectors import RecordIds
from m3ter_dagster.reading.reader import OrganizationReader, ReaderLimits
from m3ter_dagster.reading.reading import EntityUnreadable, Reading
from m3ter_dagster.reading.spool import Batches
from m3ter_sandbox import SampleOrganization, SandboxApi

SAMPLE = SampleOrganization(9)
LONG = 10.0


class ReaderOf(Protocol):
    def __call__(self, api: ScriptedApi | SandboxApi, **options: Any) -> OrganizationReader: ...


Serve = Callable[..., ScriptedApi]


@pytest.fixture
def serve(no_proxy: None) -> Iterator[Serve]:  # noqa: ARG001
    with ExitStack() as stack:
        yield lambda lists, **options: stack.enter_context(ScriptedApi(lists, **options))


@pytest.fixture
def reader_of(tmp_path: Path) -> Iterator[ReaderOf]:
    """A reader of an API; closed at the end."""
    readers: list[OrganizationReader] = []

    def make(api: ScriptedApi | SandboxApi, **options: Any) -> OrganizationReader:
        stop = threading.Event()
        scripted = isinstance(api, ScriptedApi)
        credentials = Credentials(KEY, SECRET) if scripted else Credentials(api.key, api.secret)
        org_id = ORGANIZATION if scripted else api.organization_id
        client = M3terClient(api.base_url, org_id, credentials, limits=Limits(requests_per_second=10_000), stop=stop)
        folder = tmp_path / f"reader-{len(readers)}"
        readers.append(OrganizationReader(client, folder, stop=stop, **options))
        return readers[-1]

    yield make
    for reader in readers:
        reader.close()


@pytest.fixture(scope="module")
def sandbox_api() -> Iterator[SandboxApi]:
    with SandboxApi(SAMPLE.records(), requests_per_second=None) as api:
        yield api


def read(reader: OrganizationReader, entity: str) -> Reading:
    return reader.read(find_entity(entity), waiting=lambda _: None)


def rows(reading: Reading, *columns: str) -> list[tuple[Any, ...]]:
    return reading.frame.select(columns or ("id",)).collect().rows()


def account(id: str, version: int | None = 1, **more: Any) -> dict[str, Any]:
    return {"id": id, "version": version, **more}


def pricing(id: str, version: int, *bands: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "version": version, "pricingBands": [{"id": band} for band in bands], **more}


# A whole organization


def test_every_record_of_every_entity_is_read_and_each_list_once(reader_of: ReaderOf, sandbox_api: SandboxApi) -> None:
    sandbox_api.requests.clear()
    reader = reader_of(sandbox_api)
    reader.start(entities().values())
    readings = {name: read(reader, name) for name in entities()}
    expected: dict[str, set[str]] = {name: set() for name in entities()}
    for name, record in SAMPLE.records():
        expected[name].add(record["id"])
    bands = ("pricingBands", "overagePricingBands")
    pricings = [record for name, record in SAMPLE.records() if name == "pricing"]
    expected["pricing_band"] = {band["id"] for record in pricings for array in bands for band in record[array]}
    assert {name: {row[0] for row in rows(one)} for name, one in readings.items()} == expected
    assert {name: one.rows for name, one in readings.items()} == {name: len(ids) for name, ids in expected.items()}
    assert {one.duplicates for one in readings.values()} == {0}
    first_pages = Counter(one.path.rsplit("/", 1)[-1] for one in sandbox_api.requests if "nextToken" not in one.query)
    assert first_pages.pop("token") == 1
    assert first_pages.pop("accountplans") == len(expected["account"])
    for per_balance in ("transactions", "balancechargeschedules", "balancetransactionschedules"):
        assert first_pages.pop(per_balance) == len(expected["balance"])
    assert first_pages.pop("counteradjustments") == len(expected["counter"])
    assert len(first_pages) == len(ALL_PATHS) - 5
    assert set(first_pages.values()) == {1}


def test_ended_account_plans_come_too(reader_of: ReaderOf, sandbox_api: SandboxApi) -> None:
    reading = read(reader_of(sandbox_api), "account_plan")
    plans = [record for name, record in SAMPLE.records() if name == "account_plan"]
    ended = {plan["id"] for plan in plans if (plan.get("endDate") or "9") < "2025-01-01"}
    assert ended
    assert {row[0] for row in rows(reading)} == {plan["id"] for plan in plans}
    assert reading.requests == len({plan["accountId"] for plan in plans})


def test_rows_that_do_not_name_their_parent_get_its_id_and_keep_every_digit(reader_of: ReaderOf, serve: Serve) -> None:
    first = '{"data": [ {"id":"t1", "amount":1.10, "description":"ü"} , {"id":"t2","amount":-0}], "nextToken":"2"}'
    further = Answer(
        b'{"data": [{ "id": "t3", "balanceId": "of-another" }, '
        b'{"balanceId":null,"id":"t4","amount":2.50,"description":"balanceId","a\\u00e9":{"balanceId":1}}]}'
    )
    api = serve(
        {
            "/balances": [page({"id": 'b"1'}, {"id": "b2"})],
            "/balances/b%221/transactions": [Answer(first.encode()), further],
            "/balances/b2/transactions": [page()],
        }
    )
    reading = read(reader_of(api), "balance_transaction")
    assert rows(reading, "id", "balanceId", "amount", "description") == [
        ("t1", 'b"1', 1.1, "ü"),
        ("t2", 'b"1', -0.0, None),
        ("t3", 'b"1', None, None),
        ("t4", 'b"1', 2.5, "balanceId"),
    ]
    assert reading.unknown_fields == {"aé": 1}
    assert [one.query["pageSize"] for one in api.asked("/balances/b2/transactions")] == ["200"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{}", "column id, value null: must not be missing"),
        ("{ }", "column id, value null: must not be missing"),
        ("7", "must be a JSON object"),
        ('{"id":"t1","description":"\\ud800"}', "description"),
    ],
)
def test_a_row_without_a_parent_that_breaks_the_schema_is_named(
    reader_of: ReaderOf, serve: Serve, row: str, words: str
) -> None:
    found = Answer(b'{"data": [%b]}' % row.encode())
    api = serve({"/balances": [page({"id": "b1"})], "/balances/b1/transactions": [found]})
    with pytest.raises(SchemaBreached, match=words):
        read(reader_of(api), "balance_transaction")


def test_an_entity_that_was_not_started_is_read_when_it_is_asked_for(reader_of: ReaderOf, serve: Serve) -> None:
    api = serve({"/meters": [page({"id": "m"})], "/products": [page({"id": "p"})]})
    reader = reader_of(api)
    reader.start([find_entity("meter")])
    assert rows(read(reader, "product")) == [("p",)]
    assert rows(read(reader, "meter")) == [("m",)]
    assert rows(read(reader, "meter")) == [("m",)]
    assert len(api.asked("/meters")) == 1


def test_two_entities_of_one_list_are_read_from_the_same_pages(reader_of: ReaderOf, serve: Serve) -> None:
    api = serve({"/pricings": [page(pricing("p", 1, "a"), next_token="1"), page(pricing("q", 1, "b"))]})
    reader = reader_of(api)
    reader.start([find_entity("pricing"), find_entity("pricing_band")])
    assert rows(read(reader, "pricing")) == [("p",), ("q",)]
    assert rows(read(reader, "pricing_band"), "id", "pricingId") == [("a", "p"), ("b", "q")]
    assert len(api.asked("/pricings")) == 2


def test_account_plans_are_asked_for_once_per_account(reader_of: ReaderOf, serve: Serve) -> None:
    def plans(request: Request) -> Answer:
        return page({"id": f"plan-of-{request.query['account']}"})

    api = serve(
        {"/accounts": [page(account("a"), account("b"), next_token="1"), page(account("b"))], "/accountplans": plans}
    )
    reader = reader_of(api)
    reader.start([find_entity("account_plan"), find_entity("account")])
    assert rows(read(reader, "account_plan")) == [("plan-of-a",), ("plan-of-b",)]
    assert rows(read(reader, "account")) == [("a",), ("b",)]
    assert len(api.asked("/accounts")) == 2
    assert {one.query["includeall"] for one in api.asked("/accountplans")} == {"true"}


def test_account_plans_of_many_accounts_come_in_the_accounts_order(reader_of: ReaderOf, serve: Serve) -> None:
    names = [f"account-{number:03}" for number in range(120)]

    def plans(request: Request) -> Answer:
        name, is_second = request.query["account"], "nextToken" in request.query
        return page({"id": f"{name}/2"}) if is_second else page({"id": f"{name}/1"}, next_token="1")

    api = serve({"/accounts": [page(*map(account, names))], "/accountplans": plans})
    reading = read(reader_of(api), "account_plan")
    assert rows(reading) == [(f"{name}/{number}",) for name in names for number in (1, 2)]
    assert reading.requests == 240


def test_an_empty_entity_is_a_frame_with_all_columns(reader_of: ReaderOf, serve: Serve) -> None:
    reading = read(reader_of(serve({"/meters": [page()]})), "meter")
    assert dict(reading.frame.collect_schema()) == frame_schema(find_entity("meter"))
    assert (reading.rows, reading.duplicates, reading.requests, rows(reading)) == (0, 0, 1, [])
    assert reading.empty_columns == ()


def test_account_plans_of_no_accounts_are_none(reader_of: ReaderOf, serve: Serve) -> None:
    reading = read(reader_of(serve({"/accounts": [page()]})), "account_plan")
    assert (reading.rows, reading.requests) == (0, 0)


# Copies of a record


COPIES: dict[str, tuple[list[list[dict[str, Any]]], list[tuple[str, int | None, str | None]]]] = {
    "over a page border": (
        [[account("a"), account("b", 1, name="x")], [account("b", 1, name="x"), account("c")]],
        [("a", 1, None), ("b", 1, "x"), ("c", 1, None)],
    ),
    "within a page": ([[account("a"), account("a")]], [("a", 1, None)]),
    "an older one before": ([[account("a", 1, name="old")], [account("a", 2, name="new")]], [("a", 2, "new")]),
    "an older one after": ([[account("a", 2, name="new")], [account("a", 1, name="old")]], [("a", 2, "new")]),
    "the last of equals": ([[account("a", 1, name="x")], [account("a", 1, name="y")]], [("a", 1, "y")]),
    "versions are numbers": ([[account("a", 10, name="new")], [account("a", 9, name="old")]], [("a", 10, "new")]),
    "one without a version": ([[account("a", 1, name="new")], [account("a", None, name="x")]], [("a", 1, "new")]),
    "many": (
        [[account("a", version, name=str(version)), account("b")] for version in (3, 1, 4, 2)],
        [("a", 4, "4"), ("b", 1, None)],
    ),
}


@pytest.mark.parametrize("batch_rows", [1, 3, 20_000])
@pytest.mark.parametrize(("pages", "expected"), COPIES.values(), ids=COPIES)
def test_of_the_copies_of_a_record_the_newest_is_kept(
    reader_of: ReaderOf,
    serve: Serve,
    pages: list[list[dict[str, Any]]],
    expected: list[tuple[str, int | None, str | None]],
    batch_rows: int,
) -> None:
    batches = Batches(rows=batch_rows, decode_bytes=1 if batch_rows < 100 else 1 << 20)
    reading = read(reader_of(serve({"/accounts": list_of(*pages)}), batches=batches), "account")
    assert sorted(rows(reading, "id", "version", "name")) == expected
    assert reading.rows == len(expected)
    assert reading.duplicates == sum(map(len, pages)) - len(expected)


def list_of(*pages: list[dict[str, Any]]) -> list[Answer]:
    """The answers of a list that has these pages."""
    last = len(pages) - 1
    return [
        page(*records, next_token=None if number == last else f"page {number + 1}")
        for number, records in enumerate(pages)
    ]


@pytest.mark.parametrize("batch_rows", [1, 20_000])
@pytest.mark.parametrize(
    ("pages", "bands"),
    [
        ([[pricing("p", 1, "a", "b")], [pricing("p", 2, "a", "c")]], [("a", 2), ("c", 2)]),
        (
            [[pricing("p", 2, "a", "c")], [pricing("p", 1, "a", "b"), pricing("q", 1, "d")]],
            [("a", 2), ("c", 2), ("d", 1)],
        ),
        ([[pricing("p", 1, "a", "b")], [pricing("p", 1, "a", "b")]], [("a", 1), ("b", 1)]),
        ([[pricing("p", 2)], [pricing("q", 1, "a")]], [("a", 1)]),
    ],
)
def test_bands_of_a_stale_copy_of_a_pricing_are_not_exported(
    reader_of: ReaderOf,
    serve: Serve,
    pages: list[list[dict[str, Any]]],
    bands: list[tuple[str, int]],
    batch_rows: int,
) -> None:
    batches = Batches(rows=batch_rows, decode_bytes=batch_rows)
    marked = [[with_version_in_bands(one) for one in records] for records in pages]
    reading = read(reader_of(serve({"/pricings": list_of(*marked)}), batches=batches), "pricing_band")
    assert sorted(rows(reading, "id", "unitPrice")) == bands
    assert reading.rows == len(bands)


def with_version_in_bands(record: dict[str, Any]) -> dict[str, Any]:
    """The pricing's version as the unit price of its bands, to tell its copies apart."""
    return record | {"pricingBands": [band | {"unitPrice": record["version"]} for band in record["pricingBands"]]}


@pytest.mark.parametrize("copies", [[pricing("p", 1, "a"), pricing("p", 2)], [pricing("p", 2), pricing("p", 1, "a")]])
def test_bands_are_not_exported_when_the_newest_copy_of_their_pricing_has_none(
    reader_of: ReaderOf, serve: Serve, copies: list[dict[str, Any]]
) -> None:
    reader = reader_of(serve({"/pricings": list_of([copies[0]], [copies[1]])}))
    reader.start([find_entity("pricing"), find_entity("pricing_band")])
    assert rows(read(reader, "pricing"), "id", "version") == [("p", 2)]
    assert rows(read(reader, "pricing_band")) == []


def test_a_band_id_in_two_pricings_is_a_breach(reader_of: ReaderOf, serve: Serve) -> None:
    reader = reader_of(serve({"/pricings": list_of([pricing("p", 1, "a")], [pricing("q", 1, "b", "a")])}))
    with pytest.raises(SchemaBreached) as breached:
        read(reader, "pricing_band")
    assert str(breached.value) == (
        "pricing_band is not exported because it breaks schemas/pricing_band.json: row a, column id, "
        'value "a": is the primary key and must be unique. '
        "Correct the row in m3ter, or the descriptor if m3ter's schema changed."
    )
    assert breached.value.total == 1


def test_a_band_id_in_both_arrays_of_a_pricing_is_a_breach(reader_of: ReaderOf, serve: Serve) -> None:
    reader = reader_of(serve({"/pricings": [page(pricing("p", 1, "a", overagePricingBands=[{"id": "a"}]))]}))
    with pytest.raises(SchemaBreached, match="row a, column id"):
        read(reader, "pricing_band")


# Collectors


METERS, ACCOUNTS = find_entity("meter").listing, find_entity("account").listing
PLANS = find_entity("account_plan").listing


class Pages:
    """Collects the pages themselves."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def add(self, page: bytes) -> None:
        self.seen.append(json.loads(page))


class Names:
    """Cannot take a row without a name."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def add(self, page: bytes) -> None:
        self.seen += [row["name"] for row in json.loads(page)]


@pytest.mark.parametrize("is_entity_first", [True, False])
def test_an_entity_and_collectors_share_one_reading_of_their_list(
    reader_of: ReaderOf, serve: Serve, is_entity_first: bool
) -> None:
    api = serve({"/meters": list_of([{"id": "a", "name": "A"}], [{"id": "b", "name": "B"}])})
    reader = reader_of(api)
    reader.start([find_entity("meter")], [(METERS, RecordIds), (METERS, Pages)])
    if is_entity_first:
        assert rows(read(reader, "meter")) == [("a",), ("b",)]
    for _ in range(2):
        assert reader.collected(METERS, RecordIds).unique() == ["a", "b"]
        assert reader.collected(METERS, Pages).seen == [[{"id": "a", "name": "A"}], [{"id": "b", "name": "B"}]]
    assert rows(read(reader, "meter")) == [("a",), ("b",)]
    assert len(api.asked("/meters")) == 2


def test_a_collector_that_was_not_started_reads_its_list_when_it_is_asked_for(
    reader_of: ReaderOf, serve: Serve
) -> None:
    api = serve({"/meters": [page({"id": "a"})]})
    reader = reader_of(api)
    assert reader.collected(METERS, RecordIds).unique() == ["a"]
    assert reader.collected(METERS, RecordIds).unique() == ["a"]
    assert reader.collected(METERS, Pages).seen == [[{"id": "a"}]]
    assert len(api.asked("/meters")) == 2


def test_the_ids_of_a_fan_out_are_those_that_others_collect(reader_of: ReaderOf, serve: Serve) -> None:
    api = serve({"/accounts": [page(account("a"), account("b"))], "/accountplans": [page({"id": "p"})]})
    reader = reader_of(api)
    reader.start([find_entity("account_plan"), find_entity("account")], [(ACCOUNTS, RecordIds), (PLANS, RecordIds)])
    assert reader.collected(ACCOUNTS, RecordIds).unique() == ["a", "b"]
    assert reader.collected(PLANS, RecordIds).unique() == ["p"]
    assert (read(reader, "account").rows, read(reader, "account_plan").rows) == (2, 1)
    assert (len(api.asked("/accounts")), len(api.asked("/accountplans"))) == (1, 2)


def test_a_collector_of_a_fan_out_alone_reads_the_parents_too(reader_of: ReaderOf, serve: Serve) -> None:
    lists = {"/accounts": [page(account("a"))], "/accountplans": [page({"id": "p"})]}
    assert reader_of(serve(lists)).collected(PLANS, RecordIds).unique() == ["p"]


def test_a_collector_survives_rows_that_break_the_schema_of_the_entity(reader_of: ReaderOf, serve: Serve) -> None:
    api = serve({"/meters": [page({"id": "a", "name": 5}), page()]})
    reader = reader_of(api)
    reader.start([find_entity("meter")], [(METERS, RecordIds)])
    with pytest.raises(SchemaBreached):
        read(reader, "meter")
    assert reader.collected(METERS, RecordIds).unique() == ["a"]
    assert len(api.asked("/meters")) == 1


def test_a_list_that_fails_fails_for_its_collector_and_is_read_anew(reader_of: ReaderOf, serve: Serve) -> None:
    api = serve({"/meters": [refusal(404, "gone"), page({"id": "a"})]})
    reader = reader_of(api)
    reader.start([find_entity("meter")], [(METERS, RecordIds)])
    with pytest.raises(Refused, match="status 404: gone"):
        reader.collected(METERS, RecordIds)
    assert reader.collected(METERS, RecordIds).unique() == ["a"]
    with pytest.raises(EntityUnreadable, match="status 404: gone"):
        read(reader, "meter")
    assert rows(read(reader, "meter")) == [("a",)]


def test_the_parents_of_a_collector_that_failed_are_read_anew(reader_of: ReaderOf, serve: Serve) -> None:
    lists = {"/accounts": [refusal(404), page(account("a"))], "/accountplans": [page({"id": "p"})]}
    reader = reader_of(serve(lists))
    with pytest.raises(Refused):
        reader.collected(PLANS, RecordIds)
    assert reader.collected(PLANS, RecordIds).unique() == ["p"]


def test_what_a_collector_cannot_take_is_its_own_failure(reader_of: ReaderOf, serve: Serve) -> None:
    named = page({"id": "a", "name": "A"})
    api = serve({"/meters": [page({"id": "a"}, next_token="1"), named, named]})
    reader = reader_of(api)
    reader.start([find_entity("meter")], [(METERS, Names), (METERS, RecordIds)])
    with pytest.raises(KeyError, match="name"):
        reader.collected(METERS, Names)
    assert reader.collected(METERS, RecordIds).unique() == ["a"]
    assert read(reader, "meter").rows == 1
    assert reader.collected(METERS, Names).seen == ["A"]


def test_a_list_whose_cursor_expires_is_collected_anew(reader_of: ReaderOf, serve: Serve) -> None:
    first, second = list_of([{"id": "a"}], [{"id": "b"}])
    api = serve({"/meters": [first, refusal(410), first, second]})
    assert reader_of(api).collected(METERS, Pages).seen == [[{"id": "a"}], [{"id": "b"}]]


# Side by side


def test_one_list_at_a_time_is_enough(reader_of: ReaderOf, sandbox_api: SandboxApi) -> None:
    """A list that waits for the ids of another does not keep it from being read."""
    reader = reader_of(sandbox_api, limits=ReaderLimits(lists_at_once=1, requests_at_once=1))
    reader.start([find_entity("account_plan"), find_entity("account")])
    assert read(reader, "account_plan").rows == sum(name == "account_plan" for name, _ in SAMPLE.records())


@pytest.mark.parametrize("requests_at_once", [1, 3])
def test_a_fan_out_does_not_run_ahead_of_what_takes_its_pages(
    reader_of: ReaderOf, serve: Serve, requests_at_once: int
) -> None:
    has_begun, may_go_on = threading.Event(), threading.Event()

    class Slow(RecordIds):
        def add(self, page: bytes) -> None:
            has_begun.set()
            assert may_go_on.wait(LONG)
            super().add(page)

    accounts = [account(f"a{number}") for number in range(50)]
    api = serve({"/accounts": [page(*accounts)], "/accountplans": [page({"id": "p"})], "/behind": [page()]})
    reader = reader_of(api, limits=ReaderLimits(requests_at_once=requests_at_once))
    reader.start((), [(PLANS, Slow)])
    assert has_begun.wait(LONG)
    # Its requests stand in the same row behind those that were sent ahead, so these have been answered by then.
    reader.collected(Listing("/behind", 100, for_each=ForEach("account", "account")), RecordIds)
    assert len(api.asked("/behind")) == 50
    assert len(api.asked("/accountplans")) == 2 * requests_at_once + 1
    may_go_on.set()
    assert reader.collected(PLANS, Slow).unique() == ["p"]
    assert len(api.asked("/accountplans")) == 50


def test_a_large_list_of_a_fan_out_waits_until_it_is_taken(reader_of: ReaderOf, serve: Serve) -> None:
    """Of the lists after the one that is taken, one page each is read at most; each is read to its end all the same."""
    is_last_asked_for, may_end = threading.Event(), threading.Event()
    answers = list_of(*([{"id": f"{number}"}] for number in range(20)))

    def plans(request: Request) -> Answer:
        number = int(request.query.get("nextToken", "page 0").removeprefix("page "))
        answer = Answer(answers[number].body.replace(b'{"id": "', b'{"id": "%s' % request.query["account"].encode()))
        if (request.query["account"], number) != ("a", 19):
            return answer
        is_last_asked_for.set()
        return replace(answer, waits_for=may_end)

    api = serve({"/accounts": [page(*map(account, "abc"))], "/accountplans": plans})
    reader = reader_of(api, limits=ReaderLimits(bytes_ahead=1))
    reader.start([find_entity("account_plan")])
    assert is_last_asked_for.wait(LONG)
    others = Counter(one.query["account"] for one in api.asked("/accountplans"))
    assert max(others["b"], others["c"]) <= 1
    may_end.set()
    assert rows(read(reader, "account_plan")) == [(f"{name}{number}",) for name in "abc" for number in range(20)]


# Failures


def test_a_list_whose_cursor_expires_is_read_anew_without_doubling_rows(reader_of: ReaderOf, serve: Serve) -> None:
    first, second = list_of([account("a", daysBeforeBillDue=1, new=1)], [account("b")])
    expired = refusal(400, "nextToken expired")
    reading = read(reader_of(serve({"/accounts": [first, expired, first, expired, first, second]})), "account")
    assert rows(reading) == [("a",), ("b",)]
    assert (reading.rows, reading.duplicates, reading.requests) == (2, 0, 2)
    assert reading.unknown_fields == {"new": 1}


def test_account_plans_are_not_doubled_either(reader_of: ReaderOf, serve: Serve) -> None:
    first, second = list_of([{"id": "p"}], [{"id": "q"}])
    lists = {"/accounts": [page(account("a"))], "/accountplans": [first, refusal(410), first, second]}
    reading = read(reader_of(serve(lists)), "account_plan")
    assert (rows(reading), reading.duplicates) == ([("p",), ("q",)], 0)


@pytest.mark.parametrize("entity", ["account", "account_plan"])
def test_a_cursor_that_always_expires_ends_the_reading(reader_of: ReaderOf, serve: Serve, entity: str) -> None:
    def expiring(request: Request) -> Answer:
        return refusal(400, "expired") if "nextToken" in request.query else page(account("a"), next_token="1")

    plans = {"/accountplans": expiring, "/accounts": [page(account("a"))]}
    api = serve(plans if entity == "account_plan" else {"/accounts": expiring})
    with pytest.raises(EntityUnreadable) as unreadable:
        read(reader_of(api), entity)
    assert str(unreadable.value).startswith(
        f"{entity} is not exported because its list could not be read: The list cannot be continued: GET "
    )
    path = "/accounts" if entity == "account" else "/accountplans"
    assert len(api.asked(path)) == 2 * (ReaderLimits().restarts + 1)


def test_the_failure_of_one_entity_leaves_the_others(reader_of: ReaderOf, serve: Serve) -> None:
    lists = {
        "/meters": [refusal(403, "Forbidden")],
        "/products": [page({"id": "p", "name": 5})],
        "/plans": [page(next_token="1")],
        "/contracts": [page({"id": "c"})],
    }
    reader = reader_of(serve(lists))
    reader.start(map(find_entity, ("meter", "product", "plan", "contract")))
    assert rows(read(reader, "contract")) == [("c",)]
    with pytest.raises(EntityUnreadable, match=r"^meter is not exported .* status 403: Forbidden\. Give the service"):
        read(reader, "meter")
    with pytest.raises(SchemaBreached, match="row p, column name, value 5: must be text"):
        read(reader, "product")
    with pytest.raises(EntityUnreadable, match=r"^plan is not exported .* the list would never end"):
        read(reader, "plan")


def test_a_breach_in_one_entity_of_a_list_leaves_the_other(reader_of: ReaderOf, serve: Serve) -> None:
    reader = reader_of(serve({"/pricings": [page(pricing("p", 1, "a", code=5))]}))
    reader.start([find_entity("pricing"), find_entity("pricing_band")])
    with pytest.raises(SchemaBreached):
        read(reader, "pricing")
    assert rows(read(reader, "pricing_band")) == [("a",)]


def test_an_entity_that_failed_is_read_anew(reader_of: ReaderOf, serve: Serve) -> None:
    api = serve({"/meters": [refusal(403), refusal(403), page({"id": "m", "name": 5}), page({"id": "m"})]})
    reader = reader_of(api)
    with pytest.raises(EntityUnreadable):
        read(reader, "meter")
    with pytest.raises(SchemaBreached):
        read(reader, "meter")
    assert rows(read(reader, "meter")) == [("m",)]


def test_account_plans_are_read_anew_after_the_accounts_failed(reader_of: ReaderOf, serve: Serve) -> None:
    lists = {"/accounts": [refusal(404), page(account("a"))], "/accountplans": [page({"id": "p"})]}
    reader = reader_of(serve(lists))
    reader.start([find_entity("account"), find_entity("account_plan")])
    for name in ("account_plan", "account"):
        with pytest.raises(EntityUnreadable, match=f"^{name} is not exported .* status 404"):
            read(reader, name)
    assert rows(read(reader, "account_plan")) == [("p",)]
    assert rows(read(reader, "account")) == [("a",)]


def test_account_plans_come_although_the_accounts_break_their_schema(reader_of: ReaderOf, serve: Serve) -> None:
    lists = {"/accounts": [page(account("a", name=5))], "/accountplans": [page({"id": "p"})]}
    reader = reader_of(serve(lists))
    reader.start([find_entity("account"), find_entity("account_plan")])
    assert rows(read(reader, "account_plan")) == [("p",)]
    with pytest.raises(SchemaBreached):
        read(reader, "account")


def test_account_plans_of_an_account_without_an_id_cannot_be_complete(reader_of: ReaderOf, serve: Serve) -> None:
    lists = {"/accounts": [page(account("a"), {"name": "x"})], "/accountplans": [page({"id": "p"})]}
    with pytest.raises(EntityUnreadable, match="1 of the account records have no id"):
        read(reader_of(serve(lists)), "account_plan")


def test_every_breach_is_counted_and_a_hundred_are_kept(reader_of: ReaderOf, serve: Serve) -> None:
    bad = [account(f"a{number}", name=number) for number in range(150)]
    with pytest.raises(SchemaBreached) as breached:
        read(reader_of(serve({"/accounts": list_of(bad[:70], bad[70:], [account("good")])})), "account")
    assert breached.value.total == 150
    assert [one.row_id for one in breached.value.breaches] == [f"a{number}" for number in range(100)]
    assert "value a number of 1 character: must be text (149 more in the report of this run)." in str(breached.value)


def test_missing_and_empty_ids_are_breaches(reader_of: ReaderOf, serve: Serve) -> None:
    with pytest.raises(SchemaBreached) as breached:
        read(reader_of(serve({"/meters": [page({"id": "m"}, {"name": "x"}, {"id": ""})]})), "meter")
    assert sorted(str(one) for one in breached.value.breaches) == [
        'a row without id, column id, value "": must not be empty',
        "a row without id, column id, value null: must not be missing",
    ]


def test_a_missing_id_is_found_beside_a_cell_of_the_wrong_type(reader_of: ReaderOf, serve: Serve) -> None:
    with pytest.raises(SchemaBreached) as breached:
        read(reader_of(serve({"/meters": [page({"id": "m", "name": 5}, {"name": "x"})]})), "meter")
    assert {(one.row_id, one.column) for one in breached.value.breaches} == {("m", "name"), (None, "id")}
    assert breached.value.total == 2


# What a reading says


def test_unknown_and_empty_columns_are_reported(reader_of: ReaderOf, serve: Serve) -> None:
    records = [account("a", name="x", colour="red"), account("b", name=None, colour=None, size=1)]
    reading = read(reader_of(serve({"/accounts": list_of([records[0]], [records[1]])})), "account")
    assert reading.unknown_fields == {"colour": 2, "size": 1}
    filled = {"id", "version", "name", "deleted"}
    assert reading.empty_columns == tuple(name for name in frame_schema(find_entity("account")) if name not in filled)
    assert "colour" not in reading.frame.collect_schema()


def test_columns_that_the_api_does_not_have_are_not_reported_as_empty(reader_of: ReaderOf, serve: Serve) -> None:
    reading = read(reader_of(serve({"/pricings": [page(pricing("p", 1, "a"))]})), "pricing_band")
    assert reading.empty_columns == ("lowerLimit", "fixedPrice", "unitPrice")


def test_requests_and_times_are_reported(reader_of: ReaderOf, serve: Serve) -> None:
    reading = read(reader_of(serve({"/meters": list_of([], [{"id": "m"}], [])})), "meter")
    assert reading.requests == 3
    assert reading.started < reading.finished
    assert 0 < reading.seconds < LONG


def test_whoever_waits_is_told_how_far_it_is(reader_of: ReaderOf, serve: Serve) -> None:
    enough = threading.Event()
    last = Answer(page({"id": "b"}).body, waits_for=enough)
    reader = reader_of(serve({"/meters": [page({"id": "a"}, next_token="1"), last]}))
    told: list[str] = []

    def waiting(progress: str) -> None:
        told.append(progress)
        if progress.endswith("in 1 requests so far"):
            enough.set()

    assert reader.read(find_entity("meter"), waiting=waiting, every=0.01).rows == 2
    assert "0 rows in 1 requests so far" in told
    assert set(told) <= {
        "not started",
        *(f"{rows} rows in {pages} requests so far" for rows in (0, 2) for pages in (0, 1, 2)),
    }


def test_many_batches_give_the_same_frame(reader_of: ReaderOf, sandbox_api: SandboxApi) -> None:
    names = ("bill_line_item", "account", "pricing_band")
    whole = {name: read(reader_of(sandbox_api), name).frame.collect() for name in names}
    in_parts = reader_of(sandbox_api, batches=Batches(decode_bytes=1, rows=7))
    for name in names:
        frame = read(in_parts, name).frame.collect()
        assert frame.equals(whole[name])
        assert frame.schema == whole[name].schema


def test_many_batches_lie_on_disk(reader_of: ReaderOf, serve: Serve, tmp_path: Path) -> None:
    batches = Batches(decode_bytes=1, rows=10)
    pages = [[account(f"{number}-{row}") for row in range(5)] for number in range(9)]
    reading = read(reader_of(serve({"/accounts": list_of(*pages)}), batches=batches), "account")
    assert rows(reading) == [(record["id"],) for records in pages for record in records]
    assert len(list(tmp_path.rglob("*.parquet"))) == 5


def test_long_texts_make_small_batches(reader_of: ReaderOf, serve: Serve, tmp_path: Path) -> None:
    batches = Batches(decode_bytes=1, bytes=1000)
    pages = [[account(f"{number}", name="x" * 2000)] for number in range(4)]
    reading = read(reader_of(serve({"/accounts": list_of(*pages)}), batches=batches), "account")
    assert reading.frame.select(pl.col("name").str.len_chars().sum()).collect().item() == 8000
    assert len(list(tmp_path.rglob("*.parquet"))) == 4


# The end


@pytest.mark.parametrize("lists", [["/meters"], ["/accounts"], ["/meters", "/accounts", "/accountplans", "/lineitems"]])
def test_close_ends_all_reading_at_once(reader_of: ReaderOf, serve: Serve, lists: list[str]) -> None:
    accounts = page(*(account(f"a{number}") for number in range(200)))
    later = refusal(429, retry_after="300")
    script = {path: [later] for path in lists} | ({"/accounts": [accounts]} if "/accountplans" in lists else {})
    api = serve({path: [page()] for path in ALL_PATHS} | script)
    reader = reader_of(api)
    reader.start(entities().values())
    assert api.arrived.wait(LONG)
    started = time.monotonic()
    reader.close()
    assert time.monotonic() - started < LONG
    assert [one.name for one in threading.enumerate() if one.name.startswith(("list", "cursor", "request"))] == []


ALL_PATHS = {entity.listing.path for entity in entities().values()}


def test_close_may_come_twice_and_before_anything(reader_of: ReaderOf, serve: Serve) -> None:
    reader = reader_of(serve({}))
    reader.close()
    reader.close()


def test_rows_are_kept_in_a_folder_that_only_the_user_may_read(
    reader_of: ReaderOf, serve: Serve, tmp_path: Path
) -> None:
    read(reader_of(serve({"/meters": [page({"id": "m"})]})), "meter")
    (folder,) = tmp_path.glob("reader-0/*")
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_texts_of_a_reading_are_those_of_the_api(reader_of: ReaderOf, sandbox_api: SandboxApi) -> None:
    names = {record["id"]: record["name"] for name, record in SAMPLE.records() if name == "account"}
    addresses = {record["id"]: record.get("address") for name, record in SAMPLE.records() if name == "account"}
    found = rows(read(reader_of(sandbox_api), "account"), "id", "name", "address")
    assert {row[0]: row[1] for row in found} == names
    assert {row[0]: json.loads(row[2]) if row[2] else None for row in found} == addresses
