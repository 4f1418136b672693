"""m3ter-dagster verify: a delivered export against its manifest, without Dagster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError

from m3ter_dagster.cli.terminal import Unusable, as_json, configured, print_json, print_table, printable
from m3ter_dagster.config import DESTINATIONS, Destination, LocalDestination, load_exports
from m3ter_dagster.config.wording import refusals
from m3ter_dagster.model.suggestions import known_names
from m3ter_dagster.temporary_folder import TemporaryFolder

if TYPE_CHECKING:
    from m3ter_dagster.delivery.signatures import Verifier
    from m3ter_dagster.delivery.store import Store
    from m3ter_dagster.verification.data_package import DataPackage
    from m3ter_dagster.verification.findings import Finding, Report

MANIFEST = re.compile(r"(s3|gs)://(?P<bucket>[^/]+)/.+|file:///.+")
MAX_ATTEMPTS = 5
"""Few, because a person is waiting."""
LARGEST_MANIFEST = 64 * 1024 * 1024


@click.command()
@click.argument("manifest", metavar="MANIFEST")
@click.option("--destination", "code", metavar="CODE", help="Read with this destination's role, region and endpoint.")
@click.option("--endpoint-url", metavar="URL", help="The address of an S3-compatible store.")
@click.option("--region", metavar="REGION", help="The bucket's region. Default: the environment's.")
@click.option(
    "--public-key",
    "key_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The manifest must be signed by the owner of this Ed25519 key (PEM).",
)
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@as_json
def verify(
    manifest: str,
    code: str | None,
    endpoint_url: str | None,
    region: str | None,
    key_file: Path | None,
    strict: bool,
    as_json: bool,
) -> None:
    """Check a delivered export against its manifest; exit code 0 only if it is whole.

    MANIFEST is its address, s3://bucket/.../ID_manifest.json, gs://... or file:///..., or the path of a file.

    Errors are what went wrong with the delivery: an object that is missing or has another size, sha256, number of rows
    or header than the manifest says, a cell that does not read as its type, an id that is missing or stands twice, an
    object of the export that the manifest does not name (where s3:ListBucket is not allowed, a note says so).

    Warnings are rows that refer to a row which the export does not have: m3ter itself can keep references to what was
    deleted. They change the exit code only with --strict. A row that changed after its parent entity was read is a
    note and never does. Empty references are fine.

    With --public-key, a manifest that has no signature, or not that of this key, is an error, and nothing that it says
    is looked at.

    It needs s3:GetObject (storage.objects.get), with the ordinary credentials of AWS or Google or those of
    --destination, and neither Dagster nor m3ter.
    One file at a time is downloaded to the temporary folder (TMPDIR) and removed again; the columns with its keys stay
    there, compressed, until the end. Memory does not grow with the files, apart from a few bytes per row.

    Exit codes: 0 all is well, 1 something is wrong, 2 wrong use (address, credentials, bucket, key).
    """
    from m3ter_dagster.delivery.destinations import store_of
    from m3ter_dagster.delivery.local import address_of
    from m3ter_dagster.verification.findings import counted

    if "://" not in manifest and manifest.endswith(".json"):
        manifest = address_of(Path(manifest).absolute())
    found = MANIFEST.fullmatch(manifest)
    if not found:
        raise click.UsageError(
            f"{manifest!r} is not the address of a manifest; write s3://bucket/.../<export id>_manifest.json, "
            "or the path of a file."
        )
    options = {"bucketName": found["bucket"], "endpointUrl": endpoint_url, "region": region}
    given = {name: value for name, value in options.items() if value is not None}
    store = store_of(_destination(manifest.partition(":")[0], code, given), max_attempts=MAX_ATTEMPTS)
    key = _public_key(key_file) if key_file else None
    package = _package(store, manifest, key, as_json=as_json)
    about = f"export {package.export.id}, due {package.export.due}"
    click.echo(f"{printable(about)}: {counted(len(package.resources), 'file')}", err=as_json)
    if key:
        click.echo(f"signed with the key {key.fingerprint}", err=as_json)
    report = _verified(package, manifest, store, as_json=as_json)
    if as_json:
        signed_by = key.fingerprint if key else None
        about = {"export": package.export.id, "due": package.export.due, "signedBy": signed_by}
        print_json({"manifest": manifest, **about, **asdict(report)})
    else:
        _print(report)
    raise SystemExit(1 if report.count("error") or (strict and report.count("warning")) else 0)


def _destination(scheme: str, code: str | None, given: Mapping[str, str]) -> Destination:
    """The destination to read with: that of the code, or the ordinary credentials; options override its fields.

    Files are read as the user may, and need none of these.
    """
    kind, model = next(item for item in DESTINATIONS.items() if item[1].scheme == scheme)
    base: dict[str, Any] = {"code": "verify", "destinationType": kind}
    if model is LocalDestination:
        base["path"] = "/"
    if code is not None:
        known = {one.code: one for one in configured(load_exports).destinations}
        if code not in known:
            raise click.UsageError(f"--destination: there is no destination {code!r}; {known_names(code, known)}")
        if not isinstance(known[code], model):
            kind = known[code].destination_type
            raise click.UsageError(f"--destination: {code!r} is of type {kind}, and the manifest is not there.")
        base = known[code].model_dump(by_alias=True, exclude={"name"}, exclude_none=True)
    try:
        return model.model_validate({**base, **given})
    except ValidationError as error:
        words = (f"the command {one.words}." for one in refusals(error, model))
        raise click.UsageError("\n".join(words)) from None


def _public_key(file: Path) -> Verifier:
    from m3ter_dagster.delivery.signatures import KeyUnusable, Verifier

    try:
        return Verifier(file.read_bytes())
    except OSError as error:
        raise Unusable(f"--public-key: {file} cannot be read: {error.strerror}.") from None
    except KeyUnusable as error:
        raise Unusable(f"--public-key: {file} {error}.") from None


def _package(store: Store, manifest: str, key: Verifier | None, *, as_json: bool) -> DataPackage:
    from m3ter_dagster.delivery.store import ObjectMissing, ObjectUnreadable
    from m3ter_dagster.verification.data_package import NotAManifest, read_data_package
    from m3ter_dagster.verification.signature import NotSigned, check_signature

    try:
        content = store.read(manifest, at_most=LARGEST_MANIFEST)
        package = read_data_package(content)
        if key:
            check_signature(content, package.export.signed_by, manifest, store=store, key=key)
        return package
    except ObjectMissing as error:
        click.echo(f"error: manifest: {error}: the export is not finished, or the address is wrong.", err=as_json)
    except NotAManifest as error:
        click.echo(printable(f"error: manifest: {error}"), err=as_json)
    except NotSigned as error:
        click.echo(printable(f"error: manifest: signature: {error}"), err=as_json)
    except ObjectUnreadable as error:
        raise Unusable(str(error)) from None
    raise SystemExit(1)


def _verified(package: DataPackage, manifest: str, store: Store, *, as_json: bool) -> Report:
    from m3ter_dagster.verification.verify import verify as verify_export

    def print_findings(findings: Sequence[Finding]) -> None:
        for one in findings:
            click.echo(printable(str(one)), err=as_json)

    with TemporaryFolder() as folder:
        try:
            return verify_export(package, manifest, store=store, folder=folder, found=print_findings)
        except OSError as error:
            words = f"{folder}: {error.strerror or error}: set TMPDIR to a folder with room for the largest file."
            raise Unusable(words) from None


def _print(report: Report) -> None:
    from m3ter_dagster.verification.findings import counted

    if report.references:
        print_table(
            ("foreign key", "to", "result"),
            [(f"{one.entity}.{one.column}", one.parent, str(one)) for one in report.references],
        )
        click.echo()
    numbers = [
        (one.entity, _number(one.rows), _number(one.bytes), report.result(one.entity)) for one in report.entities
    ]
    print_table(("entity", "rows", "bytes", "result"), numbers)
    click.echo(f"{counted(report.count('error'), 'error')}, {counted(report.count('warning'), 'warning')}")


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
