"""The sandbox's records may change while they are served, and are given one by one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

import pytest
from api_client import Client
from werkzeug.exceptions import Forbidden

from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity
from m3ter_sandbox import KEYSET, OFFSET, SampleOrganization, SandboxApi
from m3ter_sandbox.answers import Cursor
from m3ter_sandbox.records import ENCODER

SAMPLE = [(entity, json.loads(ENCODER.encode(record))) for entity, record in SampleOrganization(6).records()]
LISTED = [entity for entity in entities().values() if not entity.elements]
OF_THEIR_BILLS = "bill_line_item"
WITH_RECORDS = [
    entity
    for entity in LISTED
    if entity.name != OF_THEIR_BILLS and "{id}" not in entity.listing.path and not entity.listing.is_one_record
]
ACCOUNTS = [{"id": f"account-{number}", "dtCreated": f"2024-01-01T00:00:{number:02}.000Z"} for number in range(10)]
BETWEEN = {"id": "account-new", "dtCreated": "2024-01-01T00:00:04.500Z"}


def records_of(entity: str) -> list[dict[str, Any]]:
    return [record for name, record in SAMPLE if name == entity]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with SandboxApi(SAMPLE, requests_per_second=None) as api:
        yield Client(api)


@pytest.fixture(params=[OFFSET, KEYSET], ids=["offset", "keyset"])
def changing(request: pytest.FixtureRequest) -> Iterator[Client]:
    """Ten accounts, for each cursor in turn."""
    with changing_api(request.param) as api:
        yield Client(api)


def changing_api(cursor: Cursor) -> SandboxApi:
    return SandboxApi([("account", one) for one in ACCOUNTS], requests_per_second=None, cursor=cursor)


def numbers_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["id"].removeprefix("account-") for row in rows]


# Changes


def test_lists_and_single_records_show_each_change_at_once_newest_first(changing: Client) -> None:
    records = changing.api.records
    records.insert("account", BETWEEN)
    records.delete("account", "account-2")
    records.replace("account", {**ACCOUNTS[3], "name": "other"})
    rows = changing.walk("/accounts", pageSize=3)
    assert numbers_of(rows) == ["9", "8", "7", "6", "5", "new", "4", "3", "1", "0"]
    assert [row["name"] for row in rows if "name" in row] == ["other"]
    assert changing.get("/accounts/account-3").json()["name"] == "other"
    assert changing.get("/accounts/account-new").json() == BETWEEN
    assert changing.get("/accounts/account-2").status == 404


def test_filters_find_what_changed() -> None:
    plan = {"id": "plan", "dtCreated": "2024-01-01", "startDate": "2024-01-01", "accountId": "first"}
    with SandboxApi([("account_plan", plan)], requests_per_second=None) as api:
        client = Client(api)
        assert client.walk("/accountplans", account="first") == [plan]
        api.records.replace("account_plan", {**plan, "accountId": "second"})
        assert client.walk("/accountplans", account="first") == []
        assert client.walk("/accountplans", account="second")
        assert client.walk("/accountplans", ids="plan")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: records.insert("account", ACCOUNTS[1]), "account account-1 is there already."),
        (lambda records: records.replace("account", BETWEEN), "There is no account account-new."),
        (lambda records: records.delete("account", "account-new"), "There is no account account-new."),
    ],
)
def test_a_change_of_what_is_not_there_is_refused(
    changing: Client, change: Callable[[Any], None], message: str
) -> None:
    records = changing.api.records
    with pytest.raises(ValueError, match=message):
        change(records)
    assert len(records.of("account").rows) == len(ACCOUNTS)


def test_a_deletion_takes_nothing_else_with_it() -> None:
    with SandboxApi(SAMPLE, requests_per_second=None) as api:
        client, bill = Client(api), records_of("bill")[0]
        items = {row["id"] for row in client.walk(f"/bills/{bill['id']}/lineitems")}
        api.records.delete("bill", bill["id"])
        assert client.get(f"/bills/{bill['id']}/lineitems").status == 404
        assert items <= {row["id"] for row in client.walk("/lineitems", pageSize=100)}


@pytest.mark.usefixtures("hasty_threads")
def test_no_change_of_many_threads_is_lost(changing: Client) -> None:
    records = changing.api.records

    def change(number: int) -> None:
        records.insert("account", {"id": f"kept-{number:03}", "dtCreated": "2024-02-01"})
        records.insert("account", {"id": f"gone-{number:03}", "dtCreated": "2024-02-01"})
        records.delete("account", f"gone-{number:03}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(change, range(200)))
    kept = [row.id for row in records.of("account").rows][: -len(ACCOUNTS)]
    assert kept == [f"kept-{number:03}" for number in reversed(range(200))]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Each thread works for a moment only before it is another's turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


# Cursors


def after_first_page(client: Client, change: Callable[[Any], None]) -> list[str]:
    """The rows of all pages of five, with a change between the first and the second."""
    changes = iter([lambda _: None, change])
    client.api.before_answer = lambda _path, _query: next(changes, lambda _: None)(client.api.records)
    return numbers_of(client.walk("/accounts", pageSize=5))


@pytest.mark.parametrize(
    ("cursor", "change", "found"),
    [
        (OFFSET, lambda records: records.delete("account", "account-9"), "987653210"),
        (KEYSET, lambda records: records.delete("account", "account-9"), "9876543210"),
        (KEYSET, lambda records: records.delete("account", "account-5"), "9876543210"),
        (OFFSET, lambda records: records.delete("account", "account-4"), "987653210"),
        (OFFSET, lambda records: records.insert("account", {**BETWEEN, "dtCreated": "2025"}), "98765543210"),
        (KEYSET, lambda records: records.insert("account", {**BETWEEN, "dtCreated": "2025"}), "9876543210"),
        (KEYSET, lambda records: records.insert("account", {**BETWEEN, "id": "account-n"}), "98765n43210"),
    ],
)
def test_what_a_change_between_two_pages_does_to_each_cursor(
    cursor: Cursor, change: Callable[[Any], None], found: str
) -> None:
    with changing_api(cursor) as api:
        assert "".join(after_first_page(Client(api), change)) == found


def test_rows_of_one_moment_are_told_apart_by_their_ids() -> None:
    same = [("meter", {"id": f"meter {number}", "dtCreated": "2024-01-01"}) for number in range(7)]
    for cursor in (OFFSET, KEYSET):
        with SandboxApi(same, requests_per_second=None, cursor=cursor) as api:
            ids = [row["id"] for row in Client(api).walk("/meters", pageSize=2)]
            assert ids == [f"meter {number}" for number in reversed(range(7))]


@pytest.mark.parametrize(("path", "query"), [("/contracts", {}), ("/accounts", {"codes": "x"})])
def test_no_cursor_takes_the_token_of_another_question(changing: Client, path: str, query: dict[str, str]) -> None:
    token = changing.get("/accounts", pageSize=1).json()["nextToken"]
    assert changing.get("/accounts", nextToken=token).status == 200
    assert changing.get(path, nextToken=token, **query).status == 400
    assert changing.get("/accounts", nextToken="x" + token[1:]).status == 400


# Before an answer


def test_a_test_is_told_of_each_question_before_its_answer(client: Client) -> None:
    told: list[tuple[str, str]] = []
    bill = records_of("bill")[0]["id"]
    questions = ["/accounts?pageSize=1", f"/bills/{bill}", f"/bills/{bill}/lineitems", "/accounts/no-such"]
    client.api.before_answer = lambda path, query: told.append((path, query))
    try:
        for question in questions:
            client.get(question)
        client.get("/no/such/path")
        client.get("/accounts", headers={"Authorization": "Bearer unknown"})
    finally:
        client.api.before_answer = None
    assert ["?".join(filter(None, one)) for one in told] == questions


def test_an_error_raised_before_an_answer_is_the_answer(changing: Client) -> None:
    def refuse_single_records(path: str, _query: str) -> None:
        if path.startswith("/accounts/"):
            raise Forbidden("Not for you.")

    changing.api.before_answer = refuse_single_records
    refused = changing.get("/accounts/account-1")
    assert (refused.status, refused.json()) == (403, {"message": "Not for you."})
    assert changing.get("/accounts").status == 200


def test_no_two_requests_are_prepared_at_once(changing: Client) -> None:
    met, both = list[bool](), Barrier(2)

    def prepare(_path: str, _query: str) -> None:
        try:
            both.wait(timeout=0.1)
            met.append(True)
        except BrokenBarrierError:
            met.append(False)

    changing.api.before_answer = prepare
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: changing.get("/accounts"), range(2)))
    assert met == [False, False]


# Single records


@pytest.mark.parametrize("entity", WITH_RECORDS, ids=lambda entity: entity.name)
def test_every_record_of_a_list_is_given_by_its_id(client: Client, entity: Entity) -> None:
    for record in records_of(entity.name)[:5]:
        answer = client.get(f"{entity.listing.path}/{record['id']}").json()
        assert without_options(answer) == without_options(record)
    missing = client.get(f"{entity.listing.path}/no-such-id")
    assert (missing.status, missing.json().keys()) == (404, {"message"})
    assert client.get(f"{entity.listing.path}/{record['id']}", pageSize=1).status == 400


def without_options(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in ("billTotal", "lineItems")}


def test_a_bill_comes_with_its_line_items_and_without_its_total(client: Client) -> None:
    """Its list has the parameters `excludeLineItems` and `includeBillTotal`; GET /bills/{id} has `additional` only."""
    bill = records_of("bill")[0]["id"]
    listed = client.get("/bills", ids=bill).json()["data"]
    assert [client.get(f"/bills/{bill}").json()] == listed
    assert [client.get(f"/bills/{bill}", additional="a,b").json()] == listed
    assert "lineItems" in listed[0]
    assert "billTotal" not in listed[0]
    assert client.get(f"/bills/{bill}", includeBillTotal="true").status == 400


def test_a_line_item_is_given_below_its_bill_only(client: Client) -> None:
    item = records_of(OF_THEIR_BILLS)[0]
    other = next(bill["id"] for bill in records_of("bill") if bill["id"] != item["billId"])
    path = f"/bills/{item['billId']}/lineitems/{item['id']}"
    assert client.get(path).json() == item
    assert client.get(path, additional="a").json() == item
    assert client.get(path, pageSize=1).status == 400
    for wrong in (
        f"/lineitems/{item['id']}",
        f"/bills/{other}/lineitems/{item['id']}",
        f"/bills/no-such/lineitems/{item['id']}",
        f"/bills/{item['billId']}/lineitems/no-such",
    ):
        missing = client.get(wrong)
        assert (missing.status, missing.json().keys()) == (404, {"message"})


# ids=


@pytest.mark.parametrize("entity", WITH_RECORDS, ids=lambda entity: entity.name)
def test_every_list_but_those_of_line_items_and_transactions_is_asked_by_ids(client: Client, entity: Entity) -> None:
    path = entity.listing.path
    newest = [row["id"] for row in client.get(path).json()["data"]]
    first, last = newest[0], newest[-1]
    for query in (f"ids={first}&ids={last}&ids=no-such", f"ids={first},{last}", f"ids={first},x&ids={last}"):
        assert [row["id"] for row in client.get(f"{path}?{query}").json()["data"]] == list(dict.fromkeys([first, last]))
    assert client.get(path, ids="no-such").json() == {"data": []}


def test_lists_of_line_items_have_no_ids(client: Client) -> None:
    item = records_of(OF_THEIR_BILLS)[0]
    for path in ("/lineitems", f"/bills/{item['billId']}/lineitems"):
        assert client.get(path).status == 200
        assert client.get(path, ids=item["id"]).status == 400
