"""Signed manifests: each is signed before it appears, and verify names what is wrong with a signature."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from m3ter_dagster.cli import main
from m3ter_dagster.config import ConfigError, load_exports, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.delivery.local import LocalStore
from m3ter_dagster.delivery.signatures import A_PRIVATE_KEY, A_PUBLIC_KEY, Signer
from m3ter_dagster.history.log import EXPORT_JOB, MANIFEST
from m3ter_sandbox import SandboxApi

PRODUCT = {"id": "product-1", "version": 1, "name": "Product", "dtCreated": "2026-01-01T00:00:00.000Z"}


def pem(key: Any, password: bytes | None = None) -> str:
    secrecy = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secrecy).decode()


KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PUBLIC, OTHERS_PUBLIC = (
    one.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for one in (KEY, OTHER)
)
NAME, OTHERS_NAME = Signer(pem(KEY)).fingerprint, Signer(pem(OTHER)).fingerprint


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That of the only destination; manifests are signed with KEY."""
    folder, exports, key = tmp_path / "exports", tmp_path / "exports.yaml", tmp_path / "key.pem"
    folder.mkdir()
    destination = {"code": "folder", "destinationType": "LOCAL", "path": str(folder)}
    exports.write_text(json.dumps({"destinations": [destination]}), encoding="utf-8")
    key.write_text(pem(KEY))
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    (tmp_path / "other.pem").write_bytes(OTHERS_PUBLIC)
    with SandboxApi([("product", dict(PRODUCT))], requests_per_second=None) as api:
        environment = {**api.environment, "M3TER_EXPORTS": str(exports), "M3TER_SIGNING_KEY_FILE": str(key)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield folder


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory, where a run costs a third."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def export(instance: dg.DagsterInstance) -> None:
    keys = [dg.AssetKey("product"), dg.AssetKey(MANIFEST)]
    job = build_definitions(load_exports(), load_settings()).resolve_job_def(EXPORT_JOB)
    job.execute_in_process(instance=instance, asset_selection=keys)


@pytest.fixture
def manifest(folder: Path, instance: dg.DagsterInstance) -> Path:
    export(instance)
    (found,) = folder.rglob("*_manifest.json")
    return found


def signature_of(manifest: Path) -> Path:
    return manifest.with_name(f"{manifest.name}.sig")


def verify(manifest: Path, key: Path, *options: str) -> Result:
    return CliRunner().invoke(main, ["verify", str(manifest), "--public-key", str(key), *options])


def test_a_signature_stands_before_its_manifest(
    folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, put = [], LocalStore.put

    def noted(store: LocalStore, file: Path, key: str, **more: Any) -> Any:
        keys.append(key.rpartition("_")[2])
        return put(store, file, key, **more)

    monkeypatch.setattr(LocalStore, "put", noted)
    export(instance)
    assert [one for one in keys if one.startswith("manifest")] == ["manifest.json.sig", "manifest.json"]
    assert not list(folder.rglob("*PRIVATE*"))


def test_verify_says_whose_signature_it_is(manifest: Path, tmp_path: Path) -> None:
    result = verify(manifest, tmp_path / "public.pem", "--strict")
    assert (result.exit_code, f"signed with the key {NAME}" in result.stdout) == (0, True), result.output
    found = json.loads(verify(manifest, tmp_path / "public.pem", "--json").stdout)
    assert (found["signedBy"], found["findings"]) == (NAME, [])
    assert json.loads(manifest.read_text())["m3ter:export"]["signedBy"] == NAME


def test_openssl_makes_keys_and_verifies_as_documented(
    folder: Path, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[1] / "docs" / "security.md").read_text(encoding="utf-8")
    *make, check = re.findall(r"^openssl [^#\n]*", page, re.MULTILINE)
    for command in make:
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("M3TER_SIGNING_KEY_FILE", str(tmp_path / "signing-key.pem"))
    export(instance)
    (manifest,) = folder.rglob("*_manifest.json")
    assert verify(manifest, tmp_path / "public-key.pem").exit_code == 0
    command = check.replace("ID_manifest.json", str(manifest)).split()
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("Signature Verified Successfully")


def altered(manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace('"m3ter:rows": 1', '"m3ter:rows": 2'))


def signed_again(manifest: Path) -> None:
    """By somebody who can write there and has a key of his own, but leaves the name of the first."""
    altered(manifest)
    signature_of(manifest).write_bytes(OTHER.sign(manifest.read_bytes()))


ALTERED = (
    f"it is not what was signed with the key {NAME}: it or its signature was altered afterwards, or it was signed with "
    "another key."
)
ANOTHER = f"it says that it is signed with the key {NAME}, and the one given is {OTHERS_NAME}."


@pytest.mark.parametrize(
    ("change", "key", "says"),
    [
        (lambda one: signature_of(one).unlink(), "public", "there is no {uri}.sig; it was removed."),
        (lambda _: None, "other", ANOTHER),
        (altered, "public", ALTERED),
        (signed_again, "public", ALTERED),
        (lambda one: signature_of(one).write_bytes(b"short"), "public", ALTERED),
        (lambda one: signature_of(one).write_bytes(bytes(1000)), "public", ALTERED),
    ],
    ids=["removed", "wrong key", "altered", "signed again", "short", "long"],
)
def test_what_is_wrong_with_a_signature_is_named(
    change: Callable[[Path], object], key: str, says: str, manifest: Path, tmp_path: Path
) -> None:
    change(manifest)
    result = verify(manifest, tmp_path / f"{key}.pem")
    words = says.replace("{uri}", f"file://{manifest}")
    assert (result.exit_code, result.stdout) == (1, f"error: manifest: signature: {words}\n")
    result = verify(manifest, tmp_path / f"{key}.pem", "--json")
    assert (result.exit_code, result.stdout) == (1, "")


def test_an_export_without_a_key_is_not_signed(
    folder: Path, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("M3TER_SIGNING_KEY_FILE")
    export(instance)
    (manifest,) = folder.rglob("*_manifest.json")
    assert not signature_of(manifest).exists()
    result = verify(manifest, tmp_path / "public.pem")
    assert (result.exit_code, "its exporter does not sign, or the signature was removed." in result.stdout) == (1, True)
    assert CliRunner().invoke(main, ["verify", str(manifest)]).exit_code == 0


@pytest.mark.parametrize("content", [b"no key", pem(KEY).encode(), None], ids=["text", "private", "missing"])
def test_a_public_key_that_is_none(content: bytes | None, manifest: Path, tmp_path: Path) -> None:
    key = tmp_path / "key-of-another"
    says = f"{key} cannot be read: No such file or directory"
    if content:
        key.write_bytes(content)
        says = f"{key} is no Ed25519 public key; {A_PUBLIC_KEY}"
    result = verify(manifest, key)
    assert (result.exit_code, result.stderr) == (2, f"Error: --public-key: {says}.\n")


@pytest.mark.parametrize(
    "text", ["no key", pem(generate_private_key(SECP256R1())), pem(KEY, b"password"), PUBLIC.decode()]
)
def test_a_signing_key_that_is_none_ends_an_export_before_anything_is_read(
    text: str, folder: Path, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_text(text)
    says = f"the environment has a M3TER_SIGNING_KEY that is no Ed25519 key; {A_PRIVATE_KEY}."
    assert refusal_of_an_export(instance) == says
    assert list(folder.iterdir()) == []
    for command in ("check", "export"):
        result = CliRunner().invoke(main, [command])
        assert (result.exit_code, result.stderr) == (2, f"Error: {says}\n")


def refusal_of_an_export(instance: dg.DagsterInstance) -> str:
    with pytest.raises(dg.DagsterError) as refused:
        export(instance)
    assert isinstance(refused.value.__cause__, ConfigError)
    return str(refused.value.__cause__)


def test_a_key_that_cannot_be_read_lets_the_definitions_load(
    folder: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance
) -> None:
    monkeypatch.setenv("M3TER_SIGNING_KEY_FILE", "gone")
    says = "the environment has the M3TER_SIGNING_KEY_FILE 'gone', which cannot be read: No such file or directory."
    assert refusal_of_an_export(instance) == says
    assert list(folder.iterdir()) == []


def test_check_names_the_key_and_says_what_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder
    result = CliRunner().invoke(main, ["check"])
    assert f"manifests are signed with the key {NAME}\n" in result.stdout
    assert "PRIVATE" not in result.output
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    result = CliRunner().invoke(main, ["check"])
    needs = "the environment has a M3TER_SIGNING_KEY that needs the package cryptography: pip install cryptography."
    assert (result.exit_code, result.stderr) == (2, f"Error: {needs}\n")
