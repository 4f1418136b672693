"""The exports within another Dagster project, which has assets, resources and jobs of its own."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from receiver import Receiver

from m3ter_dagster.config import Exports, LocalDestination, Settings, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.failures import failed_check
from m3ter_dagster.history.jobs import read_export_jobs
from m3ter_dagster.history.log import MANIFEST, deliveries_of
from m3ter_dagster.history.progress import EntityResult, RunResult, UnderWay, follow, log_under_way
from m3ter_dagster.history.record import delivery_in, whole_export_in
from m3ter_dagster.names import Names, UnusablePrefix
from m3ter_sandbox import SandboxApi

ACCOUNT = {"id": "account-1", "version": 1, "name": "Acme", "dtCreated": "2026-01-01T00:00:00.000Z"}
REQUEST = {"m3ter/request": "1"}


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    with SandboxApi([("account", dict(ACCOUNT))], requests_per_second=None) as api:
        yield api


def settings_of(api: SandboxApi, **more: str) -> Settings:
    return load_settings({**api.environment, **more})


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
    assert failed_check(instance, run.run_id, "complete") is None
    (job,) = read_export_jobs(instance, limit=5)
    assert job.delivered == ("account",)


def test_captions_of_older_versions_are_read_of_our_own_assets_only() -> None:
    """They have no record that would say whose they are."""
    rows = dg.MetadataValue.table([dg.TableRecord({"uri": "s3://acme/orgId=o/type=bill/e_bill.csv"})])
    captions = {"objects": rows, "read from": dg.MetadataValue.timestamp(0.0)}
    key = dg.AssetKey(["warehouse", "bill"])
    assert delivery_in(dg.AssetMaterialization(key, metadata=captions)) is None


BILLING = Names(("billing",))
COMMON = {"destinations": ["folder"], "schedule_type": "DAY", "period": 1, "dt_created": "2024-06-01T10:00:00Z"}
NIGHTLY = {"code": "nightly", "operational_data_types": ["ACCOUNTS"], **COMMON}
MEASURED = {"code": "measured", "source_type": "USAGE", "time_period": "YESTERDAY", **COMMON}
REUSED = {"code": "reused", "operational_data_types": ["ALL"], "reuse": "unchangedBills", **COMMON}
EVERYTHING = {
    "schedules": [NIGHTLY, MEASURED, REUSED],
    "usage_raw_by_day": {"first_day": "2024-06-01"},
    "keep_history": "90d",
    "ledger_check": True,
    "notifications": {"webhook_url": "https://hooks.example.com/x", "on_success": True},
}
"""What has a part of its own in Dagster."""


def named(definitions: dg.Definitions) -> dict[str, set[str]]:
    """The names of everything that Dagster knows of, but for its own."""
    repository = definitions.get_repository_def()
    jobs = repository.get_all_jobs()
    return {
        "assets": {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()},
        "groups": {repository.asset_graph.get(key).group_name for key in repository.asset_graph.get_all_asset_keys()},
        "ops": {node.name for job in jobs for node in job.nodes},
        "jobs": {job.name for job in jobs if not job.name.startswith("__")},
        "schedules": {one.name for one in repository.schedule_defs},
        "sensors": {one.name for one in repository.sensor_defs},
        "resources": set(definitions.resources or ()),
    }


def test_a_prefix_is_in_every_name(api: SandboxApi, tmp_path: Path) -> None:
    exports = exports_to(tmp_path / "files", **EVERYTHING)
    usual = named(build_definitions(exports, settings_of(api)))
    assert {"account", "m3ter/account", MANIFEST, "usage_raw_by_day"} <= usual["assets"]
    assert {"export", "all_and_references", "export_nightly", "prune_history"} <= usual["jobs"]
    assert usual["resources"] == {"organization", "csv_io_manager"}
    assert {"due_exports", "late_exports", "failed_exports", "unsafe_reuse"} <= usual["sensors"]
    prefixed = named(build_definitions(exports, settings_of(api), names=BILLING))
    assert prefixed == {
        kind: {f"billing{'/' if kind == 'assets' else '__'}{name}" for name in names} for kind, names in usual.items()
    }


@pytest.mark.parametrize("part", ["", "a/b", "bill-ing", "é"])
def test_a_prefix_that_dagster_would_refuse_is_refused_in_words(part: str) -> None:
    with pytest.raises(UnusablePrefix) as refused:
        Names((part,))
    assert str(refused.value).endswith(f"has the part {part!r}; use letters, digits and underscores.")


def test_the_exports_merge_with_a_project_that_has_everything_by_our_names(
    api: SandboxApi, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    @dg.asset(key=["account"])
    def account() -> None: ...

    @dg.asset(key=["warehouse", "account"], deps=["account"])
    def warehouse() -> None: ...

    @dg.asset(ins={"account": dg.AssetIn(BILLING.key("account"))})
    def report(account: pl.LazyFrame) -> list[str]:
        return account.collect()["id"].to_list()

    @dg.schedule(job_name="export", cron_schedule="@daily")
    def nightly() -> None: ...

    @dg.sensor(job_name="export")
    def due_exports() -> None: ...

    host = dg.Definitions(
        assets=[account, warehouse, report],
        jobs=[dg.define_asset_job("export", selection=["account", "warehouse/account"])],
        schedules=[nightly],
        sensors=[due_exports],
        resources={"organization": "theirs", "csv_io_manager": dg.mem_io_manager, "io_manager": dg.mem_io_manager},
        executor=dg.multiprocess_executor,
    )
    folder = tmp_path / "files"
    ours = build_definitions(exports_to(folder, **EVERYTHING), settings_of(api), names=BILLING)
    merged = dg.Definitions.merge(host, ours)
    dg.Definitions.validate_loadable(merged)
    pools = {one.op.name: one.op.pool for one in ours.assets or () if isinstance(one, dg.AssetsDefinition)}
    assert (pools["billing__account"], pools["billing__usage_raw"]) == ("billing__m3ter", "billing__m3ter")
    assert merged.executor is dg.multiprocess_executor

    theirs = merged.resolve_job_def("export").execute_in_process(instance=instance)
    export = merged.resolve_job_def("billing__export").execute_in_process(
        instance=instance, asset_selection=[BILLING.key("account"), BILLING.key(MANIFEST)]
    )
    assert [entity["name"] for entity in manifest_in(folder)["resources"]] == ["account"]
    assert deliveries_of(instance, export.run_id, names=BILLING)["account"].rows == 1
    (job,) = read_export_jobs(instance, limit=5, names=BILLING)
    assert (job.id, job.delivered) == (export.run_id, ("account",))
    assert deliveries_of(instance, theirs.run_id, names=BILLING) == deliveries_of(instance, export.run_id) == {}

    # The host's own assets are given the file, and their failures are none of exports.
    done = merged.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("report")]
    )
    assert done.output_for_node("report") == ["account-1"]


def test_with_a_prefix_entities_are_read_side_by_side(
    api: SandboxApi, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    delivered: dict[str, int] = {}

    def before_answer(path: str, query: str) -> None:  # noqa: ARG001
        delivered.setdefault(path, len(instance.fetch_materializations(BILLING.key("account"), 1).records))

    for number in range(1000):  # many pages, between which there is time to ask for products
        api.records.insert("account", {**ACCOUNT, "id": f"another-{number}"})
    api.before_answer = before_answer
    ours = build_definitions(exports_to(tmp_path / "files"), settings_of(api), names=BILLING)
    ours.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance, asset_selection=[BILLING.key("account"), BILLING.key("product")]
    )
    assert {path.rsplit("/", 1)[-1]: count for path, count in delivered.items()} == {"accounts": 0, "products": 0}


def test_what_a_step_waits_for_is_logged_with_it(instance: dg.DagsterInstance) -> None:
    @dg.asset(key=BILLING.key("account"))
    def waits(context: dg.AssetExecutionContext) -> None:
        log_under_way(context, "page 7", UnderWay())

    run = dg.materialize([waits], instance=instance)
    events = [one.dagster_event for one in instance.all_logs(run.run_id)]
    steps = [one.step_key for one in events if one and one.message == "billing/account: page 7"]
    assert steps == ["billing__account"]


def test_only_failures_of_exports_are_told_of(api: SandboxApi, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    @dg.asset
    def fails() -> None:
        raise ValueError

    with Receiver() as receiver:
        notifications = {"webhook_url": receiver.url}
        exports = exports_to(tmp_path / "files", schedules=[NIGHTLY], notifications=notifications)
        ours = build_definitions(exports, settings_of(api), names=BILLING)
        merged = dg.Definitions.merge(dg.Definitions(assets=[fails]), ours)
        api.records.insert("account", {**ACCOUNT, "id": "account-2", "version": "x"})
        everything = merged.resolve_implicit_global_asset_job_def()
        for keys in ([["fails"]], [["billing", "account"], ["fails"]]):
            run = everything.execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey(path) for path in keys], raise_on_error=False
            )
            assert not run.success
            with dg.build_run_status_sensor_context(
                "billing__failed_exports", run.get_run_failure_event(), instance, run.dagster_run
            ).for_run_failure() as context:
                merged.resolve_sensor_def("billing__failed_exports")(context)
        (text,) = receiver.texts
    assert [line.split(":")[0] for line in text.splitlines()[2:]] == ["billing__account"]
