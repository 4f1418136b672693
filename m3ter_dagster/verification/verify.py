"""A delivered export against its manifest, entity by entity, with one of its files on disk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from m3ter_dagster.delivery.fingerprints import PART_SIZE, sha256_of
from m3ter_dagster.verification.data_package import DataPackage, Resource
from m3ter_dagster.verification.findings import Finding, Report, VerifiedEntity
from m3ter_dagster.verification.objects import ObjectMissing, ObjectUnreadable, parts_of
from m3ter_dagster.verification.references import check_references
from m3ter_dagster.verification.rows import check_rows

Fetch = Callable[[str, Path], None]
"""Downloads the object of a uri; ObjectMissing or ObjectUnreadable if that cannot be."""
Found = Callable[[Sequence[Finding]], None]


def verify(
    package: DataPackage, bucket: str, *, fetch: Fetch, folder: Path, found: Found, beside: Iterable[Finding] = ()
) -> Report:
    """Check everything that the manifest in `bucket` says. `found` is told what each step found.

    `beside` is what was found without the manifest's help.
    """
    findings = list(beside)
    found(findings)
    entities: list[VerifiedEntity] = []
    keys: dict[str, Path] = {}
    owners = {one.sha256: one.entity for one in package.resources}
    for resource in package.resources:
        entity, about = _verify_entity(resource, owners, fetch, folder, keys)
        about = [*_elsewhere(resource, bucket), *_of_another(resource, package.export.id), *about]
        entities.append(entity)
        findings += about
        found(about)
    references, about = check_references(package, keys)
    found(about)
    return Report(entities, references, [*findings, *about])


def _verify_entity(
    resource: Resource, owners: Mapping[str, str], fetch: Fetch, folder: Path, keys: dict[str, Path]
) -> tuple[VerifiedEntity, list[Finding]]:
    """The file is gone afterwards; its keys stay in `keys`."""
    file, kept = folder / f"{resource.name}.csv", folder / f"{resource.name}.parquet"
    try:
        fetch(resource.path, file)
        size = file.stat().st_size
        checked = check_rows(file, resource, kept)
        findings = [*_content_findings(file, size, resource, owners), *checked.findings]
    except (ObjectMissing, ObjectUnreadable) as error:
        return VerifiedEntity(resource.entity, None, None), [Finding(resource.entity, "object", str(error))]
    finally:
        file.unlink(missing_ok=True)
    if checked.has_keys:
        keys[resource.name] = kept
    return VerifiedEntity(resource.entity, checked.rows, size), findings


def _content_findings(file: Path, size: int, resource: Resource, owners: Mapping[str, str]) -> list[Finding]:
    findings = []
    with file.open("rb") as content:
        sha256 = sha256_of(iter(partial(content.read, PART_SIZE), b""))
    if sha256 != resource.sha256:
        owner = f", which is the file of {owners[sha256]}" if sha256 in owners else ""
        says = f"the object has {sha256}{owner}, and the manifest says {resource.sha256}"
        findings.append(Finding(resource.entity, "sha256", says))
    if size != resource.bytes:
        says = f"the object has {size:,} bytes and the manifest says {resource.bytes:,}"
        findings.append(Finding(resource.entity, "size", says))
    return findings


def _of_another(resource: Resource, export_id: str) -> list[Finding]:
    """Every file of an export bears its id."""
    if resource.path.rsplit("/", 1)[-1].startswith(f"{export_id}_"):
        return []
    says = f"the manifest is of export {export_id} and names {resource.path}, which does not bear that id"
    return [Finding(resource.entity, "object", says)]


def _elsewhere(resource: Resource, bucket: str) -> list[Finding]:
    """A copied manifest still names the objects that it was written for."""
    other, _ = parts_of(resource.path)
    if other == bucket:
        return []
    says = f"the manifest names {resource.path}, in another bucket than its own; that object is checked"
    return [Finding(resource.entity, "object", says, severity="warning")]
