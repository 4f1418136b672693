"""dbt sources and the data contract say what the descriptors in schemas/ say."""

from __future__ import annotations

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import polars as pl
import pytest
import yaml
from click.testing import CliRunner, Result

from m3ter_dagster.cli import main
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.data_contract import data_contract
from m3ter_dagster.model.dbt_sources import TYPES_OF, dbt_sources
from m3ter_dagster.model.entities import entities

SCHEMAS = Path(__file__).parents[1] / "schemas"
DESCRIPTORS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(SCHEMAS.glob("*.json"))}
EXAMPLE = SCHEMAS.parent / "examples" / "revenue"
EXAMPLE_README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
DUCKDB_TYPES = {"string": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN"}
EVERYTHING = "ALL_AND_REFERENCES"
LINE_ITEM = entities()["bill_line_item"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def printed(*arguments: str) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return yaml.safe_load(result.stdout)


def foreign_keys(descriptor: dict[str, Any]) -> dict[str, str]:
    """Column to `entity.column`. Table Schema writes resources with dashes."""
    keys = {key["fields"]: key["reference"] for key in descriptor.get("foreignKeys", [])}
    return {column: f"{one['resource'].replace('-', '_')}.{one['fields']}" for column, one in keys.items()}


def with_itself(keys: dict[str, str], name: str) -> dict[str, str]:
    """The table itself is the empty name in a Table Schema."""
    return {column: f"{name}{target}" if target.startswith(".") else target for column, target in keys.items()}


def test_dbt_sources_are_the_descriptors() -> None:
    document = printed("dbt-sources", "--entities", EVERYTHING)
    (source,) = document["sources"]
    assert (document["version"], source["name"], source["schema"], "database" in source) == (2, "m3ter", "m3ter", False)
    assert [table["name"] for table in source["tables"]] == list(DESCRIPTORS)
    for table, descriptor in zip(source["tables"], DESCRIPTORS.values(), strict=True):
        assert table["description"] == descriptor["description"]
        assert table["config"] == {"meta": {"dagster": {"asset_key": [table["name"]]}}}
        keys = with_itself(foreign_keys(descriptor), table["name"])
        for column, field in zip(table["columns"], descriptor["fields"], strict=True):
            assert column["name"] == field["name"]
            assert column["description"] == field.get("description", "")
            assert column["data_type"] == DUCKDB_TYPES.get(field["type"], "JSON")
            assert column["quote"] is True
            assert column.get("data_tests", []) == dbt_tests(field, descriptor["primaryKey"], keys)


def dbt_tests(field: dict[str, Any], primary_key: str, keys: dict[str, str]) -> list[Any]:
    tests: list[Any] = ["unique"] if field["name"] == primary_key else []
    if field.get("constraints", {}).get("required"):
        tests.append("not_null")
    if field["name"] in keys:
        entity, column = keys[field["name"]].split(".")
        tests.append({"relationships": {"arguments": {"to": f"source('m3ter', '{entity}')", "field": column}}})
    return tests


def test_the_sources_of_the_example_are_current() -> None:
    (command,) = re.findall(r"  m3ter-dagster (dbt-sources .*?) > (models/sources.yml)", EXAMPLE_README, re.DOTALL)
    arguments = shlex.split(command[0].replace("\\\n", " "))
    committed = (EXAMPLE / command[1]).read_text(encoding="utf-8")
    assert committed == run(*arguments).stdout, "write it: examples/revenue/README.md says how"


def test_the_names_in_dbt_are_the_options() -> None:
    options = ("--name", "billing", "--schema", "raw", "--database", "lake", "--warehouse", "snowflake")
    (source,) = printed("dbt-sources", *options)["sources"]
    assert (source["name"], source["schema"], source["database"]) == ("billing", "raw", "lake")
    charge = next(table for table in source["tables"] if table["name"] == "charge")
    columns = {column["name"]: column for column in charge["columns"]}
    (reference,) = columns["accountId"]["data_tests"]
    assert reference["relationships"]["arguments"] == {"to": "source('billing', 'account')", "field": '"id"'}


@pytest.mark.parametrize("warehouse", TYPES_OF)
def test_each_warehouse_has_a_name_for_each_type(warehouse: str) -> None:
    (source,) = dbt_sources([LINE_ITEM], warehouse=warehouse)["sources"]
    types = {column["name"]: column["data_type"] for column in source["tables"][0]["columns"]}
    found = (types["id"], types["sequenceNumber"], types["subtotal"], types["deleted"], types["bandUsage"])
    assert found == TYPES_OF[warehouse]


def test_duckdb_reads_the_files_that_the_sources_name(tmp_path: Path) -> None:
    """As dbt-duckdb does: `$$` of the template is `$`."""
    import duckdb  # complains of leaks at the end of the process if a module holds it

    cells: dict[str, list[Any]] = {name: [None] for name in frame_schema(LINE_ITEM)}
    cells |= {"id": ["a"], "subtotal": [0.1], "sequenceNumber": [7], "deleted": [False], "bandUsage": ['[{"a": "\'"}]']}
    folder = tmp_path / "US$ {{ var }}"
    folder.mkdir()
    Csv().write([pl.LazyFrame(cells, schema=frame_schema(LINE_ITEM))], LINE_ITEM, folder / "bill_line_item.csv")
    (source,) = printed("dbt-sources", "--files", f"{folder}/{{name}}.csv")["sources"]
    table = next(one for one in source["tables"] if one["name"] == "bill_line_item")
    assert table["config"]["meta"]["formatter"] == "template"
    rows = f"FROM {table['config']['meta']['external_location'].replace('$$', '$')}"
    with duckdb.connect() as connection:
        types = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {rows}").fetchall()}
        (row,) = connection.execute(rows).fetchall()
    assert types == {column["name"]: column["data_type"] for column in table["columns"]}
    assert {name: value for name, value in zip(types, row, strict=True) if value is not None} == {
        "id": "a",
        "subtotal": 0.1,
        "sequenceNumber": 7,
        "deleted": False,
        "bandUsage": '[{"a": "\'"}]',
    }


@pytest.mark.parametrize("command", ["dbt-sources", "data-contract"])
def test_of_chosen_entities_only_references_among_themselves_are_left(command: str) -> None:
    result = run(command, "--entities", "BILLS,account")
    assert "productId" not in result.stdout
    document = yaml.safe_load(result.stdout)
    bill, account = document["schema"] if "schema" in document else document["sources"][0]["tables"]
    assert (bill["name"], account["name"]) == ("bill", "account")
    assert ("account.id" in str(bill)) or ("source('m3ter', 'account')" in str(bill).replace('"', ""))
    alone = run(command, "--entities", "bill").stdout
    assert "relationships" not in alone


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("dbt-sources", "--files", "a.csv"),
            "write {name} where the name of the entity stands, as in 'copies/{name}.csv'.",
        ),
        (("data-contract", "--files", "a.csv"), "write {name} where the name of the entity stands"),
        (("data-contract", "--entities", "bil"), "--entities: there is no entity 'bil'"),
        (("data-contract", "--files", "gs://acme/{name}.csv"), "by a path or by s3://; leave out --files."),
        (("dbt-sources", "--files", "{name}.csv", "--warehouse", "redshift"), "--files is for dbt-duckdb; leave out"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_the_data_contract_is_the_descriptors() -> None:
    contract = printed("data-contract", "--entities", EVERYTHING)
    assert "servers" not in contract
    assert [table["name"] for table in contract["schema"]] == list(DESCRIPTORS)
    for table, descriptor in zip(contract["schema"], DESCRIPTORS.values(), strict=True):
        assert (table["businessName"], table["description"]) == (descriptor["title"], descriptor["description"])
        keys = with_itself(foreign_keys(descriptor), table["name"])
        for found, field in zip(table["properties"], descriptor["fields"], strict=True):
            rules = field.get("constraints", {})
            is_json, is_key = field["type"] in ("object", "array"), field["name"] == descriptor["primaryKey"]
            assert (found["name"], found["description"]) == (field["name"], field.get("description", ""))
            assert found["logicalType"] == ("string" if is_json else field["type"])
            told = {"format": field.get("m3ter:format"), "minLength": rules.get("minLength")}
            assert found.get("logicalTypeOptions", {}) == {name: one for name, one in told.items() if one}
            assert found.get("required", False) == rules.get("required", False)
            assert (found.get("primaryKey", False), found.get("unique", False)) == (is_key, is_key)
            assert found.get("classification") == ("personal" if field.get("m3ter:personal") else None)
            target = keys.get(field["name"])
            assert found.get("relationships") == ([{"to": target}] if target else None)


@pytest.mark.parametrize("options", [(), ("--files", "s3://acme/{name}.csv"), ("--files", "copies/{name}.csv")])
def test_the_data_contract_is_one_of_the_standard(options: tuple[str, ...]) -> None:
    standard = json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8"))
    contract = printed("data-contract", "--entities", "account,bill", *options)
    jsonschema.Draft201909Validator(standard).validate(contract)


@pytest.mark.parametrize(
    ("place", "where"),
    [
        ("s3://acme/m3ter/{name}.csv", {"type": "s3", "location": "s3://acme/m3ter/{model}.csv"}),
        ("copies/{name}.csv", {"type": "local", "path": "copies/{model}.csv"}),
    ],
)
def test_the_data_contract_says_where_the_files_are(place: str, where: dict[str, str]) -> None:
    (server,) = data_contract([LINE_ITEM], version="1", files=place)["servers"]
    assert server == {"server": "export", **where, "format": "csv"}
