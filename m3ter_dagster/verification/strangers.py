"""Objects that bear the id of an export and that its manifest does not name."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.manifest import TYPE as MANIFEST
from m3ter_dagster.usage.columns import TYPE as MEASUREMENTS
from m3ter_dagster.verification.data_package import DataPackage
from m3ter_dagster.verification.findings import Finding
from m3ter_dagster.verification.objects import ObjectMissing, ObjectUnreadable, parts_of

List = Callable[[str], list[str]]
"""The uris that begin like this; ObjectUnreadable where they may not be listed."""


def strangers(package: DataPackage, manifest: str, *, uris: List) -> Iterator[Finding]:
    """Beside the manifest, where the files of its export stand: in a folder per type."""
    folder, name = f"/type={MANIFEST}/", f"{MANIFEST}.json"
    if folder not in manifest or not manifest.endswith(name):
        return  # a copy, with the files elsewhere
    # Their keys: the bucket of a copied manifest is another than that of the paths in it.
    named = {parts_of(one.path)[1] for one in package.resources}
    has_entities = any(one.entity in entities() for one in package.resources)
    try:
        for type in entities() if has_entities else (MEASUREMENTS,):  # each kind of data has a manifest of its own
            for uri in uris(manifest.removesuffix(name).replace(folder, f"/type={type}/")):
                if parts_of(uri)[1] not in named:
                    yield Finding(type, "object", f"the manifest does not name {uri}, which bears the export's id")
    except (ObjectMissing, ObjectUnreadable) as error:
        yield Finding(
            "export", "object", f"whether there are more than the manifest names is not known: {error}", severity="note"
        )
