"""Measurements from m3ter's export service to a bucket, through Dagster: raw, aggregated and day by day."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result
from dagster._core.definitions.reconstruct import ReconstructableJob

from m3ter_dagster.assets.manifest import export_manifest, usage_manifest
from m3ter_dagster.assets.operational import operational_assets
from m3ter_dagster.assets.usage import usage_asset_checks, usage_assets
from m3ter_dagster.assets.usage_config import RawConfig, UnusableConfig, selection_of
from m3ter_dagster.cli import main
from m3ter_dagster.config import UsageRawByDay, load_exports, load_settings
from m3ter_dagster.frames.formats import format_of
from m3ter_dagster.history.log import USAGE_MANIFEST, deliveries_of
from m3ter_dagster.resources import IO_MANAGER, export_resources
from m3ter_dagster.runs import job_named
from m3ter_sandbox import Sandbox
from m3ter_sandbox.usage import FUNCTIONS, SampleUsage, aggregated_rows, fields_of, raw_rows
from m3ter_sandbox.usage_exports import Behaviour

WAREHOUSE = "sandbox-warehouse"
RAW, AGGREGATED, BY_DAY = "usage_raw", "usage_aggregated", "usage_raw_by_day"
MARCH_31 = {"startDate": "2024-03-31", "endDate": "2024-04-01"}
FREQUENCIES = {
    "MONTH": ["month"],
    "WEEK": ["month", "week"],
    "DAY": ["month", "week", "day"],
    "HOUR": ["month", "week", "day", "hour"],
}
ASKED_BY_DAY = "usageRawByDay: {firstDay: 2020-01-01}\n"
SCHEDULES = """
schedules:
  - code: daily
    sourceType: USAGE
    timePeriod: YESTERDAY
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T00:00:00Z
  - code: weekly sums
    sourceType: USAGE
    timePeriod: PREVIOUS_WEEK
    aggregationFrequency: DAY
    aggregations: [{meterId: METER, fieldCode: gb, function: SUM}, {meterId: METER, fieldCode: gb, function: MAX}]
    groups: [{groupType: ACCOUNT}]
    destinations: [warehouse, archive]
    scheduleType: DAY
    period: 7
    dtCreated: 2024-06-01T00:00:00Z
  - code: idle
    sourceType: USAGE
    timePeriod: YESTERDAY
    meterIds: [IDLE]
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T00:00:00Z
  - code: bills
    operationalDataTypes: [BILLS]
    destinations: [warehouse]
    scheduleType: DAY
    period: 7
    dtCreated: 2024-06-01T00:00:00Z
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(6, requests_per_second=None) as sandbox:
        first, *_, idle = sandbox.usage.meters
        schedules = SCHEDULES.replace("METER", first).replace("IDLE", idle)
        sandbox.exports.write_text(sandbox.exports.read_text() + schedules + ASKED_BY_DAY)
        yield sandbox


@cache
def assets(names: Collection[str]) -> Sequence[dg.AssetsDefinition]:
    """Those of the names, and the checks and lineage of measurements."""
    operational = [one for one in operational_assets() if one.key.to_user_string() in names]
    by_day = UsageRawByDay(first_day=date(2020, 1, 1))
    return [
        *operational,
        *usage_assets(by_day=by_day),
        *usage_asset_checks(),
        export_manifest(),
        usage_manifest(),
    ]


@dataclass(frozen=True)
class House:
    sandbox: Sandbox
    instance: dg.DagsterInstance

    def export(
        self,
        *names: str,
        partition: str | None = None,
        more: Sequence[dg.AssetsDefinition] = (),
        written_as: Mapping[str, str] = {},
        **configs: Mapping[str, Any],
    ) -> Any:
        """The assets in one run that may fail; `configs` are theirs, `written_as` is the format of their files."""
        return dg.materialize(
            [*assets(names), *more],
            selection=[dg.AssetKey(name) for name in names],
            instance=self.instance,
            resources=export_resources(
                load_exports().model_copy(update=written_as), load_settings(), destinations=["warehouse"]
            ),
            run_config={"ops": {name: {"config": dict(config)} for name, config in configs.items()}},
            partition_key=partition,
            raise_on_error=False,
        )

    def files(self) -> dict[str, bytes]:
        return {
            key: content for key, content in self.sandbox.s3.objects(WAREHOUSE).items() if "/type=measurements/" in key
        }

    def rows_of(self, result: Any, name: str = RAW) -> list[dict[str, str]]:
        return rows_in(self.files()[key_of(result, name)])

    def truth(self, start: str, end: str, **asked: Any) -> list[dict[str, Any]]:
        return list(self.sandbox.usage.usage.measurements({"startDate": start, "endDate": end, **asked}))


@pytest.fixture
def house(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[House]:
    """Its instance is in memory, where a run costs a third; commands find the fixture `instance` on disk."""
    for name, value in sandbox.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("M3TER_REQUESTS_PER_SECOND", "50")
    monkeypatch.setenv("M3TER_JOB_PAUSE_SECONDS", "0.01")
    monkeypatch.chdir(tmp_path)
    sandbox.usage.behaviour = Behaviour()
    with dg.DagsterInstance.ephemeral() as instance:
        yield House(sandbox, instance)


def key_of(result: Any, name: str = RAW) -> str:
    (event,) = result.asset_materializations_for_node(name)
    return str(event.metadata["dagster/uri"].value).removeprefix(f"s3://{WAREHOUSE}/")


def rows_in(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))


def as_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[dict[str, Any]]:
    """As it should be read back from the file, in one order."""
    texts = [{name: row.get(name, "") for name in columns} for row in rows]
    return sorted(texts, key=lambda row: str([row[name] for name in columns[:4]]))


def numbers(rows: Sequence[Mapping[str, Any]], suffixes: Sequence[str]) -> list[dict[str, Any]]:
    """With the cells of number columns as numbers."""
    return [
        {name: float(cell) if cell != "" and name.endswith(tuple(suffixes)) else cell for name, cell in row.items()}
        for row in rows
    ]


def failures_of(result: Any) -> str:
    return "\n".join(
        event.step_failure_data.user_failure_data.description for event in result.get_step_failure_events()
    )


@pytest.mark.parametrize("is_gzip", [True, False])
def test_raw_measurements_equal_the_truth(house: House, is_gzip: bool) -> None:
    house.sandbox.usage.behaviour.is_gzip = is_gzip
    result = house.export(RAW, usage_raw=MARCH_31)
    assert result.success
    found, meters = house.rows_of(result), house.sandbox.usage.meters
    columns = list(found[0])
    assert columns[:6] == ["meter_id", "timestamp", "uid", "ets", "received_at", "account_id"]
    assert set(columns[6:]) == {
        f"{field['name']} (ORIGINAL)" for meter in meters.values() for field in fields_of(meter)
    }
    truth = list(raw_rows(iter(house.truth("2024-03-31T00:00Z", "2024-04-01T00:00Z")), meters))
    measures = ["stored (ORIGINAL)", "TB (ORIGINAL)"]
    assert len(truth) == 12 * 9
    assert numbers(as_text(found, columns), measures) == as_text(truth, columns)
    assert house.sandbox.usage.asked()[-1] == {
        "sourceType": "USAGE",
        "exportFileFormat": "CSV",
        "startDate": "2024-03-31T00:00:00.000Z",
        "endDate": "2024-04-01T00:00:00.000Z",
    }


def test_measurements_come_in_other_formats(house: House, tmp_path: Path) -> None:
    frames: dict[str, pl.DataFrame] = {}
    for name in ("CSV", "PARQUET", "JSONL"):
        result = house.export(RAW, USAGE_MANIFEST, written_as={"export_file_format": name}, usage_raw=MARCH_31)
        assert result.success
        assert key_of(result).endswith(f"_measurements.{name.lower()}")
        delivery, file = deliveries_of(house.instance, result.run_id)[RAW], tmp_path / "measurements"
        file.write_bytes(house.files()[key_of(result)])
        frames[name] = format_of(key_of(result)).read(file, delivery.table).sort("uid").collect()
        (manifest,) = (key for key in house.sandbox.s3.objects(WAREHOUSE) if f"{result.run_id}_manifest.json" in key)
        verified = CliRunner().invoke(main, ["verify", f"s3://{WAREHOUSE}/{manifest}", "--destination", "warehouse"])
        assert verified.exit_code == 0, verified.output
    assert len(frames["CSV"]) == 12 * 9
    assert all(one.equals(frames["CSV"]) for one in frames.values())


def test_the_materialisation_shows_the_columns_and_the_window(house: House) -> None:
    result = house.export(RAW, usage_raw=MARCH_31)
    (event,) = result.asset_materializations_for_node(RAW)
    columns = {one.name: one.type for one in event.metadata["dagster/column_schema"].value.columns}
    assert (columns["uid"], columns["Gigabytes, stored (ORIGINAL)"], columns["Acme Ltd (ORIGINAL)"]) == (
        "string",
        "number",
        "string",
    )
    assert event.metadata["window"].value == "2024-03-31 00:00 to 2024-04-01 00:00 UTC"
    checks = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert checks == {"schema": True, "uid": True, "window": True, "meters": True, "accounts": True, "columns": True}


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_aggregated_measurements_equal_the_truth(house: House, frequency: str) -> None:
    meters = house.sandbox.usage.meters
    id, account = list(meters)[1], house.truth("2024-03-31T00:00Z", "2024-04-01T00:00Z")[0]["account_id"]
    functions = ("SUM", "MEAN")
    aggregations = [
        {"meterId": id, "fieldCode": code, "function": function} for function in functions for code in ("gb", "tb")
    ]
    config = {
        "aggregationFrequency": frequency,
        "accountIds": [account],
        "aggregations": aggregations,
        "meterIds": [id],
    }
    result = house.export(AGGREGATED, usage_aggregated={**config, "startDate": "2024-03-25", "endDate": "2024-04-03"})
    assert result.success
    found = house.rows_of(result, AGGREGATED)
    measures = [f"{name} ({function})" for function in functions for name in ("Gigabytes, stored", "TB")]
    columns = ["meter_id", "timestamp", "year", "account_id", *measures, *FREQUENCIES[frequency]]
    assert list(found[0]) == columns
    asked = {"groups": [{"groupType": "ACCOUNT"}, {"groupType": "TIME", "frequency": frequency}]}
    rows = house.truth("2024-03-25T00:00Z", "2024-04-03T00:00Z", meterIds=[id], accountIds=[account])
    truth = aggregated_rows(iter(rows), {**asked, "aggregations": aggregations}, meters)
    assert numbers(as_text(found, columns), measures) == as_text(list(truth), columns)


def test_both_of_one_window_stand_side_by_side_and_their_sums_agree(house: House) -> None:
    result = house.export(RAW, AGGREGATED, usage_raw=MARCH_31, usage_aggregated=MARCH_31)
    assert result.success
    keys = [key_of(result, name) for name in (RAW, AGGREGATED)]
    assert [key.removeprefix("m3ter/orgId=").split("_", 1)[1] for key in keys] == [
        "measurements.csv",
        "measurements_aggregated.csv",
    ]
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "sums_equal_raw"]
    assert (check.passed, check.description) == (True, "Every sum is that of the raw measurements.")
    sums: dict[str, float] = defaultdict(float)
    for row in house.rows_of(result, AGGREGATED):
        sums[row["meter_id"]] += float(row["Gigabytes, stored (SUM)"])
    assert len(sums) == 9


def test_an_empty_window_is_a_header_and_m3ter_is_not_asked(house: House) -> None:
    before = len(house.sandbox.usage.asked())
    result = house.export(RAW, usage_raw={"startDate": "2024-03-31", "endDate": "2024-03-31"})
    assert result.success
    assert len(house.sandbox.usage.asked()) == before
    assert house.rows_of(result) == []
    assert house.files()[key_of(result)].startswith(b'"meter_id","timestamp","uid","ets","received_at","account_id",')


def test_without_config_it_is_yesterday(house: House) -> None:
    result = house.export(RAW)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    assert result.success
    assert {row["timestamp"][:10] for row in house.rows_of(result)} == {f"{today - timedelta(days=1):%Y-%m-%d}"}


def test_a_day_exported_again_leaves_the_others_as_they_are(house: House) -> None:
    days = ["2024-02-28", "2024-02-29", "2024-03-01"]
    assert all(house.export(BY_DAY, partition=day).success for day in days)
    files = house.files()
    keys = {day: next(key for key in files if f"/date={day}/hour=00/" in key) for day in days}
    for day, key in keys.items():
        assert key.endswith("/type=measurements/usage_raw_by_day_measurements.csv")
        assert {row["timestamp"][:10] for row in rows_in(files[key])} == {day}
        assert len(rows_in(files[key])) == 12 * 9
    times = {key: one["LastModified"] for key, one in listed(house).items()}
    assert house.export(BY_DAY, partition="2024-02-29").success
    assert house.files().keys() == files.keys()
    again = {key: one["LastModified"] for key, one in listed(house).items()}
    assert {key for key in again if again[key] != times[key]} <= {keys["2024-02-29"]}


def listed(house: House) -> dict[str, Any]:
    found = house.sandbox.s3.client().list_objects_v2(Bucket=WAREHOUSE)["Contents"]
    return {one["Key"]: one for one in found}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"meterIds": ["m-1"]}, "The Organization has no meter 'm-1'; correct the usage schedule"),
        ({"dimensionFilters": [{"meterId": "M", "fieldCode": "x", "values": ["a"]}]}, "no meter field 'x of M'"),
        ({"timePeriod": "NOW"}, "the config of the run has the timePeriod 'NOW'; known are"),
        ({"startDate": "soon"}, "the config of the run has no window: Invalid isoformat string: 'soon'."),
        ({"endDate": "9999-12-31T23:59-05:00"}, "the config of the run has no window: date value out of range."),
        ({"startDate": "2024-04-02", "endDate": "2024-04-01"}, "the second must not be before the first"),
        ({"startDate": "2999-01-01", "endDate": "2999-01-02"}, "does not accept this usage export: endDate must be"),
    ],
)
def test_a_wrong_config_is_named(house: House, config: dict[str, Any], words: str) -> None:
    id = next(iter(house.sandbox.usage.meters))
    text = json.dumps(config).replace('"M"', f'"{id}"')
    result = house.export(RAW, usage_raw=json.loads(text))
    assert not result.success
    assert words.replace(" M'", f" {id}'") in failures_of(result)


def test_the_words_about_a_wrong_config_end_once() -> None:
    with pytest.raises(UnusableConfig) as raised:
        selection_of(RawConfig(timePeriod="TODAYS"))
    assert (raised.value.description or "").endswith("Did you mean 'TODAY'?")


def test_a_uid_that_stands_twice_is_refused_and_the_check_is_red(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = house.sandbox.usage.usage

    def twice(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        rows = list(SampleUsage.measurements(usage, asked))
        yield from [*rows, rows[7]]

    monkeypatch.setattr(usage, "measurements", twice)
    before = house.files().keys()
    result = house.export(RAW, usage_raw=MARCH_31)
    assert "column uid" in failures_of(result)
    assert "must be unique" in failures_of(result)
    checks = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert checks == {"schema": True, "uid": False, "window": True}
    assert house.files().keys() == before


def test_unknown_meters_and_accounts_are_a_warning(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = house.sandbox.usage.usage

    def of_strangers(asked: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        for row in SampleUsage.measurements(usage, asked):
            yield {**row, "account_id": "stranger"}

    monkeypatch.setattr(usage, "measurements", of_strangers)
    result = house.export(RAW, usage_raw=MARCH_31)
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "accounts"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["unknown"].value == ["stranger"]


def test_a_field_that_no_meter_has_is_a_warning(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one that was renamed since: what it measured is in no column of the export."""
    id, meter = next(iter(house.sandbox.usage.meters.items()))
    first, *others = meter["dataFields"]
    renamed = {**meter, "dataFields": [{**first, "name": "Renamed"}, *others]}
    monkeypatch.setitem(house.sandbox.usage.meters, id, renamed)
    result = house.export(RAW, usage_raw=MARCH_31)
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "columns"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["unknown"].value == ["Renamed (ORIGINAL)"]


def test_a_failed_job_is_named_and_nothing_is_delivered(house: House) -> None:
    house.sandbox.usage.behaviour.fails = True
    before = house.files().keys()
    result = house.export(RAW, usage_raw=MARCH_31)
    assert not result.success
    assert "has failed after" in failures_of(result)
    assert house.files().keys() == before


def test_an_expired_address_is_asked_for_again(house: House) -> None:
    house.sandbox.usage.behaviour.expired_addresses = 2
    result = house.export(RAW, usage_raw=MARCH_31)
    assert result.success
    assert len(house.rows_of(result)) == 12 * 9


ALWAYS = 1000


@pytest.mark.parametrize("is_gzip", [True, False])
@pytest.mark.parametrize(("empty_files", "jobs"), [(1, 1), (2, 2)])
def test_a_file_that_came_empty_is_fetched_again(house: House, empty_files: int, jobs: int, is_gzip: bool) -> None:
    """From a new address, then of a new job."""
    house.sandbox.usage.behaviour = Behaviour(empty_files=empty_files, is_gzip=is_gzip)
    before = len(house.sandbox.usage.asked())
    result = house.export(RAW, usage_raw=MARCH_31)
    assert result.success
    assert len(house.rows_of(result)) == 12 * 9
    assert len(house.sandbox.usage.asked()) == before + jobs


@pytest.mark.parametrize("name", [RAW, AGGREGATED])
def test_a_file_that_stays_empty_is_named_and_nothing_is_delivered(house: House, name: str) -> None:
    house.sandbox.usage.behaviour.empty_files = ALWAYS
    before = house.sandbox.s3.objects(WAREHOUSE).keys()
    result = house.export(name, "usage_manifest", **{name: MARCH_31})
    assert not result.success
    assert "succeeded with an empty file, without even a header" in failures_of(result)
    assert "although m3ter's usage query finds measurements for the same window" in failures_of(result)
    assert house.sandbox.s3.objects(WAREHOUSE).keys() == before


@pytest.mark.parametrize("empty_files", [0, ALWAYS])
@pytest.mark.parametrize("name", [RAW, AGGREGATED])
def test_an_empty_file_of_a_window_without_measurements_is_a_header(house: House, name: str, empty_files: int) -> None:
    house.sandbox.usage.behaviour.empty_files = empty_files
    before, idle = len(house.sandbox.usage.asked()), list(house.sandbox.usage.meters)[-1]
    result = house.export(name, **{name: {**MARCH_31, "meterIds": [idle]}})
    assert result.success
    assert house.files()[key_of(result, name)].startswith(b'"meter_id","timestamp",')
    assert house.rows_of(result, name) == []
    assert len(house.sandbox.usage.asked()) == before + 1


BOTH_KINDS = ("product", "export_manifest", RAW, "usage_manifest", BY_DAY)


def manifests_of(house: House, export_id: str) -> dict[str, list[str]]:
    """What each manifest of the export lists, by its file's name."""
    objects = house.sandbox.s3.objects(WAREHOUSE).items()
    found = {
        key.rsplit(f"/{export_id}_", 1)[1]: json.loads(body) for key, body in objects if is_manifest(key, export_id)
    }
    return {name: [one["m3ter:type"] for one in body["resources"]] for name, body in found.items()}


def is_manifest(key: str, export_id: str) -> bool:
    return f"/{export_id}_" in key and key.endswith("manifest.json")


def test_one_run_of_everything_has_a_manifest_of_entities_and_one_of_measurements(house: House) -> None:
    result = house.export(*BOTH_KINDS, partition="2024-02-29")
    assert result.success
    listed = {"manifest.json": ["product"], "usage_manifest.json": [RAW]}
    assert manifests_of(house, result.run_id) == listed


def test_measurements_that_fail_leave_the_entities_their_manifest(house: House) -> None:
    house.sandbox.usage.behaviour.fails = True
    result = house.export(*BOTH_KINDS, partition="2024-02-29")
    assert not result.success
    assert manifests_of(house, result.run_id) == {"manifest.json": ["product"]}


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments], env=environment, catch_exceptions=False)


@pytest.mark.usefixtures("instance")
def test_a_usage_schedule_runs_from_the_terminal(house: House) -> None:
    before = house.sandbox.s3.objects(WAREHOUSE).keys()
    found = run("--schedule", "weekly sums", "--from", "2024-03-31", "--to", "2024-04-02T00:00:00Z")
    assert found.exit_code == 0, found.output
    new = {key: content for key, content in house.sandbox.s3.objects(WAREHOUSE).items() if key not in before}
    (file,) = (
        content for key, content in new.items() if "/type=measurements/" in key and key.endswith("_measurements.csv")
    )
    assert {row["timestamp"][:10] for row in rows_in(file)} == {"2024-03-31", "2024-04-01"}
    (content,) = (content for key, content in new.items() if key.endswith("_manifest.json"))
    (resource,) = json.loads(content)["resources"]
    assert [one["name"] for one in resource["schema"]["fields"]] == list(rows_in(file)[0])
    assert resource["m3ter:rows"] == len(rows_in(file))
    manifest = next(key for key in new if key.endswith("_manifest.json"))
    arguments = ["verify", f"s3://{WAREHOUSE}/{manifest}", "--endpoint-url", house.sandbox.s3.endpoint_url, "--strict"]
    verified = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert verified.exit_code == 0, verified.output
    assert resource["m3ter:reading"]["window"] == ["2024-03-31T00:00:00+00:00", "2024-04-02T00:00:00+00:00"]


@pytest.mark.usefixtures("instance")
def test_an_empty_file_from_the_terminal(house: House) -> None:
    """Exit code 1 and nothing delivered where there are measurements, or else 0 and a header."""
    house.sandbox.usage.behaviour.empty_files = ALWAYS
    before = house.sandbox.s3.objects(WAREHOUSE).keys()
    failed = run("--schedule", "daily", "--from", "2024-03-28", "--to", "2024-03-29")
    assert failed.exit_code == 1
    assert "succeeded with an empty file, without even a header (downloads: 4), although" in failed.output
    assert house.sandbox.s3.objects(WAREHOUSE).keys() == before
    empty = run("--schedule", "idle", "--from", "2024-03-28", "--to", "2024-03-29")
    assert empty.exit_code == 0, empty.output
    new = house.sandbox.s3.objects(WAREHOUSE)
    (file,) = (new[key] for key in new.keys() - before if key.endswith("_measurements.csv"))
    assert file.startswith(b'"meter_id","timestamp",')
    assert rows_in(file) == []


@pytest.mark.usefixtures("instance")
def test_a_usage_export_that_failed_is_completed(house: House) -> None:
    house.sandbox.usage.behaviour.fails = True
    window = ["--from", "2024-03-30", "--to", "2024-03-31"]
    failed = run("--schedule", "daily", *window)
    assert failed.exit_code == 1
    assert "m3ter's export job" in failed.output
    house.sandbox.usage.behaviour.fails = False
    before = house.files().keys()
    (id,) = re.findall(r"`m3ter-dagster export --resume (\S+)` completes this export", failed.output)
    completed = run("--resume", id)
    assert completed.exit_code == 0, completed.output
    (key,) = house.files().keys() - before
    assert re.search(rf"/{id}-[0-9a-f-]{{27}}_measurements\.csv$", key)
    assert {row["timestamp"][:10] for row in rows_in(house.files()[key])} == {"2024-03-30"}


def forget_definitions() -> None:
    """As another process would load them."""
    ReconstructableJob.get_repository_definition.cache_clear()
    ReconstructableJob.get_definition.cache_clear()


def test_a_day_that_failed_is_completed(house: House, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """As the button Materialize launches it, with no manifest."""
    house.sandbox.usage.behaviour.fails = True
    job, day = job_named("__ASSET_JOB"), {"dagster/partition": "2023-12-31"}
    with dg.execute_job(job, instance, asset_selection=[dg.AssetKey(BY_DAY)], tags=day) as failed:
        assert not failed.success
    house.sandbox.usage.behaviour.fails = False
    without = tmp_path / "exports.yaml"
    without.write_text(house.sandbox.exports.read_text().replace(ASKED_BY_DAY, ""))
    forget_definitions()
    refused = run("--resume", failed.run_id, M3TER_EXPORTS=str(without))
    forget_definitions()
    assert refused.exit_code == 2
    assert "(usage_raw_by_day); usage_raw_by_day needs usageRawByDay there." in refused.stderr
    completed = run("--resume", failed.run_id)
    assert completed.exit_code == 0, completed.output
    (key,) = (key for key in house.files() if "/date=2023-12-31/hour=00/" in key)
    assert {row["timestamp"][:10] for row in rows_in(house.files()[key])} == {"2023-12-31"}


@pytest.mark.usefixtures("house", "instance")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "2024-03-31"], "--from and --to need a usage schedule; name it with --schedule."),
        (["--schedule", "bills", "--to", "2024-03-31"], "schedule 'bills' exports operational data."),
        (["--schedule", "daily", "--to", "now"], "--to: 'now' is no time; write one such as 2024-06-01"),
        (["--schedule", "daily", "--from", "2024-03-31", "--to", "2024-03-30"], "the earlier first."),
        (["--schedule", "daily", "--to", "9999-12-31T23:59-05:00"], "--to: '9999-12-31T23:59-05:00' is no time; write"),
        (["--schedule", "daily", "--from", "0001-01-01T00:00+05:00"], "--from: '0001-01-01T00:00+05:00' is no time;"),
        (["--schedule", "daily", "--to", "2024-03-30"], "and end at 2024-03-30 00:00:00+00:00; give"),
    ],
)
def test_a_wrong_window_on_the_command_line(arguments: list[str], words: str) -> None:
    found = run(*arguments)
    assert found.exit_code == 2
    assert words in found.stderr


def test_the_functions_of_the_sample_are_those_of_the_api() -> None:
    assert set(FUNCTIONS) == {"SUM", "MIN", "MAX", "COUNT", "LATEST", "MEAN", "UNIQUE"}


def read_downstream(house: House, name: str, **options: Any) -> pl.DataFrame | str:
    """What an asset of a user's own gets that depends on the asset of that name, or why it gets nothing."""
    seen: list[pl.DataFrame] = []

    @dg.asset(ins={"usage": dg.AssetIn(name, input_manager_key=IO_MANAGER, **options)})
    def report(usage: pl.LazyFrame) -> None:
        seen.append(usage.collect())

    result = house.export("report", more=[report])
    return seen[0] if result.success else str(result.get_step_failure_events()[0].step_failure_data.error)


def test_an_asset_of_the_users_own_reads_measurements_as_a_typed_frame(house: House) -> None:
    assert house.export(RAW, usage_raw=MARCH_31).success
    frame = read_downstream(house, RAW)
    assert isinstance(frame, pl.DataFrame)
    assert len(frame) == len(house.truth("2024-03-31T00:00:00Z", "2024-04-01T00:00:00Z"))
    assert {dtype for name, dtype in frame.schema.items() if not name.endswith(")")} == {pl.String}
    assert pl.Float64 in frame.schema.dtypes()


def test_an_asset_of_the_users_own_reads_the_days_that_are_there(house: House) -> None:
    days = ["2024-02-28", "2024-03-01"]
    assert all(house.export(BY_DAY, partition=day).success for day in days)
    frame = read_downstream(house, BY_DAY, metadata={"allow_missing_partitions": True})
    assert isinstance(frame, pl.DataFrame)
    assert set(frame["timestamp"].str.head(10)) == set(days)
    assert "usage_raw_by_day of 2020-01-01 was never delivered" in str(read_downstream(house, BY_DAY))
