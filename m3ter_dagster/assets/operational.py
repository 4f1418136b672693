"""The operational exports: one factory, one asset per entity."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import dagster as dg

from m3ter_dagster.assets.entity_checks import (
    breach_metadata,
    check_specs,
    failed_schema_check,
    passed_checks,
    reuse_check,
)
from m3ter_dagster.assets.lineage import column_lineage, column_schema
from m3ter_dagster.config import ConfigError
from m3ter_dagster.dagster_internals import steps_of_this_process
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.history.progress import log_under_way
from m3ter_dagster.history.retries import retry_after_failure
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.reading.reading import EntityUnreadable
from m3ter_dagster.resources import IO_MANAGER, ORGANIZATION

GROUP, REFERENCE_GROUP = "operational_exports", "reference_exports"

_AS_EXPORTED = "One file of all rows, as m3ter's Data Export Entity Schema defines it."
_AS_REFERENCE = "One file of all rows with the fields of m3ter's API; no export of m3ter's own has it."


def operational_assets(
    owners: Sequence[str] = (),
    freshness: Mapping[str, dg.FreshnessPolicy] = MappingProxyType({}),
    reused: Collection[Entity] = (),
    names: Names = DEFAULT,
) -> Sequence[dg.AssetsDefinition]:
    """An asset per entity; those that no export of m3ter has are a group. Of those that are `reused` by any schedule,
    reuse is checked.
    """
    return [
        operational_asset(entity, owners, freshness.get(entity.name), is_reused=entity in reused, names=names)
        for entity in entities().values()
    ]


def operational_asset(
    entity: Entity,
    owners: Sequence[str],
    freshness: dg.FreshnessPolicy | None,
    *,
    is_reused: bool = False,
    names: Names = DEFAULT,
) -> dg.AssetsDefinition:
    @dg.asset(
        key=names.key(entity.name),
        deps=[names.source(entity.name)],
        group_name=names.own(REFERENCE_GROUP if entity.is_reference else GROUP),
        kinds={"polars"},
        owners=owners,
        description=f"{entity.description} {_AS_REFERENCE if entity.is_reference else _AS_EXPORTED}",
        metadata={"dagster/column_schema": column_schema(entity)},
        tags={"m3ter/operational_data_type": entity.operational_data_type},
        check_specs=check_specs(names.key(entity.name), is_reused=is_reused),
        io_manager_key=names.own(IO_MANAGER),
        required_resource_keys={names.own(ORGANIZATION)},
        freshness_policy=freshness,
        pool=names.pool,
        # Before the manifest, which may not depend on it: where a process runs one step at a time, priority is enough.
        op_tags={"dagster/priority": "1"} if entity.is_reference else None,
    )
    def export(context: dg.AssetExecutionContext) -> Iterator[Any]:
        organization, io_manager = (getattr(context.resources, names.own(one)) for one in (ORGANIZATION, IO_MANAGER))

        def waiting(progress: str) -> None:
            log_under_way(context, progress, organization.under_way(), io_manager.rows_before)

        try:
            reading = organization.read(
                entity,
                steps=names.of_steps(steps_of_this_process(context)),
                waiting=waiting,
                find_past=io_manager.past,
            )
        except SchemaBreached as breached:
            yield failed_schema_check(breached)
            raise dg.Failure(str(breached), metadata=breach_metadata(breached), allow_retries=False) from None
        except (EntityUnreadable, ConfigError) as error:
            if isinstance(error, EntityUnreadable) and error.passes:
                retry_after_failure(context.instance, context.run)
            raise dg.Failure(str(error), allow_retries=False) from None
        yield from passed_checks(context.asset_key, reading, rows_before=io_manager.rows_before.get(entity.name))
        if is_reused:
            yield reuse_check(context.asset_key, reading)
        # Not the columns that the asset shows before, where the run's schedule leaves some out.
        columns = {"dagster/column_schema": column_schema(reading.table)} if reading.excluded else {}
        # Dagster reads the lineage of columns from materialisations, not from the definition of the asset.
        lineage = column_lineage(reading.table, names)
        yield dg.Output(reading, metadata={**columns, "dagster/column_lineage": lineage})

    return export
