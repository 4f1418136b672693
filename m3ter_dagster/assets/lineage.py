"""m3ter's own entities as external assets: the entity diagram as lineage. Nothing here is ever executed."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Column, Entity, Table
from m3ter_dagster.names import DEFAULT, Names

GROUP = "m3ter_organization"


def source_assets(names: Names = DEFAULT) -> Sequence[dg.AssetSpec]:
    return [_source(entity, names) for entity in entities().values()]


def column_schema(table: Table) -> dg.TableSchema:
    """The columns as Dagster shows them, even before the first run."""
    return dg.TableSchema(columns=[_column(table, column) for column in table.columns])


def column_lineage(table: Table, names: Names = DEFAULT) -> dg.TableColumnLineage:
    """The columns of an export, each from its own in m3ter's entity. What m3ter does not have comes from nowhere."""
    source = names.source(table.name)
    columns = [one.name for one in table.columns if one.api_field or one.parent_field]
    return dg.TableColumnLineage({name: [dg.TableColumnDep(source, name)] for name in columns})


def _source(entity: Entity, names: Names) -> dg.AssetSpec:
    """An entity in m3ter. It depends on the entities that its columns refer to, except itself."""
    referred = sorted({name for one in entity.references for name in one.to} - {entity.name})
    return dg.AssetSpec(
        names.source(entity.name),
        deps=[names.source(name) for name in referred],
        description=f"{entity.title} as m3ter has it, which is read and never written; `{entity.name}` is its export. "
        f"{entity.description}",
        group_name=names.own(GROUP),
        kinds={"m3ter", "source"},
        metadata={"dagster/column_schema": column_schema(entity), "API list": entity.listing.path},
    )


def _column(table: Table, column: Column) -> dg.TableColumn:
    keys = [f"→ {key.entity}" for key in table.foreign_keys if key.column == column.name]
    is_key = column.name == table.primary_key
    constraints = dg.TableColumnConstraints(
        nullable=not column.required, unique=is_key, other=["primary key", *keys] if is_key else keys
    )
    return dg.TableColumn(column.name, column.type, description=column.description, constraints=constraints)
