"""What customers' rows hold stays in the files: it reaches neither Dagster's records nor a notification."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from receiver import Receiver

from m3ter_dagster.alarms import alarm_sensors
from m3ter_dagster.assets.manifest import export_manifest
from m3ter_dagster.assets.operational import operational_assets
from m3ter_dagster.config import Exports, Notifications, S3Destination, load_exports, load_settings
from m3ter_dagster.frames.schema import shown, shown_json
from m3ter_dagster.history.log import MANIFEST
from m3ter_dagster.model.entities import entities
from m3ter_dagster.resources import export_resources
from m3ter_dagster.usage.columns import aggregated_table, raw_table, table_in
from m3ter_dagster.usage.meters import Meter, MeterField
from m3ter_sandbox import SandboxApi, SandboxS3

PERSONAL = """
account.name account.address account.emailAddress account.purchaseOrderNumber account.customFields
account_plan.customFields
aggregation.segments
balance.name balance.description balance.balanceDrawDownDescription balance.overageDescription
balance_charge_schedule.customFields balance_charge_schedule.name balance_charge_schedule.chargeDescription
balance_transaction.description
balance_transaction_schedule.customFields balance_transaction_schedule.name
balance_transaction_schedule.transactionDescription
bill.purchaseOrderNumber bill.externalInvoiceReference
bill_line_item.segment bill_line_item.description
charge.name charge.description charge.notes
commitment.commitmentFeeDescription commitment.commitmentUsageDescription commitment.overageDescription
compound_aggregation.customFields
contract.name contract.description contract.purchaseOrderNumber contract.customFields
counter_adjustment.purchaseOrderNumber counter_pricing.description
meter.customFields
plan.name plan.minimumSpendDescription plan.standingChargeDescription plan.customFields
plan_group.name plan_group.standingChargeDescription plan_group.minimumSpendDescription plan_group.customFields
plan_template.standingChargeDescription plan_template.minimumSpendDescription plan_template.customFields
pricing.description pricing.minimumSpendDescription pricing.segment
product.customFields
"""
WORDS = ("Quux", "Zanzibar", "zebedee", "PO-Xyzzy", "Plugh")
"""In the name, the address, the e-mail, the purchase order number and the custom fields of every account."""
BUCKET = "personal-data"


def account(number: int, **spoiled: Any) -> dict[str, Any]:
    return {
        "id": f"account-{number}",
        "version": 1,
        "name": f"Quux {number}",
        "code": f"code-{number}",
        "address": {"addressLine1": f"{number}, Zanzibar Lane"},
        "emailAddress": f"zebedee{number}@example.com",
        "purchaseOrderNumber": f"PO-Xyzzy {number}",
        "customFields": {"nickname": f"Plugh {number}"},
        "currency": "EUR",
        **spoiled,
    }


SPOILED = [
    ({"address": "7, Zanzibar Lane"}, "address", "text of 16 characters", "must be a JSON object"),
    ({"name": {"first": "Quux"}}, "name", "a JSON object of 16 characters", "must be text"),
    ({"emailAddress": ["zebedee@example.com"]}, "emailAddress", "a JSON array of 23 characters", "must be text"),
    ({"version": 2.5}, "version", "2.5", "must be a whole number"),
    ({"currency": {"of": "Quux"}}, "currency", "a JSON object of 13 characters", "must be text"),
]
"""What is wrong with one account, and what the report says of it."""

Run = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture(scope="module")
def s3() -> Iterator[SandboxS3]:
    with SandboxS3() as s3:
        s3.client().create_bucket(Bucket=BUCKET)
        yield s3


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance whose records, databases and logs of processes, are files of the test's own."""
    folder = tmp_path / "home"
    folder.mkdir()
    settings = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(folder), overrides=settings) as instance:
        yield instance


@pytest.fixture
def export(s3: SandboxS3, home: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Exports these accounts with these settings of exports.yaml."""

    def run(accounts: list[dict[str, Any]], **settings: Any) -> dg.ExecuteInProcessResult:
        exports = tmp_path / "exports.yaml"
        warehouse = {"code": "warehouse", "bucketName": BUCKET, "endpointUrl": s3.endpoint_url}
        exports.write_text(json.dumps({"destinations": [warehouse], **settings}), encoding="utf-8")
        with SandboxApi([("account", one) for one in accounts], requests_per_second=None) as api:
            for name in ("http_proxy", "HTTP_PROXY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
                monkeypatch.delenv(name, raising=False)
            for name, value in {**s3.environment, **api.environment, "M3TER_EXPORTS": str(exports)}.items():
                monkeypatch.setenv(name, value)
            return dg.materialize(
                [*operational_assets(), export_manifest()],
                selection=["account", MANIFEST],
                instance=home,
                resources=export_resources(load_exports(), load_settings(), destinations=["warehouse"]),
                raise_on_error=False,
            )

    return run


def records_of(home: dg.DagsterInstance) -> bytes:
    """Every byte of every file under DAGSTER_HOME, and what a database has not written into its file yet."""
    files = [path for path in Path(home.root_directory).rglob("*") if path.is_file()]
    assert {".db"} <= {path.suffix for path in files}
    return b"\n".join(path.read_bytes() for path in files)


def words_in(content: bytes) -> list[str]:
    return [word for word in WORDS if word.casefold().encode() in content.lower()]


def notification_of(home: dg.DagsterInstance, receiver: Receiver, export: Callable[[], object]) -> str:
    exports = Exports(
        destinations=(S3Destination(code="warehouse", bucket_name="acme"),),
        notifications=Notifications.model_validate({"webhook_url": receiver.url, "on_success": True}),
    )
    sensors = alarm_sensors(exports, webhook=receiver.webhook())
    cursors: dict[str, str | None] = dict.fromkeys(one.name for one in sensors)
    for done in (lambda: None, export):
        done()
        for sensor in sensors:
            with dg.build_sensor_context(instance=home, cursor=cursors[sensor.name]) as context:
                cursors[sensor.name] = sensor.evaluate_tick(context).cursor
    (text,) = receiver.texts
    return text


@pytest.mark.parametrize(("spoiled", "column", "value", "rule"), SPOILED)
def test_a_breach_leaves_nothing_of_any_account_in_dagster_or_the_webhook(
    home: dg.DagsterInstance, export: Run, spoiled: dict[str, Any], column: str, value: str, rule: str
) -> None:
    results: list[dg.ExecuteInProcessResult] = []
    accounts = [account(1), account(2, **spoiled), account(3)]
    with Receiver() as receiver:
        text = notification_of(home, receiver, lambda: results.append(export(accounts)))
    (failure,) = results[0].get_step_failure_events()
    assert f"row account-2, column {column}, value {value}: {rule}" in str(failure.event_specific_data)
    assert f"row account-2, column {column}: {rule}" in text
    assert "value" not in text
    assert words_in(text.encode()) == []
    if column != "version":
        assert value not in text
    records = records_of(home)
    assert b"account-2" in records  # what is looked for would be found
    assert words_in(records) == []


def test_a_delivery_leaves_no_row_in_dagster(home: dg.DagsterInstance, export: Run) -> None:
    with Receiver() as receiver:
        text = notification_of(home, receiver, lambda: export([account(1), account(2)]))
    assert "m3ter export delivered" in text
    assert words_in(text.encode()) == []
    records = records_of(home)
    assert words_in(records) == []
    assert b"account-1" not in records
    assert b"code-1" not in records


def test_previews_show_what_is_not_personal(home: dg.DagsterInstance, export: Run) -> None:
    (delivered,) = export([account(1), account(2)], previews=True).asset_materializations_for_node("account")
    preview = delivered.metadata["preview"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert sorted((row.data["id"], row.data["code"], row.data["currency"]) for row in preview.records) == [
        ("account-1", "code-1", "EUR"),
        ("account-2", "code-2", "EUR"),
    ]
    personal = {column.name for column in entities()["account"].columns if column.is_personal}
    assert not personal & set(preview.records[0].data)
    assert not personal & {column.name for column in preview.schema.columns}
    records = records_of(home)
    assert b"code-1" in records
    assert words_in(records) == []


def test_these_fields_are_personal() -> None:
    found = [f"{e.name}.{column.name}" for e in entities().values() for column in e.columns if column.is_personal]
    assert sorted(found) == sorted(PERSONAL.split())


def test_what_customers_send_as_text_is_personal_in_usage_tables() -> None:
    meter = Meter("m1", (MeterField("gb", "GB", "MEASURE"), MeterField("who", "Who", "WHO")))
    raw = raw_table("usage_raw", [meter])
    grouped = aggregated_table("a", frequency="HOUR", aggregated=[("GB", "SUM")], dimensions=["Who"], has_accounts=True)
    for table, personal in ((raw, ["uid", "Who (ORIGINAL)"]), (grouped, ["Who (ORIGINAL)"])):
        assert [column.name for column in table.columns if column.is_personal] == personal
        assert table_in(table.name, json.loads(table.table_schema)) == table
        fields = json.loads(table.table_schema)["fields"]
        assert [field["name"] for field in fields if field.get("m3ter:personal")] == personal


@pytest.mark.parametrize(
    ("sent", "of_name", "of_currency", "of_nobody_knows"),
    [
        ('"Quux"', "text of 4 characters", '"Quux"', "text of 4 characters"),
        ("12.5", "a number of 4 characters", "12.5", "a number of 4 characters"),
        ("true", "a boolean of 4 characters", "true", "a boolean of 4 characters"),
        ('["Quux"]', "a JSON array of 8 characters", "a JSON array of 8 characters", "a JSON array of 8 characters"),
        ("null", "null", "null", "null"),
        ("[]", "[]", "[]", "[]"),
    ],
)
def test_how_a_value_is_shown(sent: str, of_name: str, of_currency: str, of_nobody_knows: str) -> None:
    of = entities()["account"].column
    assert [shown_json(sent, one) for one in (of("name"), of("currency"), None)] == [
        of_name,
        of_currency,
        of_nobody_knows,
    ]
    assert shown("Quux", of("name")) == "text of 4 characters"
    assert shown(None, of("name")) == "nothing"
