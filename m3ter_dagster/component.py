"""The exports as a component of Dagster, for projects that `dg` makes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

import dagster as dg
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import Field

from m3ter_dagster.config import (
    environment_with,
    load_exports_or_last_good,
    load_settings,
    new_exports_yaml,
    write_new,
)
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.names import Names
from m3ter_dagster.translation import DagsterM3terTranslator, M3terAsset

EXPORTS = "exports.yaml"


class M3terExportScaffolder(dg.Scaffolder):
    """Writes defs.yaml, and the exports.yaml that `m3ter-dagster init` writes unless there is one."""

    def scaffold(self, request: dg.ScaffoldRequest) -> None:
        folder = request.target_path.parent if request.append else request.target_path
        prefix = re.sub("[^A-Za-z0-9_]", "_", folder.name)
        dg.scaffold_component(request, {"exports": EXPORTS, "prefix": prefix})
        for name, text in new_exports_yaml().items():
            write_new(folder / name, text)


class M3terExportSettings(dg.Model, dg.Resolvable):
    """How to reach m3ter, and how runs work. What is not given is as the variable M3TER_... of the environment says."""

    api_key: str | None = Field(None, description="The access key id of a m3ter service user.", repr=False)
    api_secret: str | None = Field(None, description="The API secret that belongs to it.", repr=False)
    org_id: str | None = Field(None, description="The id of the m3ter Organization.")
    base_url: str | None = Field(None, description="Where m3ter's API is.")
    requests_per_second: float | None = Field(None, description="The pace, 50 at most.")
    executor: str | None = Field(
        None, description="multiprocess where each step of the project's runs has a process of its own."
    )

    def variables(self) -> dict[str, str]:
        return {f"M3TER_{name.upper()}": str(value) for name, value in self.model_dump(exclude_none=True).items()}


@dg.scaffold_with(M3terExportScaffolder)
class M3terExportComponent(dg.Component, dg.Model, dg.Resolvable):
    """m3ter's Operational Data Export: each entity an asset, delivered as exports.yaml says.

    A subclass may override `get_asset_spec` to say what an asset is in Dagster.
    """

    exports: str = Field(EXPORTS, description="The path of exports.yaml, relative to the folder of the component.")
    prefix: str | None = Field(
        None,
        pattern="^[A-Za-z0-9_]+(/[A-Za-z0-9_]+)*$",
        description="What stands before the names of assets, jobs, schedules, sensors, resources and groups.",
        examples=["billing"],
    )
    # With a factory instead, Dagster 1.12 could make no model of it.
    settings: M3terExportSettings = Field(M3terExportSettings(), description="Instead of variables of the environment.")
    translation: Annotated[
        TranslationFn[M3terAsset] | None,
        TranslationFnResolver(template_vars_for_translation_fn=lambda asset: {"asset": asset}),
    ] = Field(None, description="What the assets are in Dagster; `asset.name` is the name of each.")

    def get_asset_spec(self, asset: M3terAsset) -> dg.AssetSpec:
        spec = DagsterM3terTranslator().get_asset_spec(asset)
        return self.translation(spec, asset) if self.translation else spec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        environ = environment_with({**self.settings.variables(), "M3TER_EXPORTS": str(context.path / self.exports)})
        exports, unloadable = load_exports_or_last_good(environ)
        names = Names(tuple(self.prefix.split("/")) if self.prefix else ())
        return build_definitions(
            exports,
            load_settings(environ, exports.organizations),
            unloadable,
            names=names,
            translator=_Translator(self),
        )


@dataclass(frozen=True)
class _Translator(DagsterM3terTranslator):
    """Asks the component, whose subclass may say otherwise."""

    component: M3terExportComponent

    def get_asset_spec(self, asset: M3terAsset) -> dg.AssetSpec:
        return self.component.get_asset_spec(asset)
