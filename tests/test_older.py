"""What the version before this one recorded, in the shapes that it wrote, is read as if this one had written it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from m3ter_dagster.history.log import MANIFEST, USAGE_MANIFEST, deliveries_of, last_deliveries, previous_export
from m3ter_dagster.history.record import Delivery, Part, Reading, StoredObject, WholeExport, exported_entity

RUN = "0f8fad5b-d9cb-469f-a165-70867728950e"
BEFORE = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
FROM, UNTIL = datetime(2026, 1, 2, 12, 0, 0, 250000, UTC), datetime(2026, 1, 2, 12, 0, 2, 750000, UTC)
DAY = ["2024-03-31T00:00:00+00:00", "2024-04-01T00:00:00+00:00"]
SUMS = {"window": DAY, "accounts": [], "filters": [], "meters": [], "sums": {"m": {"GB (ORIGINAL)": 1.5}}}
SCHEMA = {
    "fields": [
        {"name": "meter_id", "type": "string", "constraints": {"required": True, "minLength": 1}},
        {"name": "uid", "type": "string", "constraints": {"required": True, "minLength": 1}},
        {"name": "GB (ORIGINAL)", "type": "number"},
    ],
    "primaryKey": "uid",
    "foreignKeys": [{"fields": "meter_id", "reference": {"resource": "meter", "fields": "id"}}],
}


def stored(type: str, file: str, *, id: str = RUN) -> list[dict[str, Any]]:
    """In a destination with time first and a prefix, and in one with the type first and none."""
    time = "date=2026-01-02/hour=12"
    where = {
        "warehouse": f"s3://acme/m3ter/orgId=org-1/{time}/type={type}/{id}_{file}",
        "archive": f"s3://archive/orgId=org-1/type={type}/{time}/{id}_{file}",
    }
    about = {"bytes": 12, "sha256": "ab", "etag": '"cd"'}
    return [{"destination": code, "uri": uri, **about} for code, uri in where.items()]


def as_objects(listed: list[dict[str, Any]]) -> tuple[StoredObject, ...]:
    return tuple(StoredObject(**one) for one in listed)


def table(rows: list[dict[str, Any]]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(row) for row in rows])


def delivered(objects: list[dict[str, Any]], rows: int) -> dict[str, Any]:
    return {
        "dagster/row_count": rows,
        "dagster/uri": objects[0]["uri"],
        "bytes": objects[0]["bytes"],
        "objects": table(objects),
        "preview": table([{"id": "a"}]),
        "seconds to write and deliver": 0.125,
        "seconds to read": 2.5,
        "read from": dg.MetadataValue.timestamp(FROM),
        "read until": dg.MetadataValue.timestamp(UNTIL),
        "rows dropped as older copies": 0,
    }


def of_entity(name: str, *, is_compared: bool = True, has_findings: bool = True) -> dict[str, Any]:
    difference = {"previous": BEFORE, "added": 1, "removed": 0, "changed": 2}
    comparison = {"difference": difference, "keys": stored("manifest", f"{name}_keys.parquet")}
    findings = {
        "API fields not in the schema": dg.MetadataValue.json({"colour": 5}),
        "documented fields without any value": dg.MetadataValue.json(["unit", "code"]),
    }
    return {
        **delivered(stored(name, f"{name}.csv"), rows=3),
        "rows dropped as older copies": 4,
        "requests": 6,
        **(findings if has_findings else {}),
        **({"m3ter/comparison": dg.MetadataValue.json(comparison), "rows added": 1} if is_compared else {}),
    }


def of_usage(file: str, *, id: str = RUN, job: str = "job-1") -> dict[str, Any]:
    return {
        **delivered(stored("measurements", file, id=id), rows=0),
        "window": "2024-03-31T00:00Z to 2024-04-01T00:00Z",
        "m3ter's export job": job,
        "m3ter/window": dg.MetadataValue.json(DAY),
        "m3ter/table_schema": dg.MetadataValue.json(SCHEMA),
        "m3ter/sums": dg.MetadataValue.json(SUMS),
    }


def of_manifest(name: str, *, schedule: str | None, entities: Mapping[str, Any], previous: str) -> dict[str, Any]:
    objects = stored("manifest", f"{name}.json")
    summary = {"id": RUN, "schedule": schedule, "entities": entities}
    return {
        "dagster/uri": objects[0]["uri"],
        "entities": len(entities),
        "rows": 3,
        "compared with export": previous,
        "m3ter/manifest": dg.MetadataValue.json(summary),
        "objects": table(objects),
    }


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def report(instance: dg.DagsterInstance, asset: str, metadata: dict[str, Any]) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, metadata=metadata))


def found_delivery(instance: dg.DagsterInstance, asset: str, metadata: dict[str, Any]) -> Delivery:
    report(instance, asset, metadata)
    (delivery,) = last_deliveries(instance, asset, None)
    return delivery


def test_an_entity(instance: dg.DagsterInstance) -> None:
    assert found_delivery(instance, "account_plan", of_entity("account_plan")) == Delivery(
        asset="account_plan",
        export=RUN,
        org_id="org-1",
        rows=3,
        objects=as_objects(stored("account_plan", "account_plan.csv")),
        reading=Reading(
            started=FROM,
            finished=UNTIL,
            duplicates_dropped=4,
            unknown_fields={"colour": 5},
            empty_fields=("unit", "code"),
            requests=6,
        ),
        seconds_to_deliver=0.125,
        difference={"previous": BEFORE, "added": 1, "removed": 0, "changed": 2},
        keys=as_objects(stored("manifest", "account_plan_keys.parquet")),
    )


def test_an_entity_that_was_not_compared_and_had_no_findings(instance: dg.DagsterInstance) -> None:
    delivery = found_delivery(instance, "meter", of_entity("meter", is_compared=False, has_findings=False))
    assert (delivery.difference, delivery.keys) == ({}, ())
    assert delivery.reading == Reading(FROM, UNTIL, duplicates_dropped=4, requests=6)


def test_measurements(instance: dg.DagsterInstance) -> None:
    assert found_delivery(instance, "usage_aggregated", of_usage("measurements_aggregated.csv")) == Delivery(
        asset="usage_aggregated",
        export=RUN,
        org_id="org-1",
        rows=0,
        objects=as_objects(stored("measurements", "measurements_aggregated.csv")),
        reading=Reading(
            started=FROM,
            finished=UNTIL,
            job="job-1",
            window=(datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC)),
            sums=SUMS,
        ),
        seconds_to_deliver=0.125,
        table_schema=SCHEMA,
    )


def test_measurements_of_a_day_have_the_name_that_their_file_has_for_an_export(instance: dg.DagsterInstance) -> None:
    metadata = of_usage("measurements.csv", id="usage_raw_by_day", job="none: there can be nothing in this window")
    delivery = found_delivery(instance, "usage_raw_by_day", metadata)
    assert (delivery.export, delivery.org_id, delivery.reading.job) == ("usage_raw_by_day", "org-1", None)


@pytest.mark.parametrize(("caption", "previous"), [(BEFORE, BEFORE), ("none", None)])
def test_a_manifest(instance: dg.DagsterInstance, caption: str, previous: str | None) -> None:
    keys = stored("manifest", "meter_keys.parquet")
    entities = {"meter": {"rows": 3, "keys": keys}, "bill": {"rows": 0, "keys": []}}
    report(instance, MANIFEST, of_manifest("manifest", schedule="nightly", entities=entities, previous=caption))
    assert previous_export(instance, org_id="org-1", schedule="nightly", export_id="this") == WholeExport(
        asset=MANIFEST,
        export=RUN,
        org_id="org-1",
        schedule="nightly",
        objects=as_objects(stored("manifest", "manifest.json")),
        entities={"meter": Part(3, as_objects(keys)), "bill": Part(0)},
        previous=previous,
    )
    assert previous_export(instance, org_id="org-2", schedule="nightly", export_id="this") is None
    assert previous_export(instance, org_id="org-1", schedule=None, export_id="this") is None
    assert previous_export(instance, org_id="org-1", schedule="nightly", export_id=RUN) is None


def test_a_manifest_of_measurements(instance: dg.DagsterInstance) -> None:
    entities = {"usage_raw": {"rows": 3, "keys": []}}
    report(instance, USAGE_MANIFEST, of_manifest("manifest", schedule=None, entities=entities, previous="none"))
    whole = previous_export(instance, org_id="org-1", schedule=None, export_id="this", manifest=USAGE_MANIFEST)
    assert whole
    assert (whole.asset, whole.export, whole.entities) == (USAGE_MANIFEST, RUN, {"usage_raw": Part(3)})


def test_an_export_that_the_version_before_began_is_listed_whole_in_the_manifest(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def meter() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=of_entity("meter"))

    @dg.asset
    def usage_raw() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=of_usage("measurements.csv"))

    run = dg.materialize([meter, usage_raw], instance=instance)
    listed = {name: exported_entity(one) for name, one in deliveries_of(instance, run.run_id).items()}
    assert list(listed) == ["meter", "usage_raw"]
    assert listed["meter"].reading == {
        "from": "2026-01-02T12:00:00.250000+00:00",
        "until": "2026-01-02T12:00:02.750000+00:00",
        "duplicatesDropped": 4,
        "unknownFields": {"colour": 5},
        "emptyFields": ["unit", "code"],
    }
    assert listed["meter"].objects == {one["destination"]: one for one in stored("meter", "meter.csv")}
    assert listed["usage_raw"].reading["window"] == DAY
    assert [column.name for column in listed["usage_raw"].entity.columns] == ["meter_id", "uid", "GB (ORIGINAL)"]
