"""What the assets are in a host's Dagster: a translator of keys, groups, tags and owners, as its integrations have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import dagster as dg

from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.names import Names


@dataclass(frozen=True)
class M3terAsset:
    """An asset that an export materialises: an entity, measurements or a manifest."""

    name: str
    """Its name in exports, such as `bill_line_item`, `usage_raw` or `export_manifest`."""
    default_spec: dg.AssetSpec
    """What it is in Dagster unless a translator says otherwise."""

    @property
    def entity(self) -> Entity | None:
        """The entity of m3ter that it exports; None for measurements and manifests."""
        return entities().get(self.name)


class DagsterM3terTranslator:
    """Says what the assets are in Dagster. Subclass it and change what `super().get_asset_spec(asset)` gives."""

    def get_asset_spec(self, asset: M3terAsset) -> dg.AssetSpec:
        return asset.default_spec


def translated(
    build: Callable[[Names], dg.Definitions], names: Names, translator: DagsterM3terTranslator
) -> dg.Definitions:
    """The definitions that `build` gives, each asset as the translator says. m3ter's own entities stay as they are.

    Built twice, since manifests, checks, jobs and sensors name the assets by keys that only the translator knows.
    """

    def spec_of(name: str, spec: dg.AssetSpec) -> dg.AssetSpec:
        return translator.get_asset_spec(M3terAsset(name, spec.replace_attributes(key=names.key(name))))

    exported = [one for one in _assets(build(names)) if isinstance(one, dg.AssetsDefinition)]
    defaults = {names.asset(spec.key): spec for one in exported for spec in one.specs}
    hosted = replace(names, keys={name: spec_of(name, spec).key for name, spec in defaults.items()})

    def translate(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = hosted.asset(spec.key)
        return spec_of(name, spec) if name in hosted.keys else spec

    definitions = build(hosted)
    return dg.Definitions(
        assets=dg.map_asset_specs(translate, _assets(definitions)),
        asset_checks=definitions.asset_checks,
        jobs=definitions.jobs,
        schedules=definitions.schedules,
        sensors=definitions.sensors,
        resources=definitions.resources,
    )


def _assets(definitions: dg.Definitions) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """With the type that Dagster asks for, which is narrower than that of what it gives."""
    return [one for one in definitions.assets or () if isinstance(one, dg.AssetsDefinition | dg.AssetSpec)]
