"""From an API page to a bucket, through Dagster: what is delivered, what is not, and what the terminal says."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result
from dagster._core.definitions.reconstruct import ReconstructableJob
from processes import plain_environment

from m3ter_dagster.assets.manifest import export_manifest
from m3ter_dagster.assets.operational import operational_assets
from m3ter_dagster.cli import main
from m3ter_dagster.config import Unloadable, load_exports, load_settings
from m3ter_dagster.config.usage import RAW_BY_DAY, USAGE_ASSETS
from m3ter_dagster.definitions import definitions
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.history.delivered_frames import NotExported
from m3ter_dagster.history.log import EXPORT_JOB, MANIFEST, USAGE_MANIFEST, deliveries_of
from m3ter_dagster.history.record import delivery_in
from m3ter_dagster.model.entities import entities
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.resources import IO_MANAGER, export_resources
from m3ter_sandbox import SampleOrganization, Sandbox, SandboxApi, SandboxS3

NOON = datetime(2024, 6, 6, 12, tzinfo=UTC)
ORGANIZATION = SampleOrganization(6)
WAREHOUSE, ARCHIVE = "sandbox-warehouse", "sandbox-archive"
BOTH = ["warehouse", "archive"]
SCHEMA = "schema"
PROGRAM = Path(sys.executable).parent / "m3ter-dagster"

Records = Iterable[tuple[str, dict[str, Any]]]
Use = Callable[..., SandboxApi]
NewInstance = Callable[[Path], AbstractContextManager[dg.DagsterInstance]]


@dataclass(frozen=True)
class House:
    """Buckets of the test's own, which the environment's exports.yaml names, and APIs that can take turns."""

    s3: SandboxS3
    warehouse: str
    archive: str
    use: Use

    def objects(self) -> dict[str, bytes]:
        """What the warehouse holds, by type."""
        found = {type_of(key): content for key, content in self.s3.objects(self.warehouse).items()}
        return {name: content for name, content in found.items() if name in entities()}


@pytest.fixture
def house(s3: SandboxS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    warehouse, archive = (f"{name}-{tmp_path.name.replace('_', '-')[-40:].strip('-')}" for name in BOTH)
    for bucket in (warehouse, archive):
        s3.client().create_bucket(Bucket=bucket)
    exports = tmp_path / "exports.yaml"
    exports.write_text(exports_yaml(s3.endpoint_url, warehouse=warehouse, archive=archive), encoding="utf-8")
    set_environment(monkeypatch, {**s3.environment, "M3TER_EXPORTS": str(exports)})
    apis: list[SandboxApi] = []

    def use(records: Records) -> SandboxApi:
        """From now on the environment names an API with these records."""
        apis.append(SandboxApi(records, requests_per_second=None))
        apis[-1].start()
        set_environment(monkeypatch, apis[-1].environment)
        return apis[-1]

    yield House(s3, warehouse, archive, use)
    for api in apis:
        api.close()


def exports_yaml(endpoint: str, *, warehouse: str, archive: str) -> str:
    destinations = [
        {"code": "warehouse", "bucketName": warehouse, "prefix": "m3ter", "endpointUrl": endpoint},
        {"code": "archive", "bucketName": archive, "partitionOrder": "TYPE_FIRST", "endpointUrl": endpoint},
    ]
    return json.dumps({"destinations": destinations, "defaultDestinations": BOTH})


def set_environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("M3TER_REQUESTS_PER_SECOND", "50")


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory, where a run costs a third."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def whole_export() -> dg.JobDefinition:
    return definitions().resolve_job_def(EXPORT_JOB)


def type_of(key: str) -> str:
    found = re.search(r"/?type=(\w+)/", key)
    return found[1] if found else ""


def resources(destinations: Sequence[str] = BOTH) -> dict[str, Any]:
    return dict(export_resources(load_exports(), load_settings(), destinations=destinations))


@cache
def operational() -> Sequence[dg.AssetsDefinition]:
    return operational_assets()


def materialize(
    instance: dg.DagsterInstance, *names: str, more: Sequence[Any] = (), destinations: Sequence[str] = BOTH
) -> dg.ExecuteInProcessResult:
    """The assets of the names among the operational ones and `more`, in one run that may fail."""
    chosen = [one for one in operational() if more or not names or one.key.to_user_string() in names]
    return dg.materialize(
        [*chosen, *more],
        selection=list(names) or None,
        instance=instance,
        resources=resources(destinations),
        raise_on_error=False,
    )


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""), strict=True))


def expected_rows(records: Records) -> Counter[str]:
    counts: Counter[str] = Counter(dict.fromkeys(entities(), 0))
    for name, record in records:
        counts[name] += 1
        if name == "pricing":
            counts["pricing_band"] += len(record["pricingBands"]) + len(record["overagePricingBands"])
    return counts


def spoiled(entity: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The sample, with a name in one of the entity's records that is no text."""
    is_done = False
    for name, record in ORGANIZATION.records():
        yield name, (record | {"name": 5} if name == entity and not is_done else record)
        is_done |= name == entity


def schema_checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Whether each entity's cells have passed."""
    shown = [one for one in result.get_asset_check_evaluations() if one.check_name == SCHEMA]
    return {one.asset_key.to_user_string(): one.passed for one in shown}


def failure_of(result: dg.ExecuteInProcessResult, step: str) -> str:
    (event,) = [one for one in result.all_events if one.is_step_failure and one.step_key == step]
    assert event.step_failure_data.user_failure_data is not None
    return event.step_failure_data.user_failure_data.description or ""


def test_all_entities_are_delivered_whole_to_every_destination(house: House, instance: dg.DagsterInstance) -> None:
    house.use(ORGANIZATION.records())
    result = materialize(instance)
    assert result.success
    warehouse, archive = house.s3.objects(house.warehouse), house.s3.objects(house.archive)
    run, when = result.run_id, r"date=\d{4}-\d\d-\d\d/hour=\d\d"
    org = "orgId=5a7d0c0e-0000-4000-a000-000000000001"
    for name in entities():
        (in_warehouse,) = [
            key for key in warehouse if re.fullmatch(f"m3ter/{org}/{when}/type={name}/{run}_{name}.csv", key)
        ]
        (in_archive,) = [key for key in archive if re.fullmatch(f"{org}/type={name}/{when}/{run}_{name}.csv", key)]
        assert warehouse[in_warehouse] == archive[in_archive]
    assert len(warehouse) == len(archive) == 2 * len(entities())  # each with its keys
    rows = {name: rows_of(content) for name, content in house.objects().items()}
    assert Counter({name: len(found) for name, found in rows.items()}) == expected_rows(ORGANIZATION.records())
    assert {name: list(found[0]) for name, found in rows.items()} == {
        name: [column.name for column in entity.columns] for name, entity in entities().items()
    }
    names = {record["id"]: record["name"] for name, record in ORGANIZATION.records() if name == "account"}
    assert {row["id"]: row["name"] for row in rows["account"]} == names
    assert schema_checks(result) == dict.fromkeys(entities(), True)


def test_a_materialisation_says_what_was_delivered(house: House, instance: dg.DagsterInstance) -> None:
    house.use([*ORGANIZATION.records(), ("meter", {"id": "new", "colour": "red"})])
    result = materialize(instance, "meter")
    (materialization,) = result.asset_materializations_for_node("meter")
    metadata = {name: value.value for name, value in materialization.metadata.items()}
    content = house.objects()["meter"]
    assert metadata["dagster/row_count"] == len(rows_of(content))
    assert metadata["bytes"] == len(content)
    assert metadata["API fields not in the schema"] == {"colour": 1}
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "schema"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.description == "Not exported, since the schema does not have it: colour."
    assert metadata["rows dropped as older copies"] == 0
    assert metadata["requests"] == 1
    lineage = cast(dg.TableColumnLineage, metadata["dagster/column_lineage"]).deps_by_column
    assert lineage["code"] == [dg.TableColumnDep(dg.AssetKey(["m3ter", "meter"]), "code")]
    assert [name for name in frame_schema(entities()["meter"]) if name not in lineage] == ["deleted"]
    delivery = delivery_in(materialization)
    assert delivery
    assert [one.destination for one in delivery.objects] == BOTH
    assert (delivery.rows, delivery.objects[0].bytes) == (len(rows_of(content)), len(content))
    assert str(metadata["dagster/uri"]).startswith(f"s3://{house.warehouse}/m3ter/orgId=")


def test_the_next_export_is_compared_with_the_last_whole_one(house: House, instance: dg.DagsterInstance) -> None:
    house.use([("meter", {"id": "a"}), ("meter", {"id": "b"})])
    first = materialize(instance, "meter", MANIFEST, more=[export_manifest()])
    house.use([("meter", {"id": "b", "name": "new"}), ("meter", {"id": "c"}), ("meter", {"id": "d"})])
    second = materialize(instance, "meter", "product", MANIFEST, more=[export_manifest()])
    assert second.success
    compared = {name: one.difference for name, one in deliveries_of(instance, second.run_id).items()}
    assert compared == {
        "meter": {"previous": first.run_id, "added": 2, "removed": 1, "changed": 1, "deleted": 0},
        "product": {"notCompared": "there is no previous export of this entity by the same schedule"},
    }


@pytest.mark.parametrize(
    "unloadable", [None, Unloadable(("no YAML.",), since=NOON, last_good=NOON)], ids=["as it is", "broken"]
)
def test_an_export_by_the_last_good_configuration_has_a_red_check(
    house: House, instance: dg.DagsterInstance, unloadable: Unloadable | None
) -> None:
    house.use([])
    result = materialize(instance, "meter", MANIFEST, more=[export_manifest(unloadable=unloadable)])
    assert result.success
    (check,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "configuration"]
    assert (check.asset_key.to_user_string(), check.passed) == (MANIFEST, unloadable is None)
    assert check.description == str(unloadable or "It can be loaded.")


def test_a_breached_entity_has_no_object_and_a_red_check_and_the_others_are_delivered(
    house: House, instance: dg.DagsterInstance
) -> None:
    house.use(spoiled("product"))
    result = materialize(instance, "account", "account_plan", "meter", "product")
    assert not result.success
    assert set(house.objects()) == {"account", "account_plan", "meter"}
    assert [name for name, passed in schema_checks(result).items() if not passed] == ["product"]
    evaluation = next(
        one for one in result.get_asset_check_evaluations() if one.check_name == SCHEMA and not one.passed
    )
    report = evaluation.metadata["report"]
    assert isinstance(report, dg.TableMetadataValue)
    bad = next(record["id"] for entity, record in ORGANIZATION.records() if entity == "product")
    assert [record.data for record in report.records] == [
        {"row id": bad, "column": "name", "value": "5", "rule": "must be text"}
    ]
    assert failure_of(result, "product").startswith(
        f"product is not exported because it breaks schemas/product.json: row {bad}, column name, value 5: must be "
    )


def test_a_missing_id_turns_the_check_of_the_schema_red(house: House, instance: dg.DagsterInstance) -> None:
    house.use([("meter", {"id": "", "name": "x"})])
    result = materialize(instance, "meter")
    assert schema_checks(result) == {"meter": False}
    assert house.objects() == {}


def test_a_missing_id_behind_a_hundred_other_breaches_is_named(house: House, instance: dg.DagsterInstance) -> None:
    house.use([*(("meter", {"id": f"m{number}", "name": 5}) for number in range(101)), ("meter", {"id": ""})])
    (evaluation,) = [one for one in materialize(instance, "meter").get_asset_check_evaluations() if not one.passed][:1]
    report = evaluation.metadata["report"]
    assert isinstance(report, dg.TableMetadataValue)
    assert "id" in {record.data["column"] for record in report.records}


def test_the_last_good_object_stays_when_an_export_fails(house: House, instance: dg.DagsterInstance) -> None:
    house.use(ORGANIZATION.records())
    materialize(instance, "product")
    before = house.s3.objects(house.warehouse)
    house.use(spoiled("product"))
    assert not materialize(instance, "product").success
    assert house.s3.objects(house.warehouse) == before


def test_a_re_execution_from_failure_completes_the_same_export(house: House, instance: dg.DagsterInstance) -> None:
    house.use(spoiled("product"))
    names = ["account", "meter", "product"]
    job = dg.reconstructable(whole_export)
    config = {"resources": {IO_MANAGER: {"config": {"destinations": BOTH}}}}
    first = dg.execute_job(job, instance, run_config=config, asset_selection=[dg.AssetKey(name) for name in names])
    with first:
        assert not first.success
        assert set(house.objects()) == {"account", "meter"}
    api = house.use(ORGANIZATION.records())
    again = dg.ReexecutionOptions.from_failure(first.run_id, instance)
    with dg.execute_job(job, instance, run_config=config, reexecution_options=again) as second:
        assert second.success
        assert {event.step_key for event in second.filter_events(lambda event: event.is_step_success)} >= {"product"}
        assert second.run_id != first.run_id
    assert {one.path.rsplit("/", 1)[-1] for one in api.requests} == {"token", "products"}
    keys = {type_of(key): key for key in house.s3.objects(house.warehouse) if type_of(key) in entities()}
    assert {name: key.rsplit("/", 1)[-1] for name, key in keys.items()} == {
        name: f"{first.run_id}_{name}.csv" for name in names
    }
    assert len({key.split("/type=")[0] for key in keys.values()}) == 1


def test_whatever_is_delivered_has_the_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = json.loads(exports_yaml("http://127.0.0.1:1", warehouse="warehouse", archive="archive"))
    file = tmp_path / "exports.yaml"
    more = {"owners": ["data@acme.com"], "usageRawByDay": {"firstDay": "2024-01-01"}}
    file.write_text(json.dumps({**exports, **more}), encoding="utf-8")
    set_environment(monkeypatch, {"M3TER_EXPORTS": str(file)})
    specs = definitions().resolve_all_asset_specs()
    owned = {spec.key.to_user_string() for spec in specs if list(spec.owners) == ["data@acme.com"]}
    assert owned == {*entities(), MANIFEST, *USAGE_ASSETS, USAGE_MANIFEST}


def test_nothing_has_partitions_unless_exports_yaml_asks_for_it(house: House) -> None:
    """Else "Materialize all" would ask everybody for days."""
    assert not [one for one in definitions().resolve_all_asset_specs() if one.partitions_def]
    exports = json.loads((file := Path(os.environ["M3TER_EXPORTS"])).read_text())
    file.write_text(json.dumps({**exports, "usageRawByDay": {"firstDay": "2024-02-29"}}))
    (by_day,) = (one for one in definitions().resolve_all_asset_specs() if one.partitions_def)
    assert by_day.key.to_user_string() == RAW_BY_DAY
    assert by_day.partitions_def
    assert by_day.partitions_def.get_first_partition_key() == "2024-02-29"
    assert house.objects() == {}


def test_a_manifest_alone_says_that_it_needs_something_to_list(house: House, instance: dg.DagsterInstance) -> None:
    house.use(ORGANIZATION.records())
    result = materialize(instance, MANIFEST, more=[export_manifest()])
    assert not result.success
    assert failure_of(result, MANIFEST).startswith(
        f"{MANIFEST} lists what its own run exports, and this run exports nothing;"
    )


def test_a_job_takes_the_destinations_of_exports_yaml_and_no_others(house: House) -> None:  # noqa: ARG001
    job = whole_export()

    def config(*codes: str) -> dict[str, Any]:
        return {"resources": {IO_MANAGER: {"config": {"destinations": list(codes)}}}}

    chosen = dg.validate_run_config(job, config("archive"))
    assert chosen["resources"][IO_MANAGER]["config"]["destinations"] == ["archive"]
    with pytest.raises(
        dg.DagsterInvalidConfigError, match=r"\[1\] not in enum type .*\(warehouse, archive\) got nowhere"
    ):
        dg.validate_run_config(job, config("warehouse", "nowhere"))


def test_a_missing_bucket_fails_the_asset_and_leaves_the_other_destination(
    house: House, instance: dg.DagsterInstance
) -> None:
    house.use([("meter", {"id": "m"})])
    house.s3.client().delete_bucket(Bucket=house.archive)
    result = materialize(instance, "meter")
    assert not result.success
    assert rows_of(house.objects()["meter"])[0]["id"] == "m"
    assert house.archive in failure_of(result, "meter")


def downstream(seen: list[pl.LazyFrame]) -> dg.AssetsDefinition:
    @dg.asset(ins={"meter": dg.AssetIn(input_manager_key=IO_MANAGER)})
    def report(meter: pl.LazyFrame) -> None:
        seen.append(meter.collect().lazy())

    return report


def test_an_asset_of_the_users_own_reads_the_delivered_file_as_a_typed_frame(
    house: House, instance: dg.DagsterInstance
) -> None:
    house.use(ORGANIZATION.records())
    seen: list[pl.LazyFrame] = []
    assert materialize(instance, "meter", "report", more=[downstream(seen)]).success
    assert materialize(instance, "report", more=[downstream(seen)]).success
    for frame in seen:
        assert dict(frame.collect_schema()) == frame_schema(entities()["meter"])
        assert len(frame.collect()) == expected_rows(ORGANIZATION.records())["meter"]
    assert len(seen) == 2
    ids = [record["id"] for name, record in ORGANIZATION.records() if name == "meter"]
    assert sorted(seen[1].collect()["id"]) == sorted(ids)


def test_an_entity_that_was_never_delivered_cannot_be_read(
    house: House, new_instance: NewInstance, tmp_path: Path
) -> None:
    house.use(ORGANIZATION.records())
    message = r"^meter was never delivered, so there is no file to read; materialise meter first\.$"
    assets = [*operational_assets(), downstream([])]
    with new_instance(tmp_path) as unused, pytest.raises(NotExported, match=message):
        dg.materialize(assets, selection=["report"], instance=unused, resources=resources())


# The terminal


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with Sandbox(3, folder=tmp_path_factory.mktemp("sandbox"), requests_per_second=None) as sandbox:
        yield sandbox


def export(sandbox: Sandbox, folder: Path, *options: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `m3ter-dagster export`."""
    command = [str(PROGRAM), "export", *options]
    variables = {**plain_environment(), **variables_of(sandbox, folder), **environment}
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=90)
    return done.returncode, done.stdout, done.stderr


def variables_of(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    return {**sandbox.environment, "DAGSTER_HOME": str(folder / "home"), "M3TER_REQUESTS_PER_SECOND": "50"}


@pytest.mark.slow
def test_an_export_of_some_to_one_destination_ends_with_0(sandbox: Sandbox, tmp_path: Path) -> None:
    before = set(sandbox.s3.objects(WAREHOUSE))
    code, output, _ = export(sandbox, tmp_path, "--entities", "meter, PRODUCTS,meter", "--destinations", "archive")
    assert code == 0
    assert "2 of 2 entities delivered" in output
    assert {"meter", "product"} <= {type_of(key) for key in sandbox.s3.objects(ARCHIVE)}
    assert set(sandbox.s3.objects(WAREHOUSE)) == before
    assert frictionless_validates(sandbox, tmp_path)


def frictionless_validates(sandbox: Sandbox, folder: Path) -> bool:
    """Sizes, checksums and cells of every object that the manifest names, read from S3 by Frictionless itself."""
    (manifest,) = [text for key, text in sandbox.s3.objects(ARCHIVE).items() if key.endswith("_manifest.json")]
    (folder / "manifest.json").write_bytes(manifest)
    environment = {**os.environ, **sandbox.s3.environment, "S3_ENDPOINT_URL": sandbox.s3.endpoint_url}
    command = [str(PROGRAM.with_name("frictionless")), "validate", "manifest.json", "--trusted"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stdout
    return done.stdout.count(" VALID ") == 2


def export_here(sandbox: Sandbox, folder: Path, *options: str, **environment: str) -> Result:
    """The same in this process."""
    return CliRunner().invoke(main, ["export", *options], env={**variables_of(sandbox, folder), **environment})


def test_json_is_all_that_stands_on_stdout(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = export_here(sandbox, tmp_path, "--entities", "meter,plan", "--json")
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert list(found["entities"]) == ["meter", "plan"]
    assert found["entities"]["plan"]["checks"].keys() == {"schema", "complete"}
    assert found["hasSucceeded"]
    assert "[1/2] meter delivered: 10 rows" in ended.stderr
    failed = export_here(sandbox, tmp_path, "--entities", "meter", "--json", M3TER_API_SECRET="wrong-one")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["entities"]["meter"]["status"] == "failed"


def test_whoever_waits_for_rows_logs_how_many_were_read(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OrganizationReader.read.__kwdefaults__, "every", 0.001)  # seconds, instead of five
    first = json.loads(export_here(sandbox, tmp_path, "--entities", "meter,plan", "--json").stdout)["entities"]
    assert (first["meter"]["status"], first["meter"]["rowsBefore"]) == ("delivered", None)
    assert first["meter"]["rowsRead"] is not None
    second = json.loads(export_here(sandbox, tmp_path, "--entities", "meter,plan", "--json").stdout)["entities"]
    assert second["meter"]["rowsBefore"] == first["meter"]["rows"]


def test_a_wrong_secret_ends_with_1_and_names_the_variables(sandbox: Sandbox, tmp_path: Path) -> None:
    ended = export_here(sandbox, tmp_path, "--entities", "meter", M3TER_API_SECRET="wrong-one")
    assert ended.exit_code == 1
    assert "0 of 1 entities delivered" in ended.stdout
    assert "m3ter gives no token for M3TER_API_KEY and M3TER_API_SECRET: check both" in ended.stdout
    assert "wrong-one" not in ended.output
    assert "Traceback" not in ended.output


def test_a_missing_bucket_ends_with_1_and_is_named(sandbox: Sandbox, tmp_path: Path) -> None:
    exports = tmp_path / "exports.yaml"
    text = exports_yaml(sandbox.s3.endpoint_url, warehouse="no-such-bucket-here", archive=ARCHIVE)
    exports.write_text(text, encoding="utf-8")
    options = ["--entities", "meter", "--destinations", "warehouse"]
    ended = export_here(sandbox, tmp_path, *options, M3TER_EXPORTS=str(exports))
    assert ended.exit_code == 1
    assert "0 of 1 entities delivered" in ended.stdout
    assert "no-such-bucket-here" in ended.stdout
    assert "Traceback" not in ended.output


def test_where_no_destination_takes_anything_nothing_is_read_and_the_export_can_be_resumed(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    exports, environment = tmp_path / "exports.yaml", {"M3TER_EXPORTS": str(tmp_path / "exports.yaml")}
    endpoint = sandbox.s3.endpoint_url
    exports.write_text(exports_yaml(endpoint, warehouse="no-such-bucket-1", archive="no-such-bucket-2"))
    sandbox.api.requests.clear()
    ended = export_here(sandbox, tmp_path, "--entities", "meter,product", **environment)
    assert ended.exit_code == 1
    assert "nothing was read, since no destination of this export would take it." in ended.stdout
    assert "destination 'archive', s3://no-such-bucket-2/orgId=" in ended.stdout
    assert not sandbox.api.requests
    (run_id,) = re.findall(r"--resume (\S+)`", ended.stdout)
    exports.write_text(exports_yaml(endpoint, warehouse=WAREHOUSE, archive=ARCHIVE).replace("archive", "vault"))
    refused = export_here(sandbox, tmp_path, "--resume", run_id, **environment)
    assert refused.exit_code == 2
    assert " delivers to warehouse,archive, and exports.yaml no longer has all of" in refused.output
    # What a new process would not know either.
    ReconstructableJob.get_repository_definition.cache_clear()
    ReconstructableJob.get_definition.cache_clear()
    exports.write_text(exports_yaml(endpoint, warehouse=WAREHOUSE, archive=ARCHIVE))
    resumed = export_here(sandbox, tmp_path, "--resume", run_id, **environment)
    assert resumed.exit_code == 0, resumed.output
    assert "2 of 2 entities delivered" in resumed.stdout


def test_a_destination_that_takes_nothing_is_named_early_and_the_other_gets_its_files(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    exports = tmp_path / "exports.yaml"
    exports.write_text(exports_yaml(sandbox.s3.endpoint_url, warehouse="no-such-bucket", archive=ARCHIVE))
    before = len(sandbox.s3.objects(ARCHIVE))
    home = tmp_path / "home"
    ended = export_here(sandbox, tmp_path, "--entities", "meter", M3TER_EXPORTS=str(exports))
    assert (ended.exit_code, len(sandbox.s3.objects(ARCHIVE)) - before) == (1, 1)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        (run,) = instance.get_runs()
        lines = [one.user_message for one in instance.all_logs(run.run_id)]
    (warning,) = (one for one in lines if one.startswith("Nothing will be delivered to one of the destinations: "))
    assert "destination 'warehouse', s3://no-such-bucket/m3ter/orgId=" in warning
    assert run.tags["m3ter/organization"] == sandbox.api.organization_id


WRONG_USE = [
    ((), {"M3TER_API_KEY": None}, "M3TER_API_KEY is not set; it is the access key id of a m3ter service user"),
    ((), {"M3TER_API_SECRET": None}, "M3TER_API_SECRET is not set; it is the API secret"),
    ((), {"M3TER_ORG_ID": " "}, "M3TER_ORG_ID is not set; it is the id of your m3ter Organization"),
    (("--entities", "bils"), {}, "--entities: there is no entity 'bils'; known are ACCOUNTS, ACCOUNT_PLANS,"),
    ((), {"M3TER_EXECUTOR": "dask"}, "the environment has the M3TER_EXECUTOR 'dask'; write in_process, multiprocess,"),
    (("--entities", ","), {}, "--entities names nothing; give at least one."),
    (("--destinations", "warehous"), {}, "there is no destination 'warehous'; known are archive, warehouse."),
    (("--abandoned",), {}, "--abandoned says that the run of --resume has died; give --resume RUN_ID with it."),
    ((), {"M3TER_EXPORTS": "elsewhere.yaml"}, "elsewhere.yaml; write one that names at least a destination"),
]


@pytest.mark.parametrize(("options", "environment", "message"), WRONG_USE)
def test_wrong_use_ends_with_2_and_says_what_is_right(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    environment: dict[str, str | None],
    message: str,
) -> None:
    """None takes a variable away."""
    monkeypatch.chdir(tmp_path)
    asked = len(sandbox.api.requests)
    result = CliRunner().invoke(main, ["export", *options], env={**variables_of(sandbox, tmp_path), **environment})
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert len(sandbox.api.requests) == asked
