"""Exports of measurements, whose columns are known only when they run: raw, aggregated, and raw day by day."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any

import dagster as dg
from msgspec.structs import replace

from m3ter_dagster.assets.entity_checks import breach_metadata
from m3ter_dagster.assets.lineage import column_schema, source_key
from m3ter_dagster.assets.usage_checks import failed_usage_checks, sums_equal_raw, usage_check_specs, usage_checks
from m3ter_dagster.assets.usage_config import AggregatedConfig, MeasurementsConfig, RawConfig, selection_of, window_in
from m3ter_dagster.config import ConfigError, UsageRawByDay, UsageSelection
from m3ter_dagster.config.usage import AGGREGATED, RAW, RAW_BY_DAY
from m3ter_dagster.dagster_internals import steps_of_this_process
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.history.log import export_of
from m3ter_dagster.history.progress import log_under_way
from m3ter_dagster.history.retries import retry_after_failure
from m3ter_dagster.m3ter.errors import M3terError
from m3ter_dagster.model.time_periods import Window
from m3ter_dagster.resources import IO_MANAGER
from m3ter_dagster.resources.organization import Organization

GROUP = "usage"
Context = dg.AssetExecutionContext


def usage_assets(
    owners: Sequence[str] = (),
    freshness: Mapping[str, dg.FreshnessPolicy] = MappingProxyType({}),
    by_day: UsageRawByDay | None = None,
) -> list[dg.AssetsDefinition]:
    """The assets of measurements. One with a file per day only if it is asked for: whoever materialises all would be
    asked for days because of it. It has no schedule, so it cannot be late.
    """
    always = [_raw(owners, freshness.get(RAW)), _aggregated(owners, freshness.get(AGGREGATED))]
    return [*always, _raw_by_day(owners, by_day.first_day)] if by_day else always


def usage_asset_checks() -> list[dg.AssetChecksDefinition]:
    return [sums_equal_raw]


def _raw(owners: Sequence[str], freshness: dg.FreshnessPolicy | None) -> dg.AssetsDefinition:
    about = _about(RAW, owners, "Measurements as they were sent, with all fields of their meters.")

    @dg.asset(**about, freshness_policy=freshness)
    def usage_raw(context: Context, config: RawConfig, organization: Organization) -> Iterator[Any]:
        yield from _export(context, RAW, organization, selection_of(config), window_in(config, _due(context)))

    return usage_raw


def _aggregated(owners: Sequence[str], freshness: dg.FreshnessPolicy | None) -> dg.AssetsDefinition:
    about = _about(AGGREGATED, owners, "Measurements aggregated by m3ter over hours, days, weeks or months.")

    @dg.asset(**about, freshness_policy=freshness)
    def usage_aggregated(context: Context, config: AggregatedConfig, organization: Organization) -> Iterator[Any]:
        yield from _export(context, AGGREGATED, organization, selection_of(config), window_in(config, _due(context)))

    return usage_aggregated


def _raw_by_day(owners: Sequence[str], first_day: date) -> dg.AssetsDefinition:
    """Raw measurements by day. A day exported again replaces its own file and no other, since its key is that day's."""
    about = _about(
        RAW_BY_DAY, owners, "Measurements as they were sent, a file per day (UTC), for backfills of the past."
    )

    @dg.asset(**about, partitions_def=dg.DailyPartitionsDefinition(first_day.isoformat(), timezone="UTC"))
    def usage_raw_by_day(context: Context, config: MeasurementsConfig, organization: Organization) -> Iterator[Any]:
        start = datetime.fromisoformat(context.partition_key).replace(tzinfo=UTC)
        yield from _export(
            context, RAW_BY_DAY, organization, selection_of(config), Window(start, start + timedelta(days=1))
        )

    return usage_raw_by_day


def _about(name: str, owners: Sequence[str], description: str) -> dict[str, Any]:
    return {
        "name": name,
        "deps": [source_key("account"), source_key("meter")],
        "group_name": GROUP,
        "kinds": {"polars"},
        "owners": owners,
        "description": f"{description} One file; its columns follow from the meters and are shown with each export.",
        "check_specs": usage_check_specs(name),
        "io_manager_key": IO_MANAGER,
    }


def _due(context: Context) -> datetime:
    return export_of(context.run, context.instance, org_id="").due


def _export(
    context: Context, name: str, organization: Organization, selection: UsageSelection, window: Window
) -> Iterator[Any]:
    context.log.info(f"{name}: measurements of {window}.")

    def tell(progress: str) -> None:
        log_under_way(context, progress, replace(organization.under_way(), waits_for=progress))

    try:
        reading = organization.measure(
            name,
            selection,
            window,
            steps=steps_of_this_process(context),
            tell=tell,
            find_past=getattr(context.resources, IO_MANAGER).past,
        )
    except SchemaBreached as breached:
        yield from failed_usage_checks(name, breached)
        raise dg.Failure(str(breached), metadata=breach_metadata(breached), allow_retries=False) from None
    except (ConfigError, M3terError) as error:
        passes = isinstance(error, M3terError) and error.passes
        if passes:
            retry_after_failure(context.instance, context.run)
        raise dg.Failure(f"{name} could not be read: {error}", allow_retries=passes) from None
    yield from usage_checks(name, reading)
    yield dg.Output(reading, metadata={"dagster/column_schema": column_schema(reading.table)})
