"""The entities as dbt sources (https://docs.getdbt.com/reference/source-properties), for models on what is exported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from m3ter_dagster.model.entity import Column, Entity

TYPES_OF: Mapping[str, tuple[str, str, str, str, str]] = {
    "duckdb": ("VARCHAR", "BIGINT", "DOUBLE", "BOOLEAN", "JSON"),
    "postgres": ("text", "bigint", "double precision", "boolean", "jsonb"),
    "snowflake": ("VARCHAR", "NUMBER(38, 0)", "FLOAT", "BOOLEAN", "VARCHAR"),
    "bigquery": ("STRING", "INT64", "FLOAT64", "BOOL", "STRING"),
    "redshift": ("varchar(65535)", "bigint", "double precision", "boolean", "varchar(65535)"),
    "databricks": ("STRING", "BIGINT", "DOUBLE", "BOOLEAN", "STRING"),
}
"""What each warehouse calls a string, an integer, a number, a boolean, and JSON as docs/loading.md loads it."""


def dbt_sources(
    known: Iterable[Entity],
    *,
    name: str = "m3ter",
    schema: str | None = None,
    database: str | None = None,
    warehouse: str = "duckdb",
    files: str | None = None,
) -> dict[str, Any]:
    """A file of dbt sources with one table per entity, as a value for YAML.

    `files`, only for dbt-duckdb, is where the CSV files of an export are, with `{name}` for the entity: the tables then
    are the files, read with the published types. Keys become data tests; null is allowed in a foreign key.
    """
    source = {
        "name": name,
        "description": "m3ter's Operational Data Export: one table per entity.",
        **({"database": database} if database else {}),
        "schema": schema or name,
        "tables": [_table(entity, name, warehouse, files) for entity in known],
    }
    return {"version": 2, "sources": [source]}


def _table(entity: Entity, source: str, warehouse: str, files: str | None) -> dict[str, Any]:
    """Dagster takes the table for the asset of its export, and so shows both in one lineage."""
    location = {"formatter": "template", "external_location": _read_csv(entity, files)} if files else {}
    return {
        "name": entity.name,
        "description": entity.description,
        "config": {"meta": {"dagster": {"asset_key": [entity.name]}, **location}},
        "columns": [_column(column, entity, source, warehouse) for column in entity.columns],
    }


def _column(column: Column, entity: Entity, source: str, warehouse: str) -> dict[str, Any]:
    """Quoted, since several warehouses keep the capitals of names only so."""
    id_column = (
        '"id"' if warehouse == "snowflake" else "id"
    )  # Snowflake alone turns a name without quotes into capitals
    tests: list[Any] = ["unique"] if column.name == entity.primary_key else []
    tests += ["not_null"] if column.required else []
    tests += [
        {"relationships": {"arguments": {"to": f"source('{source}', '{key.entity}')", "field": id_column}}}
        for key in entity.foreign_keys
        if key.column == column.name
    ]
    return {
        "name": column.name,
        "description": column.description,
        "data_type": data_type(column, warehouse),
        "quote": True,
        **({"data_tests": tests} if tests else {}),
    }


def data_type(column: Column, warehouse: str) -> str:
    """What the warehouse calls the type of this column."""
    string, integer, number, boolean, json = TYPES_OF[warehouse]
    names = {"string": string, "integer": integer, "number": number, "boolean": boolean}
    return names.get(column.type, json)


def _read_csv(entity: Entity, files: str) -> str:
    """DuckDB's call that reads the file; `$` is doubled, since dbt-duckdb takes the whole for a template."""
    columns = ", ".join(f"'{column.name}': '{data_type(column, 'duckdb')}'" for column in entity.columns)
    path = files.replace("{name}", entity.name).replace("$", "$$")
    dialect = """header = true, delim = ',', quote = '"', escape = '"'"""
    return f"read_csv('{path}', {dialect}, columns = {{{columns}}})"
