"""Exports to a folder, without any store: everything that an export to a bucket has."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from many_exports import set_began
from nightly_exports import command, export, findings

from m3ter_dagster.assets.operational import operational_assets
from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.delivery.destinations import EveryDestinationRefuses
from m3ter_dagster.history.log import deliveries_of
from m3ter_dagster.resources import IO_MANAGER, export_resources
from m3ter_sandbox import SandboxApi

PRODUCT = {"id": "product-1", "version": 1, "name": "Product", "dtCreated": "2026-01-01T00:00:00.000Z"}
SCHEDULE = {
    **{"code": "nightly", "operationalDataTypes": ["PRODUCTS"], "destinations": ["folder"], "changes": True},
    **{"scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z"},
}


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    with SandboxApi([("product", dict(PRODUCT))], requests_per_second=None) as api:
        yield api


@pytest.fixture
def folder(api: SandboxApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the only destination; nothing of AWS is in the environment."""
    folder = tmp_path / "exports"
    folder.mkdir()
    exports = tmp_path / "exports.yaml"
    destination = {"code": "folder", "destinationType": "LOCAL", "path": str(folder)}
    exports.write_text(json.dumps({"destinations": [destination], "schedules": [SCHEDULE]}), encoding="utf-8")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {**api.environment, "M3TER_EXPORTS": str(exports)}.items():
        monkeypatch.setenv(name, value)
    return folder


def definitions() -> dg.Definitions:
    return build_definitions(load_exports(), load_settings())


def file_of(folder: Path, export_id: str, name: str) -> Path:
    (found,) = folder.rglob(f"{export_id}_{name}")
    return found


def test_two_exports_with_all_that_an_export_has(instance: dg.DagsterInstance, api: SandboxApi, folder: Path) -> None:
    first = export(instance, "product")
    api.records.insert("product", {**PRODUCT, "id": "product-2"})
    second = export(instance, "product")

    # The second was compared with the keys of the first, and the file of changes stands beside it.
    found = deliveries_of(instance, second)["product"].difference
    assert (found["previous"], found["added"], found["changed"]) == (first, 1, 0)
    assert pl.read_csv(file_of(folder, second, "product_changes.csv"))["id"].to_list() == ["product-2"]

    # Other assets are given the file.
    seen: list[str] = []

    @dg.asset(ins={"product": dg.AssetIn(input_manager_key=IO_MANAGER)})
    def report(product: pl.LazyFrame) -> None:
        seen.extend(product.collect()["id"])

    resources = export_resources(load_exports(), load_settings())
    dg.materialize([*operational_assets(), report], selection=["report"], instance=instance, resources=resources)
    assert sorted(seen) == ["product-1", "product-2"]

    # Keys files of old exports go, and nothing else.
    set_began(instance, first, datetime.now(UTC) - timedelta(days=100))
    before = set(folder.rglob("*"))
    assert command("prune", "--keep", "30d", "--yes").exit_code == 0
    assert {path.name for path in before - set(folder.rglob("*"))} == {f"{first}_product_keys.parquet"}


def test_an_export_is_verified_by_its_address_or_path(
    instance: dg.DagsterInstance, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = export(instance, "product")
    manifest = file_of(folder, id, "manifest.json")
    monkeypatch.chdir(manifest.parent)
    for address in (f"file://{manifest}", manifest, manifest.name):
        result = command("verify", address, "--strict")
        assert (result.exit_code, findings(result)) == (0, []), result.output
    assert command("verify", manifest, "--destination", "folder").exit_code == 0

    product = file_of(folder, id, "product.csv")
    (product.parent / f"{id}_product.csv.old").touch()
    product.write_text(product.read_text().replace("Product", "Produce"))
    sha256, unnamed = sorted(findings(command("verify", manifest)))[::-1]
    assert sha256.startswith("error: product: sha256: the object has ")
    assert unnamed.startswith(f"error: product: object: the manifest does not name file://{product}.old, which bears")

    copy = shutil.copytree(folder, tmp_path / "copy")
    product.unlink()
    result = command("verify", file_of(copy, id, "manifest.json"))
    assert result.exit_code == 1
    assert any(f"there is no object file://{product}" in one for one in findings(result))
    assert any("in another folder than its own; that object is checked" in one for one in findings(result))


WRONG_USE = [
    (["s3://bucket/x_manifest.json", "--destination", "folder"], "'folder' is of type LOCAL, and the manifest is not "),
    (["file://host/x_manifest.json"], "'file://host/x_manifest.json' is not the address of a manifest; write s3://"),
    (["x_manifest.json", "--region", "eu-west-1"], "the command has the unknown key 'region'; known are code, "),
]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("arguments", "words"), WRONG_USE)
def test_wrong_use_ends_with_2(arguments: list[str], words: str) -> None:
    result = command("verify", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_a_connection_is_checked_before_and_at_the_start_of_a_run(instance: dg.DagsterInstance, folder: Path) -> None:
    assert "destination folder  works" in command("check", "--connect").stdout
    assert not any(path.is_file() for path in folder.rglob("*"))
    shutil.rmtree(folder)
    assert f"NoSuchFolder: create the folder {folder}, or mount the drive that has it" in command(
        "check", "--connect"
    ).stdout.replace("\n", " ")
    with pytest.raises(dg.DagsterResourceFunctionError) as failed:
        export(instance, "product")
    assert isinstance(failed.value.__cause__, EveryDestinationRefuses)
