"""What Dagster loads. It wires the parts together and decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache

import dagster as dg

from m3ter_dagster.alarms import alarm_sensors, configuration_alarm, freshness_policies
from m3ter_dagster.assets.cross_entity_checks import cross_entity_checks
from m3ter_dagster.assets.lineage import source_assets
from m3ter_dagster.assets.manifest import export_manifest, usage_manifest
from m3ter_dagster.assets.operational import operational_assets
from m3ter_dagster.assets.usage import usage_asset_checks, usage_assets
from m3ter_dagster.config import (
    Exports,
    ExportSchedule,
    Settings,
    Unloadable,
    load_exports_or_last_good,
    load_settings,
)
from m3ter_dagster.dagster_internals import AssetJob
from m3ter_dagster.due_exports import due_exports
from m3ter_dagster.executors import executor_named
from m3ter_dagster.history.log import EXPORT_JOB, MANIFEST, REFERENCES_JOB
from m3ter_dagster.missing_manifests import missing_manifests
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.prune_history import prune_history
from m3ter_dagster.resources import export_resources
from m3ter_dagster.schedules import export_jobs, export_schedules
from m3ter_dagster.stuck_exports import stuck_exports
from m3ter_dagster.translation import DagsterM3terTranslator, translated


@dg.definitions
def definitions() -> dg.Definitions:
    """The exports of exports.yaml and the environment, which are read here and nowhere further down."""
    exports, unloadable = load_exports_or_last_good()
    if unloadable:
        logging.getLogger(__name__).warning("%s", unloadable)
    return _built(exports, load_settings(organizations=exports.organizations), unloadable)


@lru_cache(maxsize=1)
def _built(exports: Exports, settings: Settings, unloadable: Unloadable | None) -> dg.Definitions:
    """Dagster loads the definitions four times for one run."""
    executor = dg.Definitions(executor=executor_named(settings.executor))
    return dg.Definitions.merge(build_definitions(exports, settings, unloadable), executor)


def build_definitions(
    exports: Exports,
    settings: Settings,
    unloadable: Unloadable | None = None,
    *,
    names: Names = DEFAULT,
    translator: DagsterM3terTranslator | None = None,
) -> dg.Definitions:
    """Assets, checks, jobs, schedules, sensors and resources of these exports, for this project or another's.

    Where exports.yaml has `organizations`, each has all of them, with its code as a prefix.

    They merge with those of a host, under its executor, and with those of other Organizations, if `names` have a prefix
    that nothing else has. Settings without credentials are enough to load them; what reads m3ter then says which
    variables are missing. Where exports.yaml is `unloadable` and these exports are those of before, jobs, schedules,
    manifests and an alarm say so. What the assets are in Dagster, a `translator` may change.
    """

    def of_one(exports: Exports, settings: Settings, names: Names) -> dg.Definitions:
        if translator is None:
            return _definitions_of(exports, settings, unloadable, names)
        return translated(lambda hosted: _definitions_of(exports, settings, unloadable, hosted), names, translator)

    of_each = [of_one(exports.of(one), settings.of(one.code), names.within(one.code)) for one in exports.organizations]
    return dg.Definitions.merge(
        *(of_each or [of_one(exports, settings, names)]),
        dg.Definitions(sensors=configuration_alarm(exports, unloadable, names=names)),
    )


def _definitions_of(
    exports: Exports, settings: Settings, unloadable: Unloadable | None, names: Names
) -> dg.Definitions:
    """Those of one Organization."""
    freshness, keep = freshness_policies(exports), exports.keep_history
    banner = f"{unloadable}\n\n" if unloadable else ""
    jobs = export_jobs(exports.schedules, banner=banner, names=names)
    reused = {entity for one in exports.schedules if isinstance(one, ExportSchedule) for entity in one.reused}
    scheduled = {name for one in exports.schedules for name in one.asset_names}
    usual = [*operational_entities()]
    others = [name for name in entities() if name not in usual]
    # In one process these are exported first, whether the manifest depends on them or not.
    after = [*usual, *(name for name in others if name in scheduled or settings.executor != "in_process")]
    whole = [
        *operational_assets(exports.owners, freshness, reused, names),
        export_manifest(exports.owners, unloadable, after=after, names=names),
    ]
    measurements = [
        *usage_assets(exports.owners, freshness, exports.usage_raw_by_day, names),
        usage_manifest(exports.owners, unloadable, names),
    ]
    checks = [*cross_entity_checks(has_ledger=exports.ledger_check, names=names), *usage_asset_checks(names)]
    steps = {one.op.name for one in (*whole, *measurements, *checks)}
    return dg.Definitions(
        assets=[*source_assets(names), *whole, *measurements],
        asset_checks=checks,
        jobs=[*_jobs_of_all(usual, whole, banner, names), *jobs.values()],
        schedules=[
            *export_schedules(exports.schedules, jobs, banner=banner, names=names),
            *([prune_history(keep, exports.destinations, settings.org_id, names)] if keep else []),
        ],
        sensors=[
            *([due_exports(exports.schedules, jobs, names=names)] if exports.schedules else []),
            stuck_exports(exports.schedules, steps, names=names),
            missing_manifests([one.code for one in exports.destinations], settings.org_id, names),
            *alarm_sensors(exports, settings.org_id, steps=steps, names=names),
        ],
        resources=export_resources(exports, settings, names=names),
    )


def _jobs_of_all(
    usual: Sequence[str], whole: Sequence[dg.AssetsDefinition], banner: str, names: Names
) -> list[AssetJob]:
    """For people and terminals: ALL, and ALL_AND_REFERENCES."""
    return [
        dg.define_asset_job(
            names.own(EXPORT_JOB),
            selection=dg.AssetSelection.assets(*map(names.key, (*usual, MANIFEST))),
            description=f"{banner}Export every entity of m3ter's exports.",
        ),
        dg.define_asset_job(
            names.own(REFERENCES_JOB),
            selection=whole,
            description=f"{banner}Export every entity of m3ter's exports, and those that their rows refer to.",
        ),
    ]
