"""What Dagster loads. Wires; decides nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from m3ter_dagster.alarms import alarm_sensors, freshness_policies
from m3ter_dagster.assets.checks import cross_entity_checks
from m3ter_dagster.assets.manifest import export_manifest, usage_manifest
from m3ter_dagster.assets.operational import IO_MANAGER, operational_assets
from m3ter_dagster.assets.source import source_assets
from m3ter_dagster.assets.usage import usage_asset_checks, usage_assets
from m3ter_dagster.config import executor, load_exports
from m3ter_dagster.history.log import EXPORT_JOB
from m3ter_dagster.resources.io_manager import S3CsvIOManager
from m3ter_dagster.resources.organization import organization_resource
from m3ter_dagster.schedules import export_jobs, export_schedules, first_exports
from m3ter_dagster.usage.source import usage_resource


@dg.definitions
def definitions() -> dg.Definitions:
    exports = load_exports()
    freshness = freshness_policies(exports)
    jobs = export_jobs(exports.schedules)
    whole = [*operational_assets(exports.owners, freshness), export_manifest(exports.owners)]
    measurements = [*usage_assets(exports.owners, freshness), usage_manifest(exports.owners)]
    everything = dg.define_asset_job(EXPORT_JOB, selection=whole, description="Export every entity now.")
    return dg.Definitions(
        assets=[*source_assets(), *whole, *measurements],
        asset_checks=[*cross_entity_checks(), *usage_asset_checks()],
        jobs=[everything, *jobs.values()],
        schedules=export_schedules(exports.schedules, jobs, now=datetime.now(UTC)),
        sensors=[
            *([first_exports(exports.schedules, jobs)] if exports.schedules else []),
            *alarm_sensors(exports),
        ],
        executor=dg.in_process_executor if executor() == "in_process" else dg.multiprocess_executor,
        resources={
            "organization": organization_resource,
            "usage": usage_resource,
            IO_MANAGER: S3CsvIOManager(destinations=list(exports.default_destinations)),
        },
    )
