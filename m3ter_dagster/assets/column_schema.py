"""An entity's columns as Dagster shows them, before the first run too."""

from __future__ import annotations

import dagster as dg

from m3ter_dagster.model.entities import Column, Table


def column_schema(entity: Table) -> dg.TableSchema:
    return dg.TableSchema(columns=[_column(entity, column) for column in entity.columns])


def _column(entity: Table, column: Column) -> dg.TableColumn:
    keys = [f"→ {key.entity}" for key in entity.foreign_keys if key.column == column.name]
    is_key = column.name == entity.primary_key
    constraints = dg.TableColumnConstraints(
        nullable=not column.required, unique=is_key, other=["primary key", *keys] if is_key else keys
    )
    return dg.TableColumn(column.name, column.type, description=column.description, constraints=constraints)
