"""A delivered export against its manifest, entity by entity, with one of its files on disk at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from m3ter_dagster.delivery.store import FILE, ObjectUnreadable, Store, parts_of
from m3ter_dagster.model.changes import changes_type
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.manifest import TYPE as MANIFEST
from m3ter_dagster.usage.columns import TYPE as MEASUREMENTS
from m3ter_dagster.verification.data_package import DataPackage, Resource
from m3ter_dagster.verification.findings import Finding, Report, VerifiedEntity
from m3ter_dagster.verification.references import check_references
from m3ter_dagster.verification.rows import check_rows

Found = Callable[[Sequence[Finding]], None]


def verify(package: DataPackage, manifest: str, *, store: Store, folder: Path, found: Found) -> Report:
    """Check everything that the manifest at that uri says. `found` is called with what each step found."""
    findings = list(unnamed_objects(package, manifest, store))
    found(findings)
    verified: list[VerifiedEntity] = []
    keys: dict[str, Path] = {}
    owners = {one.sha256: one.entity for one in package.resources}
    for resource in package.resources:
        entity, about = _verify_entity(resource, owners, store, folder, keys)
        about = [*_misplaced(resource, manifest, package.export.id), *about]
        verified.append(entity)
        findings += about
        found(about)
    references, about = check_references(package, keys)
    found(about)
    return Report(verified, references, [*findings, *about])


def unnamed_objects(package: DataPackage, manifest: str, store: Store) -> Iterator[Finding]:
    """Objects with the id of the export that its manifest does not name, in the folders of its files: one per type,
    beside the manifest's.
    """
    folder, name = f"/type={MANIFEST}/", f"{MANIFEST}.json"
    if folder not in manifest or not manifest.endswith(name):
        return  # a copy, with the files elsewhere
    # Compared by key: a copied manifest is in another bucket than the paths in it.
    named = {parts_of(one.path)[1] for one in package.resources}
    has_entities = any(one.entity in entities() for one in package.resources)
    try:
        # Each kind of data has its own manifest.
        types = [type for name in entities() for type in (name, changes_type(name))] if has_entities else [MEASUREMENTS]
        before, _, start = manifest.removesuffix(name).rpartition(folder)
        there = {one.rstrip("/").rpartition("/type=")[2] for one in store.folders(f"{before}/type=")}
        for type in filter(there.__contains__, types):
            for uri in store.uris(f"{before}/type={type}/{start}"):
                if parts_of(uri)[1] not in named:
                    yield Finding(type, "object", f"the manifest does not name {uri}, which bears the export's id")
    except ObjectUnreadable as error:
        yield Finding(
            "export", "object", f"whether there are more than the manifest names is not known: {error}", severity="note"
        )


def _verify_entity(
    resource: Resource, owners: Mapping[str, str], store: Store, folder: Path, keys: dict[str, Path]
) -> tuple[VerifiedEntity, list[Finding]]:
    """Check one entity. Its file is gone afterwards; its keys stay in `keys`."""
    file, kept = folder / resource.file_name, folder / f"{resource.name}-keys.parquet"
    try:
        size = store.stat(resource.path).bytes
        if size > resource.bytes:  # it is wrong whatever it holds, and might fill the disk
            says = f"the object has {size:,} bytes and the manifest says {resource.bytes:,}; it is not downloaded"
            return VerifiedEntity(resource.entity, None, size), [Finding(resource.entity, "size", says)]
        store.fetch(resource.path, file)
        size = file.stat().st_size
        checked = check_rows(file, resource, kept)
        findings = [*_content_findings(file, size, resource, owners), *checked.findings]
    except ObjectUnreadable as error:
        return VerifiedEntity(resource.entity, None, None), [Finding(resource.entity, "object", str(error))]
    finally:
        file.unlink(missing_ok=True)
    if checked.has_keys:
        keys[resource.name] = kept
    return VerifiedEntity(resource.entity, checked.rows, size), findings


def _content_findings(file: Path, size: int, resource: Resource, owners: Mapping[str, str]) -> list[Finding]:
    findings = []
    with file.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if sha256 != resource.sha256:
        owner = f", which is the file of {owners[sha256]}" if sha256 in owners else ""
        says = f"the object has {sha256}{owner}, and the manifest says {resource.sha256}"
        findings.append(Finding(resource.entity, "sha256", says))
    if size != resource.bytes:
        says = f"the object has {size:,} bytes and the manifest says {resource.bytes:,}"
        findings.append(Finding(resource.entity, "size", says))
    return findings


def _misplaced(resource: Resource, manifest: str, export_id: str) -> Iterator[Finding]:
    """Findings about an object's address: a copied manifest still names the original objects, and every file of an
    export has its id in its name."""
    if parts_of(resource.path)[0] != parts_of(manifest)[0]:
        place = "folder" if resource.path.startswith(FILE) else "bucket"
        says = f"the manifest names {resource.path}, in another {place} than its own; that object is checked"
        yield Finding(resource.entity, "object", says, severity="warning")
    if not resource.path.rsplit("/", 1)[-1].startswith(f"{export_id}_"):
        says = f"the manifest is of export {export_id} and names {resource.path}, which does not bear that id"
        yield Finding(resource.entity, "object", says)
