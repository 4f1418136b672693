"""Exports of a schedule, one after the other, from an Organization that changes between them and while it is read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from werkzeug.exceptions import Forbidden

from m3ter_dagster.assets.cross_entity_checks import BILL_TOTAL, FOREIGN_KEYS
from m3ter_dagster.assets.entity_checks import COMPLETE
from m3ter_dagster.cli import main
from m3ter_dagster.dagster_internals import events_of_run
from m3ter_dagster.history.log import EXPORT_JOB, MANIFEST, SCHEDULE_TAG
from m3ter_dagster.runs import job_named
from m3ter_sandbox import SampleOrganization, SandboxApi, SandboxS3

NAMES = ("account", "account_plan", "bill", "bill_line_item", "contract", "pricing", "pricing_band")
SAMPLE = [(name, dict(record)) for name, record in SampleOrganization(7).records() if name in NAMES]
TYPES = ["ACCOUNTS", "ACCOUNT_PLANS", "BILLS", "BILL_LINE_ITEMS", "CONTRACTS", "PRICING", "PRICING_BANDS"]
Files = dict[str, list[dict[str, str]]]
"""The rows of each file of an export, by type."""


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory, where a run costs a third."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class House:
    """An API whose records change, a bucket, and the exports by schedules that include, omit and know nothing."""

    def __init__(self, api: SandboxApi, s3: SandboxS3, bucket: str, instance: dg.DagsterInstance) -> None:
        self.api = api
        self._s3 = s3
        self._bucket = bucket
        self._instance = instance
        self.run_id = ""

    def export(self, *names: str, schedule: str | None = "nightly") -> Files:
        with dg.execute_job(
            job_named(EXPORT_JOB),
            self._instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            asset_selection=[dg.AssetKey(name) for name in (*(names or NAMES), MANIFEST)],
            tags={SCHEDULE_TAG: schedule} if schedule else {},
        ) as result:
            assert result.success
            self.run_id = result.run_id
        files = {key: content for key, content in self.objects().items() if key.endswith(".csv") and self.run_id in key}
        return {key.split("type=")[1].split("/")[0]: rows(content) for key, content in files.items()}

    def objects(self) -> dict[str, bytes]:
        return dict(self._s3.objects(self._bucket))

    def forget(self, suffix: str) -> None:
        for key in self.objects():
            if key.endswith(suffix):
                self._s3.client().delete_object(Bucket=self._bucket, Key=key)

    @property
    def manifest(self) -> dict[str, Any]:
        """The resources of the last export's manifest, by type."""
        content = self.objects()[self._manifest_key]
        return {one["m3ter:type"]: one for one in json.loads(content)["resources"]}

    @property
    def _manifest_key(self) -> str:
        return next(key for key in self.objects() if key.endswith(f"{self.run_id}_manifest.json"))

    def verify(self) -> str:
        uri = f"s3://{self._bucket}/{self._manifest_key}"
        result = CliRunner().invoke(main, ["verify", uri, "--strict", "--destination", "warehouse"])
        assert result.exit_code == 0, result.output
        return result.output

    def check(self, entity: str, name: str) -> dg.AssetCheckEvaluation:
        events = events_of_run(self._instance, self.run_id, {dg.DagsterEventType.ASSET_CHECK_EVALUATION})
        found = [event.asset_check_evaluation_data for event, _ in events]
        return next(one for one in found if (one.asset_key.path[-1], one.check_name) == (entity, name))


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def deleted(found: list[dict[str, str]]) -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in found if row["deleted"] == "true"}


def first_of(entity: str, **fields: Any) -> dict[str, Any]:
    return next(one for name, one in SAMPLE if name == entity and fields.items() <= one.items())


@pytest.fixture
def house(
    s3: SandboxS3, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    bucket = f"deleted-{tmp_path.name.replace('_', '-')[-40:].strip('-')}"
    s3.client().create_bucket(Bucket=bucket)
    about = {"destinations": ["warehouse"], "scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z"}
    schedule = {"operationalDataTypes": TYPES, **about}
    exports = {
        "destinations": [{"code": "warehouse", "bucketName": bucket, "endpointUrl": s3.endpoint_url}],
        "schedules": [{"code": "nightly", **schedule}, {"code": "leaner", **schedule, "deletedRows": "OMIT"}],
    }
    (tmp_path / "exports.yaml").write_text(json.dumps(exports), encoding="utf-8")
    with SandboxApi(SAMPLE, requests_per_second=None) as api:
        environment = {**s3.environment, **api.environment, "M3TER_EXPORTS": str(tmp_path / "exports.yaml")}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield House(api, s3, bucket, instance)


def test_what_is_deleted_stands_in_the_next_files_as_it_was_last_exported(house: House) -> None:
    before = house.export()
    assert house.manifest["bill"]["m3ter:completeness"]["complete"] == "PROVEN"
    account = first_of("account")
    bill = first_of("bill", accountId=account["id"])
    items = [one for name, one in SAMPLE if name == "bill_line_item" and one["billId"] == bill["id"]]
    for entity, record in (("account", account), ("bill", bill), *(("bill_line_item", item) for item in items)):
        house.api.records.delete(entity, record["id"])
    after = house.export()
    was = {name: {row["id"]: row for row in found} for name, found in before.items()}
    gone = {"account": [account["id"]], "bill": [bill["id"]], "bill_line_item": [item["id"] for item in items]}
    for entity, ids in gone.items():
        assert deleted(after[entity]) == {one: {**was[entity][one], "deleted": "true"} for one in ids}
        assert [row["id"] for row in after[entity]].count(ids[0]) == 1
        found = house.manifest[entity]
        assert found["m3ter:rows"] == len(after[entity])
        assert found["m3ter:difference"]["deleted"] == len(ids)
        assert found["m3ter:difference"]["removed"] == 0
        numbers = {name: found["m3ter:completeness"][name] for name in ("complete", "deleted", "deletedRows", "read")}
        assert numbers == {
            "complete": "PROVEN",
            "deleted": len(ids),
            "deletedRows": len(ids),
            "read": len(after[entity]) - len(ids),
        }
    assert house.check("bill", BILL_TOTAL).passed
    assert house.check("bill_line_item", FOREIGN_KEYS).passed
    house.verify()
    assert house.export() == after
    assert house.manifest["bill"]["m3ter:completeness"]["deleted"] == 0


def test_where_deleted_rows_are_left_out_they_are_counted(house: House) -> None:
    house.export("contract", schedule="leaner")
    house.api.records.delete("contract", first_of("contract")["id"])
    after = house.export("contract", schedule="leaner")
    assert deleted(after["contract"]) == {}
    found = house.manifest["contract"]
    assert (found["m3ter:completeness"]["deleted"], found["m3ter:completeness"]["deletedRows"]) == (1, 0)
    assert found["m3ter:difference"]["removed"] == 1


def test_an_export_by_a_person_has_no_deleted_rows_and_knows_what_schedules_exported(house: House) -> None:
    house.export("contract")
    house.api.records.delete("contract", first_of("contract")["id"])
    found = house.export("contract", schedule=None)
    assert deleted(found["contract"]) == {}
    assert house.manifest["contract"]["m3ter:completeness"]["deleted"] == 1
    assert house.manifest["contract"]["m3ter:difference"].keys() == {"notCompared"}


def test_without_the_keys_of_the_previous_export_lists_are_read_twice(house: House) -> None:
    house.export("bill", "bill_line_item")
    house.forget("_keys.parquet")
    house.api.records.delete("bill_line_item", first_of("bill_line_item")["id"])
    after = house.export("bill", "bill_line_item")
    assert deleted(after["bill_line_item"]) == {}
    completeness = house.manifest["bill_line_item"]["m3ter:completeness"]
    assert (completeness["complete"], completeness["passes"]) == ("PROVEN", 2)
    assert completeness["why"].endswith("a consistent snapshot")


def test_last_values_that_are_not_to_be_had_are_a_warning(house: House) -> None:
    house.export("contract")
    house.forget("_contract.csv")
    house.api.records.delete("contract", first_of("contract")["id"])
    assert deleted(house.export("contract")["contract"]) == {}
    check = house.check("contract", COMPLETE)
    assert not check.passed
    assert "But the last cells of 1 missing rows are not known: " in (check.description or "")
    assert check.severity == dg.AssetCheckSeverity.WARN


def test_what_cannot_be_confirmed_is_delivered_and_not_proven(house: House) -> None:
    house.export("contract")
    gone = first_of("contract")["id"]
    house.api.records.delete("contract", gone)

    def before_answer(path: str, query: str) -> None:
        if path == f"/contracts/{gone}" or "ids=" in query:
            raise Forbidden("No single records.")

    house.api.before_answer = before_answer
    after = house.export("contract")
    assert gone not in {row["id"] for row in after["contract"]}
    check = house.check("contract", COMPLETE)
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert (check.description or "").startswith("Not proven: 1 records could not be confirmed: GET ")
    assert house.manifest["contract"]["m3ter:completeness"]["complete"] == "NOT_PROVEN"
    house.api.before_answer = None
    assert deleted(house.export("contract")["contract"]).keys() == {gone}
    assert house.check("contract", COMPLETE).passed
