"""The last asset of an export: the list of what was delivered, written only when everything was."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import dagster as dg

from m3ter_dagster.assets import operational, usage
from m3ter_dagster.config import Unloadable
from m3ter_dagster.config.usage import RAW_BY_DAY
from m3ter_dagster.history.log import (
    MANIFEST,
    USAGE_MANIFEST,
    chosen_entities,
    deliveries_of,
    export_of,
    listed,
    previous_export,
    runs_of,
    schedule_of,
)
from m3ter_dagster.history.record import exported_entity
from m3ter_dagster.model.manifest import Manifest
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.resources import IO_MANAGER, ORGANIZATION

CONFIGURATION = "configuration"
_PACKAGES = ("m3ter-dagster", "dagster", "polars")


class NotWhole(dg.Failure):
    def __init__(self, export_id: str, missing: Sequence[str]) -> None:
        super().__init__(
            f"export {export_id} has no manifest because it is not whole: {', '.join(missing)} not delivered. "
            "Re-execute it from failure.",
            allow_retries=False,
        )


class NothingToList(dg.Failure):
    def __init__(self, manifest: str) -> None:
        super().__init__(
            f"{manifest} lists what its own run exports, and this run exports nothing; materialise them together.",
            allow_retries=False,
        )


def export_manifest(
    owners: Sequence[str] = (),
    unloadable: Unloadable | None = None,
    *,
    after: Sequence[str] = (),
    names: Names = DEFAULT,
) -> dg.AssetsDefinition:
    """The manifest of the entities that an export has.

    In lineage it comes `after` these, by default all. As long as one of them was never exported, Dagster asks whoever
    exports the others whether they are sure.
    """
    when = "It exists only when every entity of the export was delivered."
    return _manifest(MANIFEST, after or listed(MANIFEST), operational.GROUP, owners, when, unloadable, names)


def usage_manifest(
    owners: Sequence[str] = (), unloadable: Unloadable | None = None, names: Names = DEFAULT
) -> dg.AssetsDefinition:
    when = "It exists only when all measurements of the export were delivered. It lists no file of "
    about = f"{when}{RAW_BY_DAY}."
    return _manifest(USAGE_MANIFEST, listed(USAGE_MANIFEST), usage.GROUP, owners, about, unloadable, names)


def _manifest(
    name: str,
    after: Sequence[str],
    group: str,
    owners: Sequence[str],
    description: str,
    unloadable: Unloadable | None,
    names: Names,
) -> dg.AssetsDefinition:
    banner, key = f"{unloadable}\n\n" if unloadable else "", names.key(name)

    @dg.asset(
        key=key,
        deps=[names.key(one) for one in after],
        group_name=names.own(group),
        kinds={"json"},
        owners=owners,
        io_manager_key=names.own(IO_MANAGER),
        required_resource_keys={names.own(ORGANIZATION)},
        description=f"{banner}The Data Package of an export: every object with its size, rows, checksum and schema. "
        + description,
        check_specs=[dg.AssetCheckSpec(CONFIGURATION, asset=key, description="Whether exports.yaml can be loaded.")],
    )
    def manifest(context: dg.AssetExecutionContext) -> Iterator[Any]:
        organization = getattr(context.resources, names.own(ORGANIZATION))
        whole = whole_export(context.run, context.instance, organization.id, name, names)
        yield dg.AssetCheckResult(
            check_name=CONFIGURATION, passed=unloadable is None, description=str(unloadable or "It can be loaded.")
        )
        yield dg.Output(replace(whole, asked=organization.traffic().counts()))

    return manifest


def whole_export(
    run: dg.DagsterRun, instance: dg.DagsterInstance, org_id: str, manifest: str, names: Names = DEFAULT
) -> Manifest:
    """The manifest of the export that `run` completes. NotWhole if something is missing in any destination."""
    export = export_of(run, instance, org_id)
    root = runs_of(instance, export.id)[0]
    expected = [name for name in chosen_entities(instance, root.dagster_run, names) if name in listed(manifest)]
    if not expected:
        raise NothingToList(manifest)
    delivered = deliveries_of(instance, export.id, run, names)
    exported = [exported_entity(delivered[name]) for name in expected if name in delivered]
    destinations = sorted({code for one in exported for code in one.objects})
    everywhere = {one.entity.name for one in exported if sorted(one.objects) == destinations}
    if everywhere != set(expected):
        raise NotWhole(export.id, [name for name in expected if name not in everywhere])
    schedule = schedule_of(run, names)
    previous = previous_export(
        instance, org_id=org_id, schedule=schedule, export_id=export.id, manifest=manifest, names=names
    )
    return Manifest(
        export=export,
        schedule=schedule,
        destinations=destinations,
        started=datetime.fromtimestamp(root.start_time or 0, UTC),
        finished=datetime.now(UTC),
        previous=previous.export if previous else None,
        versions={package: version(package) for package in _PACKAGES},
        entities=exported,
    )
