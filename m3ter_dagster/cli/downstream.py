"""What loads and models the exported files, generated from schemas/: dbt sources and a data contract."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import click
import yaml

from m3ter_dagster.cli.export import chosen_entities
from m3ter_dagster.cli.terminal import configured
from m3ter_dagster.model.data_contract import data_contract as contract_of
from m3ter_dagster.model.dbt_sources import TYPES_OF
from m3ter_dagster.model.dbt_sources import dbt_sources as sources_of
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity

PLACEHOLDER = "{name}"

entities_option = click.option(
    "--entities", "names", metavar="NAMES", help="Comma-separated: account,BILLS,...; ALL_AND_REFERENCES. Default: ALL."
)


def _with_placeholder(_context: click.Context, _option: click.Parameter, files: str | None) -> str | None:
    if files is not None and PLACEHOLDER not in files:
        raise click.BadParameter(
            f"write {PLACEHOLDER} where the name of the entity stands, as in 'copies/{{name}}.csv'."
        )
    return files


@click.command()
@entities_option
@click.option("--name", default="m3ter", show_default=True, help="Name of the source.")
@click.option("--schema", help="Schema of the tables. Default: the name.")
@click.option("--database", help="Database of the tables. Default: that of dbt's profile.")
@click.option("--warehouse", type=click.Choice(list(TYPES_OF)), default="duckdb", show_default=True)
@click.option(
    "--files",
    metavar="PATTERN",
    callback=_with_placeholder,
    help="For dbt-duckdb: the CSV files instead of tables, with {name} for the entity.",
)
def dbt_sources(
    names: str | None, name: str, schema: str | None, database: str | None, warehouse: str, files: str | None
) -> None:
    """Print the entities as dbt sources, with types, descriptions and tests of their keys."""
    if files and warehouse != "duckdb":
        raise click.UsageError("--files is for dbt-duckdb; leave out --warehouse, or load the files into tables.")
    sources = sources_of(_chosen(names), name=name, schema=schema, database=database, warehouse=warehouse, files=files)
    click.echo(_yaml(sources), nl=False)


@click.command()
@entities_option
@click.option(
    "--files",
    metavar="PATTERN",
    callback=_with_placeholder,
    help="Where the CSV files are, a path or s3://..., with {name} for the entity.",
)
def data_contract(names: str | None, files: str | None) -> None:
    """Print what exported files hold as a data contract (Open Data Contract Standard 3.1)."""
    if files and "://" in files and not files.startswith("s3://"):
        raise click.UsageError("a data contract says where files are by a path or by s3://; leave out --files.")
    contract = contract_of(_chosen(names), version=version("m3ter-dagster"), files=files)
    click.echo(_yaml(contract), nl=False)


def _chosen(names: str | None) -> list[Entity]:
    """The entities without their foreign keys to others: a reference to a table that nobody loads cannot be tested."""
    known, chosen = configured(entities), chosen_entities(names)
    return [
        replace(known[one], foreign_keys=tuple(key for key in known[one].foreign_keys if key.entity in chosen))
        for one in chosen
    ]


def _yaml(value: dict[str, Any]) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
