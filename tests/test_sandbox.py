"""The sandbox is as strict as m3ter documents itself, and its organization is whole."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import urllib3
from api_client import Client
from botocore.exceptions import ClientError
from click.testing import CliRunner
from flask import Blueprint
from processes import plain_environment, python_path
from pydantic import SecretStr

from m3ter_dagster.alarms.webhook import Webhook
from m3ter_dagster.cli import main
from m3ter_dagster.model.descriptors import load_entities
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_dagster.model.entity import Entity
from m3ter_sandbox import Keys, Role, SampleOrganization, Sandbox, SandboxApi, SandboxS3, User, allow
from m3ter_sandbox.generic_records import generic_records, generic_shapes
from m3ter_sandbox.lists import entity_lists
from m3ter_sandbox.organization import SAMPLED
from m3ter_sandbox.records import ENCODER, Records
from m3ter_sandbox.usage_exports import Behaviour, sample_usage_exports
from m3ter_sandbox.values import TEXTS, Seed
from m3ter_sandbox.webhook import WebhookInbox

ROOT = Path(__file__).parents[1]
ACCOUNTS = 24
ORGANIZATION = SampleOrganization(ACCOUNTS)
LISTED = [entity for entity in entities().values() if not entity.elements]
REFERENCES = {name for name, entity in entities().items() if entity.is_reference}
MANY_DIGITS = "0.12345678901234567890123456789"
JANUARY_ON = ("2025-01", "2025-02")
TYPES = {"string": str, "integer": int, "number": (int, float, Decimal), "boolean": bool, "object": dict, "array": list}


class Clock:
    now = 1_750_000_000.0

    def __call__(self) -> float:
        return self.now


@cache
def records_by_entity() -> dict[str, list[dict[str, Any]]]:
    grouped = defaultdict(list)
    for entity, record in ORGANIZATION.records():
        grouped[entity].append(record)
    return grouped


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with SandboxApi(ORGANIZATION.records(), requests_per_second=None) as api:
        yield Client(api)


@pytest.fixture
def limited() -> Iterator[tuple[Client, Clock]]:
    clock = Clock()
    with SandboxApi([], requests_per_second=3, token_lifetime=100, clock=clock) as api:
        yield Client(api), clock


# The organization


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others() -> None:
    first, again, other = (b"".join(map(ENCODER.encode, SampleOrganization(3, seed).records())) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_larger_organization_has_more_of_what_belongs_to_accounts() -> None:
    small, large = (Counter(entity for entity, _ in SampleOrganization(n).records()) for n in (10, 40))
    assert small["account"] == 10
    assert large["account"] == 40
    for entity in ("account_plan", "bill", "bill_line_item", "commitment", "balance", "contract", "plan", "plan_group"):
        assert large[entity] > small[entity]


def test_an_organization_without_accounts_has_a_catalog_only() -> None:
    names = {entity for entity, _ in SampleOrganization(0).records()}
    assert "product" in names
    assert "account" not in names


@pytest.mark.parametrize("entity", LISTED, ids=lambda entity: entity.name)
def test_records_have_documented_fields_of_the_documented_type(entity: Entity) -> None:
    types = {column.api_field: TYPES[column.type] for column in entity.columns if column.api_field}
    for record in records_by_entity()[entity.name]:
        assert record.keys() <= types.keys() | entity.not_exported
        for name in record.keys() & types.keys():
            assert record[name] is None or isinstance(record[name], types[name]), name


@pytest.mark.parametrize("entity", LISTED, ids=lambda entity: entity.name)
def test_every_documented_field_is_in_some_record(entity: Entity) -> None:
    documented = {column.api_field for column in entity.columns if column.api_field}
    present = {name for record in records_by_entity()[entity.name] for name in record}
    assert documented | entity.not_exported <= present | {"lineItems", "additional"}  # only on request


@pytest.mark.parametrize("entity", LISTED, ids=lambda entity: entity.name)
def test_ids_are_unique_and_references_hold(entity: Entity) -> None:
    ids = {name: [record["id"] for record in records] for name, records in records_by_entity().items()}
    assert len(ids[entity.name]) == len(set(ids[entity.name]))
    for key in entity.foreign_keys:
        field = entity.column(key.column).api_field
        used = {record[field] for record in records_by_entity()[entity.name] if record.get(field) is not None}
        assert used
        assert used <= set(ids[key.entity])


def test_a_bill_total_is_the_sum_of_its_line_items() -> None:
    totals: dict[str, Decimal] = defaultdict(Decimal)
    for item in records_by_entity()["bill_line_item"]:
        totals[item["billId"]] += Decimal(str(item["convertedSubtotal"]))
    assert {bill["id"]: Decimal(str(bill["billTotal"])) for bill in records_by_entity()["bill"]} == totals


def test_the_sample_has_what_exports_trip_over() -> None:
    content = "\n".join(ENCODER.encode(record).decode() for _, record in ORGANIZATION.records())
    for oddity in (
        '\\"',
        "\\r\\n",
        "\\n",
        ",",
        "株式会社",
        "🚀",
        ":null",
        ':""',
        ":0.1,",
        "1e-7",
        "0.12345678901234567890123456789",
    ):
        assert oddity in content


def test_account_plans_are_active_ended_or_of_a_group() -> None:
    plans = records_by_entity()["account_plan"]
    groups = [plan for plan in plans if "planGroupId" in plan]
    assert groups
    assert not any("planId" in plan or "productId" in plan for plan in groups)
    assert any((plan.get("endDate") or "9") < "2025" for plan in plans)


# Entities that only have a descriptor

REQUIRED, KEY = {"required": True}, {"required": True, "unique": True, "minLength": 1}
AUDIT = ("dtCreated", "dtLastModified", "createdBy", "lastModifiedBy")


def field(name: str, type_: str = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, "description": "A field.", **more}


def described(path: str, *fields: dict[str, Any], keys: dict[str, str] | None = None, **api: Any) -> dict[str, Any]:
    """A descriptor as somebody writes it for an entity that the sandbox has never heard of."""
    in_elements = {"m3ter:api": None} if "elements" in api else {}
    own = {one["name"] for one in fields}
    usual = [field("version", "integer", **in_elements), *(field(n, **in_elements) for n in AUDIT if n not in own)]
    deleted = field("deleted", "boolean", **{"m3ter:constant": False})
    references = [{"fields": name, "reference": {"resource": to, "fields": "id"}} for name, to in (keys or {}).items()]
    return {
        "title": path,
        "description": "New at m3ter.",
        "m3ter:operationalDataType": path.upper().rsplit("/", 1)[1] + "".join(api.get("elements", "")).upper(),
        "m3ter:api": {"path": path, "maximumPageSize": 25, **api},
        "fields": [field("id", constraints=KEY), *fields, *usual, deleted],
        "primaryKey": "id",
        "foreignKeys": references,
        "m3ter:notExported": ["internal"],
    }


NEW = {
    "voucher": described(
        "/vouchers",
        field("accountId", constraints=KEY),
        field("billId"),
        field("name"),
        field("notes"),
        field("amount", "number"),
        field("units", "integer"),
        field("settled", "boolean"),
        field("custom", "object"),
        field("tags", "array"),
        field("code", constraints={"minLength": 1}),
        field("chargeDate", constraints=KEY),
        keys={"accountId": "account", "billId": "bill"},
        parameters={"includeDeleted": "false"},
    ),
    "voucher_tax": described(
        "/vouchers",
        field("voucherId", **{"m3ter:parent": "id"}),
        field("name", **{"m3ter:parent": "name"}),
        field("bandId", constraints=KEY),
        field("rate", "number", constraints=REQUIRED),
        field("kind"),
        keys={"voucherId": "voucher", "bandId": "pricing-band"},
        elements={"taxes": {"kind": "TAX"}, "duties": {"kind": "DUTY"}},
    ),
    "statement": described(
        "/statements",
        field("customer", constraints=KEY),
        field("taxId"),
        field("lastModifiedBy", constraints=REQUIRED),
        keys={"customer": "account", "taxId": "voucher-tax"},
        forEach={"entity": "account", "parameter": "account"},
    ),
    "reminder": described(
        "/reminders",
        field("previousId"),
        field("statementId"),
        keys={"previousId": "statement"},
        forEach={"entity": "statement", "parameter": "statement"},
    ),
    "letter": described("/letters", field("text"), forEach={"entity": "voucher", "parameter": "about"}),
    "stamp": described(
        "/reminders/{id}/stamps",
        field("reminderId", constraints=REQUIRED),
        keys={"reminderId": "reminder"},
        forEach={"entity": "reminder", "field": "reminderId"},
    ),
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entity]:
    """The entities with the new ones among them."""
    return load_entities(schemas_with_new_ones(tmp_path_factory.mktemp("schemas") / "schemas"))


def schemas_with_new_ones(folder: Path) -> Path:
    shutil.copytree(ROOT / "schemas", folder)
    for name, descriptor in NEW.items():
        (folder / f"{name}.json").write_text(json.dumps(descriptor))
    return folder


def generic(known: dict[str, Entity], seed: int = 1, accounts: int = ACCOUNTS) -> dict[str, list[dict[str, Any]]]:
    ids = {name: [record["id"] for record in records_by_entity()[name]] for name in ("account", "bill")}
    ids["pricing_band"] = [band["id"] for one in records_by_entity()["pricing"] for band in one["pricingBands"]]
    ids["account"] = ids["account"][:accounts]
    grouped = defaultdict(list)
    for name, record in generic_records(Seed(seed), generic_shapes(known, SAMPLED), ids):
        grouped[name].append(record)
    return grouped


def test_what_m3ter_exports_has_generators_of_its_own() -> None:
    assert {name for name, _ in ORGANIZATION.records() if not entities()[name].is_reference} == set(SAMPLED)
    assert {name for name, _ in ORGANIZATION.records()} - {*SAMPLED} == REFERENCES


def test_generic_records_are_the_same_for_a_seed_and_others_for_another(known: dict[str, Entity]) -> None:
    assert ENCODER.encode(generic(known)) == ENCODER.encode(generic(known))
    first, other = (generic(known, seed)["voucher"] for seed in (1, 2))
    for name in ("id", "notes", "amount", "accountId"):
        assert [one.get(name) for one in first] != [one.get(name) for one in other]


def test_generic_records_have_what_exports_trip_over(known: dict[str, Entity]) -> None:
    records = generic(known)["voucher"]
    given = {}
    for name in ("notes", "amount", "units", "settled", "custom", "tags"):
        assert any(name not in one for one in records)
        assert any(name in one and one[name] is None for one in records)
        given[name] = [one[name] for one in records if one.get(name) is not None]
    assert {"", *TEXTS} == set(given["notes"])
    assert {0, 2**53 + 1} < set(given["units"])
    assert {0, 1e-7, 1.5e300, Decimal(MANY_DIGITS)} < set(given["amount"])
    assert {True, False} == set(given["settled"])
    assert {} in given["custom"]
    assert [] in given["tags"]
    assert any({"a,b", 'c"d', "line\nbreak"} <= set(map(str, one)) for one in given["tags"])


def test_generic_records_keep_the_rules_of_their_descriptors(known: dict[str, Entity]) -> None:
    for entity in (known[name] for name in NEW):
        rows = rows_of(entity, generic(known))
        assert len(rows) >= 30
        assert len({row["id"] for row in rows}) == len(rows)
        for column in entity.columns:
            values = [row.get(column.api_field) for row in rows] if column.api_field else []
            types = {type(value) for value in values} - {type(None)}
            assert all(issubclass(type_, TYPES[column.type]) for type_ in types), column.name
            assert not (column.required and None in values), column.name
            assert not (column.non_empty and "" in values), column.name
        assert entity.elements or any("internal" in row for row in rows)
    assert all(record["name"] for record in generic(known)["voucher"])  # the taxes have it from there


def rows_of(entity: Entity, records: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    if not entity.elements:
        return records[entity.name]
    arrays = [array for array, _ in entity.elements]
    return [row for record in records["voucher"] for array in arrays for row in record[array]]


def test_generic_records_refer_to_what_exists(known: dict[str, Entity]) -> None:
    records = {**records_by_entity(), **generic(known)}
    bands = {band["id"] for pricing in records["pricing"] for band in pricing["pricingBands"]}
    taxes = {row["id"] for row in rows_of(known["voucher_tax"], records)}
    ids = {name: {one["id"] for one in many} for name, many in records.items()}
    for rows, name, targets in (
        (records["voucher"], "accountId", ids["account"]),
        (records["voucher"], "billId", ids["bill"]),
        (rows_of(known["voucher_tax"], records), "bandId", bands),
        (records["statement"], "customer", ids["account"]),
        (records["statement"], "taxId", taxes),
        (records["reminder"], "statementId", ids["statement"]),
        (records["letter"], "about", ids["voucher"]),
        (records["stamp"], "reminderId", ids["reminder"]),
    ):
        used = {row[name] for row in rows} - {None}
        assert len(used) > 10, name
        assert used <= targets, name


def test_without_accounts_there_is_nothing_that_must_have_one(known: dict[str, Entity]) -> None:
    of_balances = {name for name in REFERENCES if known[name].listing.parent == "balance"}
    assert len(of_balances) == 2
    assert generic(known, accounts=0).keys() == REFERENCES - of_balances


@pytest.mark.parametrize(
    ("name", "parameter", "key"),
    [("statement", "account", "customer"), ("reminder", "statement", "statementId"), ("letter", "about", "about")],
)
def test_a_list_for_each_record_of_another_gives_what_belongs_to_it(
    known: dict[str, Entity], name: str, parameter: str, key: str
) -> None:
    lists, records = entity_lists(known.values()), generic(known)
    rows = Records([(name, record) for record in records[name]], lists).of(name)
    parent = records[name][0][key]
    found = rows.select(lists[name], {parameter: parent}, "")
    assert {row.id for row in found} == {record["id"] for record in records[name] if record[key] == parent}
    assert lists[name].maximum_page_size == 25


def test_a_record_of_an_entity_without_a_descriptor_is_in_no_list(known: dict[str, Entity]) -> None:
    lists = entity_lists(one for one in known.values() if one.name != "meter")
    records = Records(ORGANIZATION.records(), lists)
    assert records.of("meter").rows == []
    assert len(records.of("product").rows) == len(records_by_entity()["product"])


@pytest.mark.slow
def test_new_descriptors_make_the_demo_work_without_a_line_of_python(tmp_path: Path) -> None:
    """As a developer does it: one more file in schemas/ of a copy of the project."""
    for package in ROOT.glob("m3ter_*"):
        if package.is_dir():
            shutil.copytree(package, tmp_path / package.name)
    schemas_with_new_ones(tmp_path / "schemas")
    (tmp_path / "home").mkdir()
    paths = {"DAGSTER_HOME": str(tmp_path / "home"), "PYTHONPATH": python_path(tmp_path)}
    settings = {**paths, "M3TER_REQUESTS_PER_SECOND": "50"}
    code = "from m3ter_dagster.cli import main; main()"
    command = [sys.executable, "-c", code, "demo", "--accounts", "4", "--output", "files"]
    run = partial(subprocess.run, command, capture_output=True, text=True, check=False)
    ended = run(cwd=tmp_path, env={**plain_environment(), **settings})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    names = len(operational_entities()) + len(NEW)
    assert f"{names} of {names} entities delivered" in ended.stdout
    tables = {name: exported(tmp_path / "files" / "sandbox-archive", name) for name in (*NEW, "account")}
    ids = {name: {row["id"] for row in rows} for name, rows in tables.items()}
    for name, column, target in (
        ("voucher", "accountId", "account"),
        ("voucher_tax", "voucherId", "voucher"),
        ("statement", "customer", "account"),
        ("statement", "taxId", "voucher_tax"),
        ("reminder", "statementId", "statement"),
        ("stamp", "reminderId", "reminder"),
    ):
        used = {row[column] for row in tables[name]} - {""}
        assert used
        assert used <= ids[target]
    assert {name: len(rows) for name, rows in tables.items()} == {
        "account": 4,
        "voucher": 40,
        "voucher_tax": 120,
        "letter": 40,
        "reminder": 40,
        "stamp": 40,
        "statement": 40,
    }
    assert {row["kind"] for row in tables["voucher_tax"]} == {"TAX", "DUTY"}
    assert {row["deleted"] for row in tables["voucher"]} == {"false"}
    (tmp_path / "schemas" / "wrong.json").write_text("{}")
    refused = run(cwd=tmp_path, env={**plain_environment(), **settings})
    assert (refused.returncode, refused.stderr) == (2, "Error: schemas/wrong.json has no 'm3ter:api'.\n")


def exported(bucket: Path, name: str) -> list[dict[str, str]]:
    (path,) = bucket.rglob(f"*-*_{name}.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# Lists


@pytest.mark.parametrize("entity", LISTED, ids=lambda entity: entity.name)
def test_a_walk_gives_every_record_once_newest_first(client: Client, entity: Entity) -> None:
    query = dict(entity.listing.parameters)
    if entity.listing.for_each:
        rows = []
        for parent in records_by_entity()[entity.listing.for_each.entity]:
            listing = entity.listing.of_parent(parent["id"])
            told = {entity.listing.for_each.field: parent["id"]} if entity.listing.for_each.field else {}
            found = client.walk(listing.path, **dict(listing.parameters), pageSize=1)
            assert not any(told.keys() & row.keys() for row in found)
            rows += [row | told for row in found]
    elif entity.listing.is_one_record:
        assert client.get(entity.listing.path, pageSize=1).status == 400
        rows = [client.get(entity.listing.path).json()]
    else:
        rows = client.walk(entity.listing.path, **query, pageSize=min(7, len(records_by_entity()[entity.name]) - 1))
        assert [row["dtCreated"] for row in rows] == sorted((row["dtCreated"] for row in rows), reverse=True)
    expected = [json.loads(ENCODER.encode(record)) for record in records_by_entity()[entity.name]]
    assert sorted(rows, key=lambda row: row["id"]) == sorted(expected, key=lambda row: row["id"])


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/accounts", {"pageSize": 100}, 200),
        ("/accounts", {"pageSize": 101}, 400),
        ("/accounts", {"pageSize": 0}, 400),
        ("/accounts", {"pageSize": -1}, 400),
        ("/accounts", {"pageSize": "ten"}, 400),
        ("/products", {"pageSize": 200}, 200),
        ("/products", {"pageSize": 201}, 400),
        ("/plangroups", {"pageSize": 200}, 200),
        ("/plangroups", {"pageSize": 201}, 400),
        ("/accounts", {"pagesize": 10}, 400),
        ("/accounts", {"nextToken": "made up"}, 400),
        ("/accounts", {"nextToken": "MTA="}, 400),
        ("/accounts", {"nextToken": ""}, 200),
        ("/bills", {"locked": "yes"}, 400),
        ("/bills", {"status": "PAID"}, 400),
        ("/bills", {"billDateStart": "soon"}, 400),
        ("/bills", {"includeBillTotal": "true", "excludeLineItems": "true", "additional": "a,b"}, 200),
        ("/lineitems", {"lineItemType": "TIP"}, 400),
        ("/accountplans", {"product": "x"}, 400),
        ("/accountplans", {"includeAll": "true"}, 400),
        ("/bills/no-such-bill/lineitems", {}, 404),
        ("/balances/no-such-balance/transactions", {}, 404),
        ("/balances/{id}/transactions", {}, 404),
        ("/charges", {"pageSize": 200}, 200),
        ("/charges", {"entityType": "BILL"}, 400),
        ("/picklists/transactiontypes", {"archived": "true", "pageSize": 101}, 400),
        ("/pricingbands", {}, 404),
        ("/accounts/", {}, 404),
    ],
)
def test_questions_are_answered_or_refused_as_documented(
    client: Client, path: str, query: dict[str, Any], status: int
) -> None:
    answer = client.get(path, **query)
    assert answer.status == status
    if status >= 400:
        assert answer.json().keys() == {"message"}


def test_a_page_has_ten_records_unless_asked_otherwise_and_the_last_page_no_token(client: Client) -> None:
    first = client.get("/accounts").json()
    last = client.get("/accounts", pageSize=ACCOUNTS).json()
    assert len(first["data"]) == 10
    assert first["nextToken"]
    assert last.keys() == {"data"}


@pytest.mark.parametrize(("path", "query"), [("/contracts", {}), ("/accounts", {"codes": "account_1,account_2"})])
def test_a_token_of_another_list_or_filter_is_refused(client: Client, path: str, query: dict[str, str]) -> None:
    token = client.get("/accounts", pageSize=1).json()["nextToken"]
    assert client.get("/accounts", nextToken=token, pageSize=2).status == 200
    assert client.get(path, nextToken=token, **query).status == 400


@pytest.mark.parametrize(
    ("entity", "query", "holds"),
    [
        ("bill", {"locked": "false"}, lambda bill: not bill["locked"]),
        ("bill", {"locked": "true"}, lambda _: True),
        ("bill", {"status": "PENDING"}, lambda bill: bill["status"] == "PENDING"),
        ("bill", {"status": "APPROVED", "locked": "false"}, lambda b: b["status"] == "APPROVED" and not b["locked"]),
        (
            "bill",
            {"billDateStart": "2025-01-01", "billDateEnd": "2025-03-01"},
            lambda b: b["billDate"][:7] in JANUARY_ON,
        ),
        ("bill_line_item", {"lineItemType": "USAGE"}, lambda item: item["lineItemType"] == "USAGE"),
        ("account", {"codes": "account_3,account_5"}, lambda account: account["code"] in ("account_3", "account_5")),
        ("aggregation", {"productId": "$product"}, lambda a: int(a["code"].split("_")[1]) < 6),
        ("commitment", {"productId": "$product"}, lambda c: PRODUCT_ID in (c.get("productIds") or [])),
        ("pricing", {"date": "2023-12-31"}, lambda _: False),
        ("account_plan", {"includeall": "true"}, lambda plan: not (plan.get("endDate") or "9") < "2025"),
        ("transaction_type", {"archived": "true"}, lambda _: True),
        ("transaction_type", {"archived": "false"}, lambda one: not one["archived"]),
        ("charge", {"entityType": "BALANCE"}, lambda charge: charge["entityType"] == "BALANCE"),
        ("account_plan", {"date": "2024-03-01"}, lambda plan: plan["startDate"] < "2024-03"),
    ],
)
def test_filters_select(client: Client, entity: str, query: dict[str, str], holds: Callable[[Any], bool]) -> None:
    asked = {name: PRODUCT_ID if value == "$product" else value for name, value in query.items()}
    found = {row["id"] for row in client.walk(entities()[entity].listing.path, pageSize=100, **asked)}
    assert found == {record["id"] for record in records_by_entity()[entity] if holds(record)}


PRODUCT_ID = next(record["id"] for entity, record in ORGANIZATION.records() if entity == "product")


def test_ids_are_repeated_or_separated_by_commas(client: Client) -> None:
    ids = [record["id"] for record in records_by_entity()["meter"]][:2]
    with_commas = client.get("/meters", ids=",".join(ids)).json()
    repeated = client.get(f"/meters?ids={ids[0]}&ids={ids[1]}").json()
    assert with_commas == repeated
    assert {row["id"] for row in repeated["data"]} == set(ids)


def test_ended_account_plans_come_only_with_an_account_a_plan_or_a_contract(client: Client) -> None:
    ended = next(plan for plan in records_by_entity()["account_plan"] if (plan.get("endDate") or "9") < "2025")
    for query, is_found in (
        ({"account": ended["accountId"]}, False),
        ({"includeall": "true"}, False),
        ({"account": ended["accountId"], "includeall": "true"}, True),
        ({"plan": ended["planId"], "includeall": "true"}, True),
    ):
        assert (ended["id"] in {row["id"] for row in client.walk("/accountplans", **query)}) == is_found


def test_bills_carry_line_items_and_no_total_unless_asked_otherwise(client: Client) -> None:
    plain = client.get("/bills", pageSize=1).json()["data"][0]
    asked = client.get("/bills", pageSize=1, includeBillTotal="true", excludeLineItems="true").json()["data"][0]
    own = client.walk(f"/bills/{plain['id']}/lineitems")
    assert "billTotal" not in plain
    assert "lineItems" not in asked
    assert [item["id"] for item in plain["lineItems"]] == [item["id"] for item in own]
    assert {key: value for key, value in asked.items() if key != "billTotal"}.keys() == plain.keys() - {"lineItems"}
    assert not {"version", "billId", "dtCreated"} & plain["lineItems"][0].keys()
    assert own == client.walk("/lineitems", billId=plain["id"])


def test_numbers_keep_every_digit_on_the_way(client: Client) -> None:
    assert MANY_DIGITS.encode() in client.get("/accounts", pageSize=100).data
    item = next(item for item in records_by_entity()["bill_line_item"] if "bandUsage" in item)
    digits = str(item["bandUsage"][0]["convertedBandSubtotal"])
    assert len(digits) > 20
    assert digits.encode() in client.get("/bills", ids=item["billId"]).data


# Transport


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"json": {"grant_type": "client_credentials"}}, 200),
        ({"fields": {"grant_type": "client_credentials"}, "encode_multipart": False}, 200),
        ({"json": {"grant_type": "password"}}, 400),
        ({"json": ["client_credentials"]}, 400),
        ({"fields": {}, "encode_multipart": False}, 400),
    ],
)
def test_the_token_is_for_client_credentials_as_json_or_form(client: Client, body: dict[str, Any], status: int) -> None:
    answer = client.token(**body)
    assert answer.status == status
    if status == 200:
        token = answer.json()
        assert (token["token_type"], token["expires_in"]) == ("Bearer", 18_000)


@pytest.mark.parametrize(("key", "secret"), [("sandbox-key", "wrong"), ("wrong", "sandbox-secret"), ("", "")])
def test_wrong_credentials_are_401(client: Client, key: str, secret: str) -> None:
    answer = client.token(key, secret)
    assert answer.status == 401
    assert answer.json().keys() == {"message"}


def test_no_credentials_are_401(client: Client) -> None:
    answer = client.http.request(
        "POST", f"{client.api.base_url}/oauth/token", json={"grant_type": "client_credentials"}
    )
    assert answer.status == 401


@pytest.mark.parametrize("authorization", ["", "Bearer unknown", "Basic eDp5"])
def test_without_a_known_bearer_token_everything_is_403(client: Client, authorization: str) -> None:
    for path in ("/accounts", "/no/such/path"):
        assert client.get(path, headers={"Authorization": authorization}).status == 403


def test_another_organization_is_403_and_another_path_404(client: Client) -> None:
    headers = {"Authorization": client.bearer}
    for path, status in (("/organizations/other/accounts", 403), ("/accounts", 404), ("/", 404)):
        assert client.http.request("GET", client.api.base_url + path, headers=headers).status == status


def test_a_token_expires_and_can_be_revoked(limited: tuple[Client, Clock]) -> None:
    client, clock = limited
    clock.now += 99
    assert client.get("/accounts").status == 200
    clock.now += 1
    assert client.get("/accounts").status == 403
    fresh = Client(client.api)
    assert fresh.get("/accounts").status == 200
    client.api.revoke_tokens()
    assert fresh.get("/accounts").status == 403


def test_more_requests_than_the_limit_within_a_second_are_429(limited: tuple[Client, Clock]) -> None:
    client, clock = limited
    assert [client.get("/accounts").status for _ in range(5)] == [200, 200, 200, 429, 429]
    clock.now += 1
    assert client.get("/accounts").status == 200


def test_answers_are_compressed_for_clients_that_take_gzip(client: Client) -> None:
    plain = client.get("/lineitems", pageSize=100)
    headers = {"Accept-Encoding": "gzip"}
    url = f"{client.api.base_url}/organizations/{client.api.organization_id}/lineitems?pageSize=100"
    packed = client.http.request("GET", url, headers={"Authorization": client.bearer} | headers, decode_content=False)
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data


def test_connections_are_kept_alive_and_every_request_is_logged(client: Client) -> None:
    client.api.requests.clear()
    http = urllib3.HTTPConnectionPool("127.0.0.1", int(client.api.base_url.rsplit(":", 1)[1]), maxsize=1, retries=False)
    path = f"/organizations/{client.api.organization_id}/meters"
    for query in ("pageSize=1", "pageSize=500"):
        http.request("GET", f"{path}?{query}", headers={"Authorization": client.bearer})
    assert http.num_connections == 1
    http.close()
    logged = [(entry.method, entry.path, entry.query, entry.status) for entry in client.api.requests]
    assert logged == [("GET", path, "pageSize=1", 200), ("GET", path, "pageSize=500", 400)]


def test_many_threads_read_at_once(client: Client) -> None:
    expected = client.get("/bills", pageSize=20).data
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: client.get("/bills", pageSize=20).data, range(40)))
    assert set(answers) == {expected}


def test_further_endpoints_are_added_as_a_blueprint() -> None:
    further = Blueprint("further", __name__)
    further.add_url_rule("/dataexports/destinations", "destinations", lambda: {"data": []})
    with SandboxApi([], further_routes=[further]) as api:
        client = Client(api)
        assert client.get("/dataexports/destinations").json() == {"data": []}
        assert client.get("/dataexports/destinations", headers={"Authorization": ""}).status == 403


def test_nothing_answers_after_the_end() -> None:
    with SandboxApi([]) as api:
        client = Client(api)
        assert client.get("/accounts").status == 200
    with pytest.raises(urllib3.exceptions.HTTPError):
        client.get("/accounts")


# Usage queries

WINDOW = {"startDate": "2024-03-31T00:00:00.000Z", "endDate": "2024-04-02T00:00:00Z"}
USAGE = sample_usage_exports(ORGANIZATION, lambda: 1_717_243_200.0)  # 2024-06-01T12:00:00Z
METER, *_, IDLE = USAGE.meters
SUM = {"aggregations": [{"meterId": METER, "fieldCode": "gb", "fieldType": "MEASURE", "function": "SUM"}]}
DAILY = [{"groupType": "TIME", "frequency": "DAY"}]


@pytest.fixture(scope="module")
def usage_client() -> Iterator[Client]:
    with SandboxApi([], requests_per_second=None, further_routes=[USAGE.routes()]) as api:
        yield Client(api)


def test_a_usage_query_gives_the_latest_measurements_that_the_export_would_have(usage_client: Client) -> None:
    truth = sorted((one["timestamp"], one["uid"]) for one in USAGE.usage.measurements(WINDOW))
    whole = usage_client.post("/usage/query", WINDOW).json()
    assert whole["hasMoreData"] is False
    assert [one["uid"] for one in whole["data"]] == [uid for _, uid in reversed(truth)]
    latest = usage_client.post("/usage/query", {**WINDOW, "limit": 1}).json()
    assert latest == {"data": whole["data"][:1], "hasMoreData": True}


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ({"meterIds": [METER]}, 24),
        ({"meterIds": [METER], "limit": 24}, 24),
        ({"meterIds": [IDLE], "limit": 1}, 0),
        ({"accountIds": ["stranger"]}, 0),
        ({"meterIds": [METER], "dimensionFilters": [{"meterId": METER, "fieldCode": "region", "values": ["x"]}]}, 0),
        ({"meterIds": [METER], **SUM, "groups": DAILY}, 2),
        ({"meterIds": [IDLE], **SUM, "groups": DAILY}, 0),
    ],
)
def test_a_usage_query_selects_as_an_export_does(usage_client: Client, asked: dict[str, Any], count: int) -> None:
    answer = usage_client.post("/usage/query", {**WINDOW, **asked})
    assert (answer.status, answer.json()["hasMoreData"], len(answer.json()["data"])) == (200, False, count)


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"sourceType": "USAGE"}, 400, "A usage query takes no sourceType."),
        ({"nextToken": "t"}, 400, "A usage query takes no nextToken."),
        ({"endDate": None}, 400, "startDate and endDate are both required, as date-times."),
        ({"groups": DAILY}, 400, "groups need aggregations."),
        ({"limit": 0}, 400, "limit must be an integer from 1 to 20000."),
        ({"limit": 20_001}, 400, "limit must be an integer from 1 to 20000."),
        ({"limit": "1"}, 400, "limit must be an integer from 1 to 20000."),
        ({"limit": True}, 400, "limit must be an integer from 1 to 20000."),
        ({"meterIds": ["m"]}, 404, "There is no meter m."),
        (SUM, 400, "The sandbox aggregates over a group of time only."),
    ],
)
def test_what_a_usage_query_does_not_take_is_refused(
    usage_client: Client, asked: dict[str, Any], status: int, words: str
) -> None:
    answer = usage_client.post("/usage/query", {**WINDOW, **asked})
    assert (answer.status, answer.json()) == (status, {"message": words})


def test_an_empty_file_is_the_next_one_only() -> None:
    usage = sample_usage_exports(ORGANIZATION, lambda: 1_717_243_200.0)
    usage.behaviour = Behaviour(looks_until_done=0, empty_files=1, is_gzip=False)
    with SandboxApi([], requests_per_second=None, further_routes=[usage.routes()]) as api:
        client = Client(api)
        id = client.post("/dataexports/adhoc", {"sourceType": "USAGE", **WINDOW}).json()["jobId"]
        assert client.get(f"/dataexports/jobs/{id}").json()["status"] == "SUCCEEDED"
        url = client.get(f"/dataexports/jobs/{id}/getdownloadurl").json()["url"]
        files = [client.http.request("GET", url).data for _ in range(2)]
    assert files[0] == b""
    assert files[1].startswith(b"meter_id,timestamp,uid,")


# S3 and the whole


@pytest.fixture
def s3() -> Iterator[SandboxS3]:
    with SandboxS3(["bucket"]) as s3:
        yield s3


def test_s3_refuses_whom_it_should_once_authentication_is_on(s3: SandboxS3) -> None:
    writes = allow("s3:PutObject", "arn:aws:s3:::bucket/m3ter/*")
    writer = s3.enforce_authentication([User("writer", [writes])])["writer"]
    for keys, key, refusal in (
        (writer, "m3ter/x", None),
        (writer, "other/x", "AccessDenied"),
        (Keys(writer.access_key_id, "wrong"), "m3ter/x", "SignatureDoesNotMatch"),
        (Keys("AKIAUNKNOWNUNKNOWN00", "x"), "m3ter/x", "InvalidAccessKeyId"),
        (s3.root, "other/y", None),
    ):
        assert (
            refusal_of(lambda keys=keys, key=key: s3.client("s3", keys).put_object(Bucket="bucket", Key=key)) == refusal
        )
    assert s3.objects("bucket") == {"m3ter/x": b"", "other/y": b""}


def test_a_role_is_assumed_by_those_it_trusts_with_the_external_id(s3: SandboxS3) -> None:
    role = Role("export", [allow("s3:PutObject", "arn:aws:s3:::bucket/*")], ["trusted"], external_id="secret")
    may_ask = allow("sts:AssumeRole", role.arn)
    keys = s3.enforce_authentication([User("trusted", [may_ask]), User("stranger", [may_ask])], [role])
    for name, external_id, refusal in (
        ("trusted", "secret", None),
        ("trusted", "wrong", "AccessDenied"),
        ("stranger", "secret", "AccessDenied"),
    ):
        asked = {"RoleArn": role.arn, "RoleSessionName": "test", "ExternalId": external_id}
        assert refusal_of(partial(s3.client("sts", keys[name]).assume_role, **asked)) == refusal


def test_the_buckets_are_gone_and_authentication_is_off_for_the_next(s3: SandboxS3) -> None:
    with SandboxS3(["another"]) as second:
        assert second.objects("another") == {}
        second.client().put_object(Bucket="another", Key="x")
    assert s3.objects("bucket") == {}
    s3.enforce_authentication()
    s3.close()
    with SandboxS3(["another"]) as third:
        assert third.objects("another") == {}


def refusal_of(call: Callable[[], object]) -> str | None:
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return None


def test_the_sandbox_gives_an_environment_that_works_and_says_nothing(
    tmp_path: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    with Sandbox(accounts=2, folder=tmp_path) as sandbox:
        environment = sandbox.environment
        assert Client(sandbox.api).get("/accounts").json()["data"]
        assert sandbox.s3.objects("sandbox-warehouse") == sandbox.s3.objects("sandbox-archive") == {}
        text = (tmp_path / "exports.yaml").read_text()
    assert environment.keys() == {
        "M3TER_API_KEY",
        "M3TER_API_SECRET",
        "M3TER_ORG_ID",
        "M3TER_BASE_URL",
        "M3TER_EXPORTS",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_DEFAULT_REGION",
    }
    assert environment["M3TER_EXPORTS"] == str(tmp_path / "exports.yaml")
    assert text.count(f"endpointUrl: {sandbox.s3.endpoint_url}") == 2
    assert "defaultDestinations: [warehouse, archive]" in text
    assert capfd.readouterr() == ("", "")


def test_only_the_sandbox_imports_flask_and_moto() -> None:
    code = (
        "import sys, m3ter_dagster.model.entities, m3ter_dagster.config; print({'flask', 'moto'} & sys.modules.keys())"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


@pytest.mark.parametrize(("command", "missing"), [("sandbox", "flask"), ("demo", "moto")])
def test_without_the_extra_the_command_says_what_to_install(command: str, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from m3ter_dagster.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"Error: The sandbox needs the package {missing}, which is not installed; "
        "install the extra with: pip install 'm3ter-dagster[sandbox]'\n"
    )


def test_a_command_in_the_sandbox_finds_schedules_to_look_at() -> None:
    code = (
        "from m3ter_dagster.config import load_exports; exports = load_exports(); "
        "print(*(one.code for one in exports.schedules), exports.notifications.webhook_url.get_secret_value())"
    )
    program = str(Path(sys.executable).with_name("m3ter-dagster"))
    command = [program, "sandbox", "--accounts", "1", "--", sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    (page,) = re.findall(
        r"^What a webhook is sent, and how to make an export fail: (\S+/)$", ended.stderr, re.MULTILINE
    )
    assert ended.stdout == f"finance usage {page}webhook\n"


def test_what_the_webhook_is_sent_is_printed_and_shown(
    no_proxy: None,  # noqa: ARG001
    capsys: pytest.CaptureFixture[str],
) -> None:
    with SandboxApi([]) as api, WebhookInbox(api) as inbox, urllib3.PoolManager() as pool:
        assert b"Nothing yet." in pool.request("GET", inbox.page).data
        Webhook(SecretStr(inbox.url)).post("m3ter export failed: schedule 'a & <b>'")
        assert b"m3ter export failed: schedule &#39;a &amp; &lt;b&gt;&#39;" in pool.request("GET", inbox.page).data
    assert "m3ter export failed: schedule 'a & <b>'" in capsys.readouterr().err


def test_on_the_page_of_the_webhook_exports_are_made_to_fail_and_to_succeed_again() -> None:
    with SandboxApi([]) as api, WebhookInbox(api) as inbox, urllib3.PoolManager() as pool:
        asks, expected = Client(api), [200, 403, 200]
        for status in expected:
            assert (asks.get("/commitments").status, asks.get("/accounts").status) == (status, 200)
            page = pool.request("POST", f"{inbox.page}fault").data
            assert (b"answer again" in page) == (status == 200)


def test_each_start_of_the_sandbox_has_a_home_of_its_own() -> None:
    """What its stores held is gone at the end, and so are Dagster's records of it."""
    program = str(Path(sys.executable).with_name("m3ter-dagster"))
    script = 'test -d "$DAGSTER_HOME" && echo "$DAGSTER_HOME"'
    command = [program, "sandbox", "--accounts", "0", "--", "sh", "-c", script]
    environment = {**os.environ, "DAGSTER_HOME": "/a/person's/own"}
    run = partial(subprocess.run, command, env=environment, capture_output=True, text=True, check=True)
    homes = [Path(run().stdout.strip()) for _ in range(2)]
    assert homes[0] != homes[1]
    assert [home.exists() for home in homes] == [False, False]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["sandbox", "--", "/nonexistent", "--option"], "there is no program '/nonexistent'; write one of your PATH"),
        (["sandbox", "--", "/"], "there is no program '/'; write one of your PATH, or its path."),
        (["sandbox", "--accounts", "-1"], "'--accounts': -1 is not in the range 0<=x<=100000."),
        (["demo", "--accounts", "100001"], "'--accounts': 100001 is not in the range 0<=x<=100000."),
    ],
)
def test_a_sandbox_that_cannot_be_is_refused_before_it_starts(arguments: list[str], says: str) -> None:
    ended = CliRunner().invoke(main, arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert says in ended.stderr
