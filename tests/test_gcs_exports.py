"""Exports to Google Cloud Storage, alone and beside S3 and a folder: everything that an export to a bucket has."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from many_exports import set_began
from nightly_exports import command, export, findings
from stores import Store

from m3ter_dagster.assets.operational import operational_assets
from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.delivery.destinations import EveryDestinationRefuses
from m3ter_dagster.delivery.signatures import Signer
from m3ter_dagster.history.log import deliveries_of
from m3ter_dagster.resources import IO_MANAGER, export_resources
from m3ter_sandbox import SampleOrganization, SandboxApi

PRODUCT = {"id": "product-1", "version": 1, "name": "Product", "dtCreated": "2026-01-01T00:00:00.000Z"}
SOME = ("account", "meter", "product")
"""Their references lead to one another."""
NIGHTLY = {"scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z", "changes": True}


@pytest.fixture
def bucket(gcs: Any) -> Any:
    return gcs.create_bucket(f"exports-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    with SandboxApi([("product", dict(PRODUCT))], requests_per_second=None) as api:
        yield api


@pytest.fixture
def exports_file(tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Writes the exports.yaml of an API, which delivers to the bucket and to `more`."""

    def write(api: SandboxApi, *more: dict[str, str]) -> None:
        lake = {"code": "lake", "destinationType": "GCS", "bucketName": bucket.name, "prefix": "m3ter"}
        codes = [one["code"] for one in (lake, *more)]
        schedule = {"code": "nightly", "operationalDataTypes": "ALL", "destinations": codes, **NIGHTLY}
        file = tmp_path / "exports.yaml"
        whole = {"destinations": [lake, *more], "schedules": [schedule], "defaultDestinations": codes}
        file.write_text(json.dumps(whole), encoding="utf-8")
        for name, value in {**api.environment, "M3TER_EXPORTS": str(file)}.items():
            monkeypatch.setenv(name, value)

    return write


def test_one_export_to_three_stores_is_verified_and_what_is_tampered_with_is_named_in_each(
    instance: dg.DagsterInstance,
    bucket: Any,
    exports_file: Callable[..., None],
    moto_store: Store,
    moto_bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    s3 = {"code": "warehouse", "bucketName": moto_bucket, "endpointUrl": moto_store.endpoint, "region": "us-east-1"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_store.endpoint)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with SandboxApi(SampleOrganization(1).records(), requests_per_second=None) as api:
        exports_file(api, s3, {"code": "folder", "destinationType": "LOCAL", "path": str(folder)})
        id = export(instance, *SOME)

    stored = deliveries_of(instance, id)["account"].objects
    assert [one.destination for one in stored] == ["lake", "warehouse", "folder"]
    assert len({one.sha256 for one in stored}) == 1
    blobs = [blob.name for blob in bucket.list_blobs()]
    assert sum("_keys" not in name for name in blobs) == 2 * len(SOME) + 1  # each file, its changes, the manifest
    contents: dict[str, Callable[[str, bytes], Any]] = {
        "gs://": lambda key, content: bucket.blob(key).upload_from_string(content),
        "s3://": lambda key, content: moto_store.client().put_object(Bucket=moto_bucket, Key=key, Body=content),
        "file://": lambda key, content: (folder / key).write_bytes(content),
    }
    for one in stored:
        manifest = one.uri.replace("type=account/", "type=manifest/").replace("account.csv", "manifest.json")
        result = command("verify", manifest, "--strict")
        assert (result.exit_code, findings(result)) == (0, []), result.output
        scheme = one.uri.partition("://")[0] + "://"
        root = {"gs://": f"gs://{bucket.name}/", "s3://": f"s3://{moto_bucket}/", "file://": f"file://{folder}/"}
        contents[scheme](one.uri.removeprefix(root[scheme]), b"x" * one.bytes)
        result = command("verify", manifest, "--destination", one.destination)
        assert result.exit_code == 1
        assert any(line.startswith("error: account: sha256: the object has ") for line in findings(result))


def test_two_exports_with_all_that_an_export_has(
    instance: dg.DagsterInstance, api: SandboxApi, bucket: Any, exports_file: Callable[..., None]
) -> None:
    exports_file(api)
    assert re.search(r"destination lake +works", command("check", "--connect").stdout)
    assert list(bucket.list_blobs()) == []
    first = export(instance, "product")
    api.records.insert("product", {**PRODUCT, "id": "product-2"})
    second = export(instance, "product")

    # The second was compared with the keys of the first, and the file of changes stands beside it.
    found = deliveries_of(instance, second)["product"].difference
    assert (found["previous"], found["added"], found["changed"]) == (first, 1, 0)
    (changes,) = (one for one in bucket.list_blobs() if one.name.endswith(f"{second}_product_changes.csv"))
    assert pl.read_csv(changes.download_as_bytes())["id"].to_list() == ["product-2"]

    # Other assets are given the file.
    seen: list[str] = []

    @dg.asset(ins={"product": dg.AssetIn(input_manager_key=IO_MANAGER)})
    def report(product: pl.LazyFrame) -> None:
        seen.extend(product.collect()["id"])

    resources = export_resources(load_exports(), load_settings())
    dg.materialize([*operational_assets(), report], selection=["report"], instance=instance, resources=resources)
    assert sorted(seen) == ["product-1", "product-2"]

    # A plan names the objects that an export would have.
    planned = command("plan", "--schedule", "nightly", "--objects").stdout.splitlines()
    assert any(one.startswith(f"gs://{bucket.name}/m3ter/orgId=") and one.endswith("_product.csv") for one in planned)

    # Keys files of old exports go, and nothing else.
    set_began(instance, first, datetime.now(UTC) - timedelta(days=100))
    before = {one.name for one in bucket.list_blobs()}
    assert command("prune", "--keep", "30d", "--yes").exit_code == 0
    (gone,) = before - {one.name for one in bucket.list_blobs()}
    assert gone.endswith(f"/{first}_product_keys.parquet")


def test_nothing_is_read_for_a_bucket_that_is_not_there(
    instance: dg.DagsterInstance, api: SandboxApi, bucket: Any, exports_file: Callable[..., None]
) -> None:
    exports_file(api)
    bucket.delete()
    advice = f"NotFound: create the bucket '{bucket.name}', or correct bucketName of the destination"
    assert advice in command("check", "--connect").stdout.replace("\n", " ")
    with pytest.raises(dg.DagsterResourceFunctionError) as failed:
        export(instance, "product")
    assert isinstance(failed.value.__cause__, EveryDestinationRefuses)
    assert advice in str(failed.value.__cause__)


def test_a_signed_manifest_is_verified_and_what_is_altered_is_named(
    instance: dg.DagsterInstance,
    api: SandboxApi,
    bucket: Any,
    exports_file: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exports_file(api)
    key, public = Ed25519PrivateKey.generate(), tmp_path / "public.pem"
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    monkeypatch.setenv("M3TER_SIGNING_KEY", pem)
    export(instance, "product")
    (manifest,) = (blob for blob in bucket.list_blobs() if blob.name.endswith("_manifest.json"))
    address = f"gs://{bucket.name}/{manifest.name}"
    result = command("verify", address, "--public-key", public, "--strict")
    assert (result.exit_code, f"signed with the key {Signer(pem).fingerprint}" in result.stdout) == (0, True)
    manifest.upload_from_string(manifest.download_as_bytes() + b" ")
    result = command("verify", address, "--public-key", public)
    assert (result.exit_code, len(findings(result))) == (1, 1)
    assert findings(result)[0].startswith("error: manifest: signature: it is not what was signed with the key ")
    bucket.blob(f"{manifest.name}.sig").delete()
    assert (
        f"signature: there is no {address}.sig; it was removed."
        in command("verify", address, "--public-key", public).stdout
    )
