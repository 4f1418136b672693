"""The exports within another Dagster project, which has assets, resources and jobs of its own."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from m3ter_dagster.config import Exports, LocalDestination, Settings, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.jobs import read_export_jobs
from m3ter_dagster.history.log import MANIFEST, deliveries_of
from m3ter_dagster.history.progress import EntityResult, RunResult, follow
from m3ter_dagster.history.record import delivery_in, whole_export_in
from m3ter_sandbox import SandboxApi

ACCOUNT = {"id": "account-1", "version": 1, "name": "Acme", "dtCreated": "2026-01-01T00:00:00.000Z"}
REQUEST = {"m3ter/request": "1"}


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    with SandboxApi([("account", dict(ACCOUNT))], requests_per_second=None) as api:
        yield api


def settings_of(api: SandboxApi) -> Settings:
    return load_settings(api.environment)


def exports_to(folder: Path, **more: Any) -> Exports:
    folder.mkdir(exist_ok=True)
    return Exports(destinations=(LocalDestination(code="folder", destination_type="LOCAL", path=folder),), **more)


def manifest_in(folder: Path) -> dict[str, Any]:
    (found,) = folder.rglob("*_manifest.json")
    return json.loads(found.read_text())


def warehouse_asset(entity: str) -> dg.AssetsDefinition:
    """A host's asset by the name of an entity, with a check by the name of ours."""
    key = dg.AssetKey(["warehouse", entity])

    @dg.asset(key=key, deps=[entity], check_specs=[dg.AssetCheckSpec("complete", asset=key)])
    def copied(context: dg.AssetExecutionContext) -> Iterator[Any]:
        """Hands on what the entity's asset says of itself, as a copy may."""
        last = context.instance.fetch_materializations(dg.AssetKey(entity), 1).records[0].asset_materialization
        assert last
        yield dg.AssetCheckResult(check_name="complete", passed=False, description="the host's own")
        yield dg.Output(None, metadata={**last.metadata, "dagster/row_count": 7})

    return copied


def test_an_asset_of_the_host_whose_key_ends_in_an_entity_s_name_is_none_of_ours(
    api: SandboxApi, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    ours = build_definitions(exports_to(tmp_path / "files"), settings_of(api))
    host = dg.Definitions(
        assets=[warehouse_asset("account"), warehouse_asset(MANIFEST), *(ours.assets or ())],
        asset_checks=ours.asset_checks,
        resources=ours.resources,
    )
    wanted = [["account"], [MANIFEST], ["warehouse", "account"], ["warehouse", MANIFEST]]
    run = host.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey(path) for path in wanted], tags=REQUEST
    )
    assert run.success

    # What is told of the run while it goes on is about our account and our manifest alone.
    result, ended = RunResult({"account": EntityResult("account")}), threading.Event()
    ended.set()
    follow(instance, REQUEST, result, lambda *_: None, ended)
    assert result.is_complete
    assert result.entities["account"].checks["complete"].passed
    assert len(result.manifests) == 1

    # And so are the records.
    own = instance.fetch_materializations(dg.AssetKey("account"), 1).records[0].asset_materialization
    copies = [
        instance.fetch_materializations(dg.AssetKey(path), 1).records[0].asset_materialization for path in wanted[2:]
    ]
    assert own
    assert delivery_in(own)
    assert [find(copy) for copy in copies if copy for find in (delivery_in, whole_export_in)] == [None] * 4
    assert set(deliveries_of(instance, run.run_id)) == {"account"}
    assert [entity["name"] for entity in manifest_in(tmp_path / "files")["resources"]] == ["account"]
    (job,) = read_export_jobs(instance, limit=5)
    assert job.delivered == ("account",)


def test_captions_of_older_versions_are_read_of_our_own_assets_only() -> None:
    """They have no record that would say whose they are."""
    rows = dg.MetadataValue.table([dg.TableRecord({"uri": "s3://acme/orgId=o/type=bill/e_bill.csv"})])
    captions = {"objects": rows, "read from": dg.MetadataValue.timestamp(0.0)}
    key = dg.AssetKey(["warehouse", "bill"])
    assert delivery_in(dg.AssetMaterialization(key, metadata=captions)) is None
