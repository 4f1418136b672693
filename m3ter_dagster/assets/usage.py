"""Exports of measurements, whose columns are known only when they run: raw, aggregated, and raw day by day."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType
from typing import Any

import dagster as dg
from msgspec.structs import replace

from m3ter_dagster.assets.entity_checks import breach_metadata
from m3ter_dagster.assets.lineage import column_schema
from m3ter_dagster.assets.usage_checks import failed_usage_checks, sums_check, usage_check_specs, usage_checks
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
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.resources import IO_MANAGER, ORGANIZATION

GROUP = "usage"
Context = dg.AssetExecutionContext


def usage_assets(
    owners: Sequence[str] = (),
    freshness: Mapping[str, dg.FreshnessPolicy] = MappingProxyType({}),
    by_day: UsageRawByDay | None = None,
    names: Names = DEFAULT,
) -> list[dg.AssetsDefinition]:
    """The assets of measurements. One with a file per day only if it is asked for: whoever materialises all would be
    asked for days because of it. It has no schedule, so it cannot be late.
    """
    always = [_raw(owners, freshness.get(RAW), names), _aggregated(owners, freshness.get(AGGREGATED), names)]
    return [*always, _raw_by_day(owners, by_day.first_day, names)] if by_day else always


def usage_asset_checks(names: Names = DEFAULT) -> list[dg.AssetChecksDefinition]:
    return [sums_check(names)]


def _raw(owners: Sequence[str], freshness: dg.FreshnessPolicy | None, names: Names) -> dg.AssetsDefinition:
    about = _about(RAW, owners, "Measurements as they were sent, with all fields of their meters.", names)

    @dg.asset(**about, freshness_policy=freshness)
    def usage_raw(context: Context, config: RawConfig) -> Iterator[Any]:
        yield from _export(context, RAW, selection_of(config), window_in(config, _due(context)), names)

    return usage_raw


def _aggregated(owners: Sequence[str], freshness: dg.FreshnessPolicy | None, names: Names) -> dg.AssetsDefinition:
    about = _about(AGGREGATED, owners, "Measurements aggregated by m3ter over hours, days, weeks or months.", names)

    @dg.asset(**about, freshness_policy=freshness)
    def usage_aggregated(context: Context, config: AggregatedConfig) -> Iterator[Any]:
        yield from _export(context, AGGREGATED, selection_of(config), window_in(config, _due(context)), names)

    return usage_aggregated


def _raw_by_day(owners: Sequence[str], first_day: date, names: Names) -> dg.AssetsDefinition:
    """Raw measurements by day. A day exported again replaces its own file and no other, since its key is that day's."""
    what = "Measurements as they were sent, a file per day (UTC), for backfills of the past."
    about = _about(RAW_BY_DAY, owners, what, names)

    @dg.asset(**about, partitions_def=dg.DailyPartitionsDefinition(first_day.isoformat(), timezone="UTC"))
    def usage_raw_by_day(context: Context, config: MeasurementsConfig) -> Iterator[Any]:
        start = datetime.fromisoformat(context.partition_key).replace(tzinfo=UTC)
        day = Window(start, start + timedelta(days=1))
        yield from _export(context, RAW_BY_DAY, selection_of(config), day, names)

    return usage_raw_by_day


def _about(name: str, owners: Sequence[str], description: str, names: Names) -> dict[str, Any]:
    return {
        "key": names.key(name),
        "deps": [names.source("account"), names.source("meter")],
        "group_name": names.own(GROUP),
        "kinds": {"polars"},
        "owners": owners,
        "description": f"{description} One file; its columns follow from the meters and are shown with each export.",
        "check_specs": usage_check_specs(names.key(name), name),
        "io_manager_key": names.own(IO_MANAGER),
        "required_resource_keys": {names.own(ORGANIZATION)},
        "pool": names.pool,
    }


def _due(context: Context) -> datetime:
    return export_of(context.run, context.instance, org_id="").due


def _export(context: Context, name: str, selection: UsageSelection, window: Window, names: Names) -> Iterator[Any]:
    organization, io_manager = (getattr(context.resources, names.own(one)) for one in (ORGANIZATION, IO_MANAGER))
    context.log.info(f"{name}: measurements of {window}.")

    def tell(progress: str) -> None:
        log_under_way(context, progress, replace(organization.under_way(), waits_for=progress))

    try:
        reading = organization.measure(
            name,
            selection,
            window,
            steps=names.of_steps(steps_of_this_process(context)),
            tell=tell,
            find_past=io_manager.past,
        )
    except SchemaBreached as breached:
        yield from failed_usage_checks(name, breached)
        raise dg.Failure(str(breached), metadata=breach_metadata(breached), allow_retries=False) from None
    except (ConfigError, M3terError) as error:
        passes = isinstance(error, M3terError) and error.passes
        if passes:
            retry_after_failure(context.instance, context.run)
        raise dg.Failure(f"{name} could not be read: {error}", allow_retries=passes) from None
    yield from usage_checks(context.asset_key, reading)
    yield dg.Output(reading, metadata={"dagster/column_schema": column_schema(reading.table)})
