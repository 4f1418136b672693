"""m3ter's exports, and dbt's models of what they deliver, as one lineage."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, DbtProject, dbt_assets
from pydantic import Field

from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.definitions import build_definitions

MANIFEST = dg.AssetKey("export_manifest")
ENTITIES = ("account", "bill", "bill_line_item", "commitment", "product")
PROJECT = DbtProject(Path(__file__).parent)
PROJECT.prepare_if_dev()


class BehindTheManifest(DagsterDbtTranslator):
    """Every model waits for the manifest: only then are the files of the export whole."""

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        return spec.merge_attributes(deps=[MANIFEST]) if unique_id.startswith("model.") else spec


class Day(dg.Config):
    as_of: str = Field(default="", description="The day for which commitments are open or ended. Default: today.")


@dbt_assets(manifest=PROJECT.manifest_path, project=PROJECT, dagster_dbt_translator=BehindTheManifest())
def models(context: dg.AssetExecutionContext, dbt: DbtCliResource, config: Day) -> Iterator[Any]:
    variables = last_export(context.instance) | {"as_of": config.as_of or f"{datetime.now(UTC):%Y-%m-%d}"}
    yield from dbt.cli(["build", "--vars", json.dumps(variables)], context=context).stream()


def last_export(instance: dg.DagsterInstance) -> dict[str, str]:
    """Where the last whole export is."""
    event = instance.get_latest_materialization_event(MANIFEST)
    if event is None or event.asset_materialization is None:
        raise dg.Failure("There is no whole export yet; materialize the job revenue.", allow_retries=False)
    uri = event.asset_materialization.metadata["dagster/uri"].value
    manifest = Path(unquote(urlsplit(str(uri)).path))
    return {"folder": str(manifest.parents[1]), "export_id": manifest.name.removesuffix("_manifest.json")}


@dg.definitions
def definitions() -> dg.Definitions:
    everything = dg.AssetSelection.assets(*ENTITIES, MANIFEST, models)
    ours = dg.Definitions(
        assets=[models],
        jobs=[dg.define_asset_job("revenue", everything, description="Export what the models need, and build them.")],
        resources={"dbt": DbtCliResource(PROJECT)},
        executor=dg.in_process_executor,  # the exports bring none; in one process, each list is read once
    )
    return dg.Definitions.merge(build_definitions(load_exports(), load_settings()), ours)
