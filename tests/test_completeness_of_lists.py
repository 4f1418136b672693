"""What moves behind m3ter's lists over HTTP: line items, account plans, bands of pricings, transactions of balances."""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from werkzeug.exceptions import Forbidden, NotFound

from m3ter_dagster.frames.difference import read_keys, write_keys
from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.model.entities import entities
from m3ter_dagster.reading.pages import ReaderLimits
from m3ter_dagster.reading.past import NoPast, Past, Previous
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.reading.reading import EntityUnreadable, Reading
from m3ter_sandbox import SandboxApi, list_routes

Record = dict[str, Any]
ITEMS, BILL, PLANS, ACCOUNT, PRICING, BANDS, BALANCE, TRANSACTIONS = (
    *("bill_line_item", "bill", "account_plan", "account"),
    *("pricing", "pricing_band", "balance", "balance_transaction"),
)
OVER_CURSOR, BY_PARENT = ReaderLimits(pages_before_choice=1_000_000), ReaderLimits(pages_before_choice=1, advantage=0)


class Organization:
    """An API, and the exports of it, each of which knows the one before."""

    def __init__(self, api: SandboxApi, folder: Path) -> None:
        self.api = api
        self.limits = OVER_CURSOR
        self._folder = folder
        self._previous: dict[str, Previous] = {}
        self._number = 0

    def export(self, *names: str, knows: bool = True) -> dict[str, Reading]:
        self._number += 1
        folder = self._folder / str(self._number)
        self.api.requests.clear()
        with self._reader(folder) as reader:
            past = Past(self._previous if knows else {}, keep_deleted=timedelta(days=90))
            reader.start([entities()[name] for name in names], past=past)
            return {name: self._kept(reader.read(entities()[name], waiting=lambda _: None), folder) for name in names}

    def lose_keys(self, name: str) -> None:
        """The file of keys of the last export is no longer in its bucket."""

        def fetch() -> Any:
            raise NoPast("there is no such object")

        self._previous[name] = replace(self._previous[name], fetch_keys=fetch)

    def asked(self, path: str) -> list[str]:
        """The queries of requests for this path, below the Organization's."""
        return [one.query for one in self.api.requests if one.path.endswith(f"{self.api.organization_id}{path}")]

    @contextmanager
    def _reader(self, folder: Path) -> Iterator[OrganizationReader]:
        stop = threading.Event()
        credentials, limits = Credentials(self.api.key, self.api.secret), Limits(requests_per_second=100_000)
        client = M3terClient(self.api.base_url, self.api.organization_id, credentials, limits=limits, stop=stop)
        reader = OrganizationReader(client, folder, stop=stop, limits=self.limits)
        try:
            yield reader
        finally:
            reader.close()

    def _kept(self, reading: Reading, folder: Path) -> Reading:
        name, keys = reading.entity.name, folder / f"{reading.entity.name}.keys"
        write_keys(reading.all_keys, reading.entity, keys)
        self._previous[name] = Previous(reading.entity, "before", lambda: read_keys(keys), lambda: reading.all_rows)
        return reading


@pytest.fixture
def serve(tmp_path: Path, no_proxy: None) -> Iterator[Callable[[list[tuple[str, Record]]], Organization]]:  # noqa: ARG001
    apis: list[SandboxApi] = []

    def start(records: list[tuple[str, Record]]) -> Organization:
        api = SandboxApi(records, requests_per_second=None)
        api.start()
        apis.append(api)
        return Organization(api, tmp_path)

    yield start
    for api in apis:
        api.close()


Serve = Callable[[list[tuple[str, Record]]], Organization]


def made(number: int) -> str:
    return f"2024-01-01T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"


def record(record_id: str, number: int, **fields: Any) -> Record:
    return {"id": record_id, "version": 1, "dtCreated": made(number), **fields}


def billing(bills: int, lines: int) -> list[tuple[str, Record]]:
    """Bills with as many line items each, the newest of all in the last bill."""
    numbers = [(bill, line) for bill in range(bills) for line in range(lines)]
    items = [record(f"i{bill}-{line}", bill * lines + line, billId=f"b{bill}") for bill, line in numbers]
    return [*((BILL, record(f"b{bill}", bill)) for bill in range(bills)), *((ITEMS, item) for item in items)]


def ids(reading: Reading) -> Counter[str]:
    return Counter(reading.frame.collect()["id"])


def deleted(reading: Reading) -> set[str]:
    assert reading.deleted
    rows = reading.deleted.rows.collect()
    assert rows["deleted"].all()
    return set(rows["id"])


def delete_while(organization: Organization, path: str, page: int, entity: str, *gone: str) -> None:
    """Delete records before this page of a list is answered, the first time that it is."""
    asked = list[str]()

    def before_answer(asked_path: str, query: str) -> None:
        asked.extend([query] if asked_path == path else [])
        if len(asked) == page and asked_path == path:
            for one in gone:
                organization.api.records.delete(entity, one)

    organization.api.before_answer = before_answer


@pytest.mark.parametrize("knows", [True, False], ids=["later", "first"])
def test_line_items_that_fall_out_of_the_whole_list_are_found_in_their_bill(serve: Serve, *, knows: bool) -> None:
    organization = serve(billing(10, 50))
    organization.export(ITEMS)
    delete_while(organization, "/lineitems", 3, ITEMS, "i9-40", "i9-41")
    reading = organization.export(ITEMS, knows=knows)[ITEMS]
    assert set(ids(reading)) >= {f"i{bill}-{line}" for bill in range(10) for line in range(50)} - {"i9-40", "i9-41"}
    assert max(ids(reading).values()) == 1
    assert reading.completeness
    assert reading.completeness.recovered == 2


def test_deleted_line_items_are_confirmed_by_the_list_of_their_bill_or_because_that_is_gone(serve: Serve) -> None:
    organization = serve(billing(10, 50))
    organization.export(ITEMS)
    organization.api.records.delete(ITEMS, "i3-7")
    for line in range(50):
        organization.api.records.delete(ITEMS, f"i5-{line}")
    organization.api.records.delete(BILL, "b5")
    reading = organization.export(ITEMS)[ITEMS]
    assert deleted(reading) == {"i3-7", *(f"i5-{line}" for line in range(50))}
    assert len(organization.asked("/bills/b3/lineitems")) == len(organization.asked("/bills/b5/lineitems")) == 1
    assert reading.completeness
    assert reading.completeness.is_proven


@pytest.mark.parametrize("embeds", [True, False])
def test_many_bills_are_asked_at_once_for_the_line_items_that_they_still_have(serve: Serve, *, embeds: bool) -> None:
    organization = serve(billing(40, 20))
    organization.export(ITEMS)
    for bill in range(30):
        organization.api.records.delete(ITEMS, f"i{bill}-3")
    for line in range(20):
        organization.api.records.delete(ITEMS, f"i35-{line}")
    organization.api.records.delete(BILL, "b35")
    delete_while(organization, "/lineitems", 2, ITEMS, "i39-1")

    def without_embedded(path: str, query: str) -> None:
        if path == "/bills" and not embeds:
            raise Forbidden("No bills.")
        moved(path, query)

    moved = organization.api.before_answer
    assert moved
    organization.api.before_answer = without_embedded
    reading = organization.export(ITEMS)[ITEMS]
    assert deleted(reading) == {*(f"i{bill}-3" for bill in range(30)), *(f"i35-{line}" for line in range(20))} | (
        {"i39-1"} - set(ids(reading))
    )
    assert reading.completeness
    assert (reading.completeness.is_proven, reading.completeness.recovered) == (True, 1)
    of_bills = [one.path for one in organization.api.requests if "/bills/" in one.path]
    assert len(of_bills) == (1 if embeds else 32)


def test_bills_that_embed_only_some_of_their_line_items_are_asked_for_all(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = list_routes.bill_content

    def cut(row: Any, asked: Any, line_items: Any) -> bytes:
        bill = json.loads(embedded(row, asked, line_items))
        return json.dumps({**bill, "lineItems": bill["lineItems"][:5]} if "lineItems" in bill else bill).encode()

    monkeypatch.setattr(list_routes, "bill_content", cut)
    organization = serve(billing(10, 45))
    organization.export(ITEMS)
    for bill in range(5):
        organization.api.records.delete(ITEMS, f"i{bill}-44")
    there = organization.api.records.of(ITEMS).rows
    fallen_out = there[100].id
    delete_while(organization, "/lineitems", 2, ITEMS, there[0].id)
    reading = organization.export(ITEMS)[ITEMS]
    assert fallen_out in ids(reading)
    assert {f"i{bill}-44" for bill in range(5)} <= deleted(reading)
    assert reading.completeness
    assert reading.completeness.is_proven


def test_a_line_item_that_falls_out_of_its_bill_too_is_looked_for_again(serve: Serve) -> None:
    organization = serve(billing(3, 200))
    organization.export(ITEMS)
    there = organization.api.records.of(ITEMS).rows
    fallen_out = there[300].id
    asked = Counter[str]()

    def before_answer(path: str, query: str) -> None:  # noqa: ARG001
        asked[path] += 1
        if (path, asked[path]) == ("/lineitems", 4):
            organization.api.records.delete(ITEMS, there[0].id)
        if (path, asked[path]) == ("/bills/b1/lineitems", 2):
            # There it stood at the head of the second page, after the row that was deleted.
            for row in there[200:202]:
                organization.api.records.delete(ITEMS, row.id)

    organization.api.before_answer = before_answer
    reading = organization.export(ITEMS)[ITEMS]
    assert fallen_out in ids(reading)
    assert fallen_out not in deleted(reading)


def test_line_items_read_bill_by_bill_are_looked_for_only_where_their_list_is_long(serve: Serve) -> None:
    organization = serve(billing(6, 150))
    organization.limits = BY_PARENT
    first = organization.export(BILL, ITEMS)[ITEMS]
    assert (first.how or "").startswith("bill by bill (6 ")
    assert len(organization.asked("/bills/b3/lineitems")) == 2 + 2 + 2, "for a sample, then all, and again"
    delete_while(organization, "/bills/b3/lineitems", 2, ITEMS, "i3-149")
    organization.api.records.delete(ITEMS, "i4-0")
    second = organization.export(BILL, ITEMS)[ITEMS]
    assert deleted(second) == {"i4-0", "i3-149"} - set(ids(second))
    assert set(ids(second)) >= {f"i{bill}-{line}" for bill in range(6) for line in range(149)} - {"i4-0"}
    assert max(ids(second).values()) == 1


def test_the_plans_of_an_account_that_fell_out_are_exported(serve: Serve) -> None:
    accounts = [(ACCOUNT, record(f"a{number}", number)) for number in range(250)]
    plans = [(PLANS, record(f"p{number}", number, accountId=f"a{number}", startDate=made(0))) for number in range(250)]
    organization = serve([*accounts, *plans])
    delete_while(organization, "/accounts", 2, ACCOUNT, "a249")
    readings = organization.export(ACCOUNT, PLANS)
    assert set(ids(readings[ACCOUNT])) >= {f"a{number}" for number in range(249)}
    assert set(ids(readings[PLANS])) >= {f"p{number}" for number in range(249)}
    assert readings[ACCOUNT].completeness
    assert readings[ACCOUNT].completeness.recovered == 1


def test_plans_alone_are_those_of_all_accounts_too(serve: Serve) -> None:
    accounts = [(ACCOUNT, record(f"a{number}", number)) for number in range(250)]
    plans = [(PLANS, record(f"p{number}", number, accountId=f"a{number}", startDate=made(0))) for number in range(250)]
    organization = serve([*accounts, *plans])
    delete_while(organization, "/accounts", 2, ACCOUNT, "a249")
    assert set(ids(organization.export(PLANS)[PLANS])) >= {f"p{number}" for number in range(249)}


@pytest.mark.parametrize("is_gone", [True, False])
def test_an_account_without_a_list_of_plans_is_deleted_or_an_error(serve: Serve, *, is_gone: bool) -> None:
    organization = serve([(ACCOUNT, record("a1", 1)), (ACCOUNT, record("a2", 2))])

    def before_answer(path: str, query: str) -> None:
        if path == "/accountplans" and "account=a2" in query:
            if is_gone:
                organization.api.records.delete(ACCOUNT, "a2")
            raise NotFound("There is no account a2.")

    organization.api.before_answer = before_answer
    if is_gone:
        assert set(ids(organization.export(ACCOUNT, PLANS)[ACCOUNT])) == {"a1", "a2"}
        return
    with pytest.raises(EntityUnreadable, match="404 that there is no /accountplans of account a2, which is there"):
        organization.export(PLANS)


def drawn(balances: int, transactions: int) -> list[tuple[str, Record]]:
    """Balances with as many transactions each."""
    numbers = [(balance, number) for balance in range(balances) for number in range(transactions)]
    rows = [record(f"t{balance}-{n}", balance * transactions + n, balanceId=f"b{balance}") for balance, n in numbers]
    balances_of = [(BALANCE, record(f"b{balance}", balance)) for balance in range(balances)]
    return [*balances_of, *((TRANSACTIONS, row) for row in rows)]


def test_transactions_are_told_to_which_balance_they_belong_and_looked_for_in_its_list(serve: Serve) -> None:
    organization = serve(drawn(4, 450))
    first = organization.export(TRANSACTIONS)[TRANSACTIONS]
    assert {(one.split("-")[0][1:], balance[1:]) for one, balance in owners(first)} == {(n, n) for n in "0123"}
    assert (first.rows, first.empty_columns.count("balanceId")) == (1_800, 0)
    assert first.completeness
    assert first.completeness.is_proven
    organization.api.records.delete(TRANSACTIONS, "t2-7")
    delete_while(organization, "/balances/b1/transactions", 2, TRANSACTIONS, "t1-449")
    second = organization.export(TRANSACTIONS)[TRANSACTIONS]
    assert set(ids(second)) >= set(ids(first)) - {"t2-7", "t1-449"}
    assert deleted(second) >= {"t2-7"}
    assert ("t2-7", "b2") in owners(second, deleted=True)
    assert second.completeness
    assert (second.completeness.is_proven, second.completeness.recovered) == (True, 1)


@pytest.mark.parametrize("names", [(TRANSACTIONS,), (BALANCE, TRANSACTIONS)])
def test_transactions_are_deleted_with_their_balance(serve: Serve, names: tuple[str, ...]) -> None:
    organization = serve(drawn(4, 3))
    organization.export(*names)
    organization.api.records.delete(BALANCE, "b1")
    reading = organization.export(*names)[TRANSACTIONS]
    assert deleted(reading) == {f"t1-{number}" for number in range(3)}
    assert owners(reading, deleted=True) == {(f"t1-{number}", "b1") for number in range(3)}
    assert len(ids(reading)) == 9


def owners(reading: Reading, *, deleted: bool = False) -> set[tuple[str, str]]:
    """The ids of transactions with those of their balances."""
    assert reading.deleted or not deleted
    frame = reading.deleted.rows if deleted and reading.deleted else reading.frame
    return set(frame.select("id", "balanceId").collect().rows())


def test_bands_are_deleted_with_their_pricing_and_from_it(serve: Serve) -> None:
    def pricing(number: int, *bands: str) -> Record:
        each = [{"id": band, "lowerLimit": 0, "fixedPrice": 1, "unitPrice": 1} for band in bands]
        return record(f"pr{number}", number, pricingBands=each)

    organization = serve([(PRICING, pricing(number, f"{number}a", f"{number}b")) for number in range(3)])
    organization.export(PRICING, BANDS)
    organization.api.records.delete(PRICING, "pr1")
    organization.api.records.replace(PRICING, pricing(2, "2b", "2c"))
    readings = organization.export(PRICING, BANDS)
    assert deleted(readings[PRICING]) == {"pr1"}
    assert deleted(readings[BANDS]) == {"1a", "1b", "2a"}
    assert set(ids(readings[BANDS])) == {"0a", "0b", "2b", "2c"}


def test_what_is_deleted_stays_so_where_the_next_export_cannot_ask(serve: Serve) -> None:
    def pricing(number: int, *bands: str) -> Record:
        return record(f"pr{number}", number, pricingBands=[{"id": band, "unitPrice": 1} for band in bands])

    organization = serve([(PRICING, pricing(number, f"{number}a", f"{number}b")) for number in range(3)])
    organization.export(PRICING, BANDS)
    organization.api.records.delete(PRICING, "pr1")
    organization.export(PRICING, BANDS)
    organization.lose_keys(PRICING)
    organization.api.records.delete(PRICING, "pr2")
    bands = organization.export(PRICING, BANDS)[BANDS]
    assert deleted(bands) == {"1a", "1b"}
    assert {"2a", "2b"} <= set(bands.all_keys.collect()["id"])
    assert deleted(organization.export(PRICING, BANDS)[BANDS]) == {"1a", "1b", "2a", "2b"}


def test_line_items_of_bills_that_may_not_be_read_are_not_deleted(serve: Serve) -> None:
    organization = serve(billing(3, 5))
    organization.export(ITEMS)
    organization.api.records.delete(ITEMS, "i1-1")

    def before_answer(path: str, query: str) -> None:  # noqa: ARG001
        if path == "/bills/b1/lineitems":
            raise Forbidden("No.")

    organization.api.before_answer = before_answer
    reading = organization.export(ITEMS)[ITEMS]
    assert deleted(reading) == set()
    assert reading.completeness
    assert not reading.completeness.is_proven
    assert "GET " in reading.completeness.why
    organization.api.before_answer = None
    assert deleted(organization.export(ITEMS)[ITEMS]) == {"i1-1"}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_moves_nothing_is_lost(serve: Serve, seed: int) -> None:
    organization, chance = serve(billing(60, 20)), random.Random(seed)
    there = {f"i{bill}-{line}" for bill in range(60) for line in range(20)}
    stayed = set(there)

    def before_answer(path: str, query: str) -> None:  # noqa: ARG001
        one = chance.choice(sorted(there))
        there.discard(one)
        stayed.discard(one)
        organization.api.records.delete(ITEMS, one)

    for number in range(3):
        stayed = set(there)
        organization.api.before_answer = before_answer
        reading = organization.export(ITEMS)[ITEMS]
        organization.api.before_answer = None
        assert stayed - set(ids(reading)) == set(), number
        assert max(ids(reading).values()) == 1
