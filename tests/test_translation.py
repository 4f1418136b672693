"""What a translator makes of the assets: whatever they are called in Dagster, each is known to be what it exports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from test_embedding import ACCOUNT, BILLING, EVERYTHING, exports_to, settings_of

from m3ter_dagster import DagsterM3terTranslator, M3terAsset
from m3ter_dagster.assets.lineage import source_assets
from m3ter_dagster.config import load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.failures import failed_check
from m3ter_dagster.history.jobs import read_export_jobs
from m3ter_dagster.history.log import MANIFEST, SCHEDULE_TAG, deliveries_of
from m3ter_dagster.names import KeyTaken, Names
from m3ter_sandbox import SandboxApi

NAMES = Names(
    ("billing",), keys={"account": dg.AssetKey(["finance", "customers"]), "product": dg.AssetKey(["catalogue"])}
)


class Finance(DagsterM3terTranslator):
    """Neither the first nor the last part of a key says what it is."""

    def get_asset_spec(self, asset: M3terAsset) -> dg.AssetSpec:
        spec = super().get_asset_spec(asset)
        return spec.replace_attributes(
            key=dg.AssetKey(["finance", asset.name[::-1], "m3ter"]),
            group_name="finance",
            description=asset.entity.title if asset.entity else spec.description,
        )


def finance(name: str) -> dg.AssetKey:
    return dg.AssetKey(["finance", name[::-1], "m3ter"])


def test_a_key_and_its_step_are_known_by_what_the_translator_has_called_them() -> None:
    assert [NAMES.key(one).to_user_string() for one in ("account", "bill")] == ["finance/customers", "billing/bill"]
    assert [NAMES.asset(NAMES.key(one)) for one in ("account", "product", "bill")] == ["account", "product", "bill"]
    assert [NAMES.step(one) for one in ("account", "bill")] == ["finance__customers", "billing__bill"]
    assert NAMES.of_steps(["finance__customers", "catalogue", "billing__bill"]) == {"account", "product", "bill"}


def test_what_a_host_calls_as_we_would_have_is_none_of_ours() -> None:
    assert NAMES.asset(dg.AssetKey(["billing", "account"])) == ""
    assert NAMES.of_steps(["billing__account", "billing__bill", "customers"]) == {"bill"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"bill": dg.AssetKey("x"), "plan": dg.AssetKey("x")},
            "the translation gives the asset 'plan' the key 'x', which 'bill' has; give each one of its own, "
            "such as one with {{ asset.name }} in it.",
        ),
        (
            {"bill": dg.AssetKey(["billing", "m3ter", "bill"])},
            "the translation gives the asset 'bill' the key 'billing/m3ter/bill', which m3ter's own entity in the "
            "lineage has; give each one of its own, such as one with {{ asset.name }} in it.",
        ),
    ],
)
def test_a_key_that_another_asset_has_is_refused_in_words(keys: dict[str, dg.AssetKey], words: str) -> None:
    with pytest.raises(KeyTaken) as refused:
        Names(("billing",), keys)
    assert str(refused.value) == words


def test_everything_of_an_asset_is_translated_and_nothing_else(tmp_path: Path) -> None:
    exports = exports_to(tmp_path / "files", **EVERYTHING)
    definitions = build_definitions(exports, load_settings({}), names=BILLING, translator=Finance())
    graph = definitions.resolve_asset_graph()
    bill = graph.get(finance("bill"))
    assert (bill.group_name, bill.description, bill.kinds) == ("finance", "Bill", {"polars"})
    assert bill.parent_keys == {BILLING.source("bill")}
    assert finance("bill") in graph.get(finance(MANIFEST)).parent_keys
    assert dg.AssetCheckKey(finance("usage_raw"), "uid") in graph.asset_check_keys
    assert dg.AssetCheckKey(finance("usage_aggregated"), "uid") not in graph.asset_check_keys
    sources = {one.key for one in source_assets(BILLING)}
    assert {key for key in graph.get_all_asset_keys() if key.path[0] != "finance"} == sources
    jobs = {one.name for one in definitions.resolve_all_job_defs() if not one.name.startswith("__")}
    assert {"billing__export", "billing__export_nightly", "billing__prune_history"} <= jobs


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    with SandboxApi([("account", dict(ACCOUNT))], requests_per_second=None) as api:
        yield api


def test_an_export_under_other_keys_has_a_manifest_a_history_and_is_seen_by_sensors(
    api: SandboxApi, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    @dg.asset(ins={"account": dg.AssetIn(finance("account"))})
    def report(account: pl.LazyFrame) -> list[str]:
        return account.collect()["id"].to_list()

    folder = tmp_path / "files"
    ours = build_definitions(exports_to(folder, **EVERYTHING), settings_of(api), names=BILLING, translator=Finance())
    names = (ours.resources or {})["billing__csv_io_manager"].names
    merged = dg.Definitions.merge(dg.Definitions(assets=[report], resources={"io_manager": dg.mem_io_manager}), ours)
    nightly, everything = (
        merged.resolve_job_def("billing__export_nightly"),
        merged.resolve_implicit_global_asset_job_def(),
    )
    tags = {SCHEDULE_TAG: BILLING.schedule("nightly")}
    first, second = (nightly.execute_in_process(instance=instance, tags=tags).run_id for _ in range(2))

    (manifest,) = folder.rglob(f"{second}_manifest.json")
    assert [one["name"] for one in json.loads(manifest.read_text())["resources"]] == ["account"]
    assert deliveries_of(instance, second, names=names)["account"].difference["previous"] == first
    assert [(job.id, job.delivered) for job in read_export_jobs(instance, limit=1, names=names)] == [
        (second, ("account",))
    ]
    assert failed_check(instance, second, "complete", names) is None
    read = everything.execute_in_process(instance=instance, asset_selection=[report.key])
    assert read.output_for_node("report") == ["account-1"]

    # The button Materialize on one entity makes no manifest; the sensor asks for it by the key that it has here.
    alone = everything.execute_in_process(instance=instance, asset_selection=[finance("account")]).run_id
    with dg.build_sensor_context(instance, definitions=merged) as context:
        (request,) = merged.resolve_sensor_def("billing__missing_manifests").evaluate_tick(context).run_requests or ()
    assert (request.asset_selection, request.tags["m3ter/export"]) == ([finance(MANIFEST)], alone)


def test_measurements_under_other_keys_are_exported_as_their_schedule_says(
    api: SandboxApi, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    ours = build_definitions(
        exports_to(tmp_path / "files", **EVERYTHING), settings_of(api), names=BILLING, translator=Finance()
    )
    names = (ours.resources or {})["billing__csv_io_manager"].names
    run = ours.resolve_job_def("billing__export_measured").execute_in_process(instance=instance)
    assert set(deliveries_of(instance, run.run_id, names=names)) == {"usage_raw"}
