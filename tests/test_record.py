"""What an export records in Dagster's database, read back by the functions that the product reads it with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import msgspec
import pytest

from m3ter_dagster.history.log import (
    MANIFEST,
    SCHEDULE_TAG,
    USAGE_MANIFEST,
    deliveries_of,
    last_deliveries,
    previous_export,
)
from m3ter_dagster.history.record import (
    KEY,
    PROVEN,
    VERSION,
    Changes,
    Completeness,
    Delivery,
    Part,
    Reading,
    RecordFromTheFuture,
    StoredObject,
    WholeExport,
    as_metadata,
    delivery_in,
    exported_entity,
    record_in,
    whole_export_in,
)
from m3ter_dagster.model.entities import entities

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, UTC)
DAY = (datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
IN_WAREHOUSE = StoredObject("warehouse", "s3://acme/m3ter/orgId=org-1/type=meter/e_meter.csv", 12, "ab", '"cd"')
IN_ARCHIVE = StoredObject("archive", "s3://archive/orgId=org-1/type=meter/e_meter.csv", 12, "ab", '"ef-2"')
HASHES = StoredObject("warehouse", "s3://acme/m3ter/orgId=org-1/type=manifest/e_meter_keys.parquet", 7, "01", '"23"')
IN_CHANGES = StoredObject("warehouse", "s3://acme/orgId=org-1/type=meter_changes/e_meter_changes.csv", 9, "45", '"6"')
METERS = Delivery(
    asset="meter",
    export="e",
    org_id="org-1",
    rows=3,
    objects=(IN_WAREHOUSE, IN_ARCHIVE),
    reading=Reading(
        started=NOON,
        finished=NOON + timedelta(seconds=2.5),
        duplicates_dropped=4,
        unknown_fields={"colour": 5},
        empty_fields=("unit", "code"),
        requests=6,
        completeness=Completeness(
            complete=PROVEN,
            why="because",
            passes=2,
            read=2,
            recovered=3,
            written_meanwhile=4,
            deleted=5,
            deleted_rows=1,
        ),
    ),
    seconds_to_deliver=0.0625,
    difference={"previous": "d", "added": 1, "removed": 0, "changed": 2},
    keys=(HASHES,),
    changes=Changes(
        rows={"added": 1, "changed": 2, "deleted": 0, "removed": 0},
        objects=(IN_CHANGES,),
        previous="d",
        not_compared="because",
    ),
)
MEASUREMENTS = Delivery(
    asset="usage_raw",
    export="e",
    org_id="org-1",
    rows=0,
    objects=(IN_WAREHOUSE,),
    reading=Reading(
        started=NOON,
        finished=NOON,
        job="job-1",
        window=DAY,
        sums={"window": [], "accounts": ["a"], "filters": [], "meters": [], "sums": {"m": {"GB (ORIGINAL)": 0.1}}},
    ),
    seconds_to_deliver=1.0,
    table_schema={"fields": [{"name": "uid", "type": "string"}], "primaryKey": "uid"},
)
WHOLE = WholeExport(
    asset=MANIFEST,
    export="e",
    org_id="org-1",
    schedule="nightly",
    objects=(IN_WAREHOUSE,),
    entities={"meter": Part(3, (HASHES,)), "bill": Part(0)},
    previous="d",
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """Its databases are those of an instance on disk, in memory: what is read was written as text."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def run(instance: dg.DagsterInstance, *recorded: Delivery | WholeExport, root: str | None = None) -> str:
    """The id of a run that delivers these, or of a re-execution in the export of `root`."""

    def asset(record: Delivery | WholeExport) -> dg.AssetsDefinition:
        @dg.asset(name=record.asset)
        def delivered() -> dg.MaterializeResult[Any]:
            return dg.MaterializeResult(metadata=as_metadata(record))

        return delivered

    tags = {"dagster/root_run_id": root, "dagster/parent_run_id": root} if root else {}
    schedules = [(SCHEDULE_TAG, one.schedule) for one in recorded if isinstance(one, WholeExport) and one.schedule]
    return dg.materialize([asset(one) for one in recorded], instance=instance, tags=tags | dict(schedules)).run_id


def changed(record: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(record, **changes)


@pytest.mark.parametrize("delivery", [METERS, MEASUREMENTS], ids=lambda one: one.asset)
def test_a_delivery_is_read_back_as_it_was_recorded(instance: dg.DagsterInstance, delivery: Delivery) -> None:
    id = run(instance, delivery)
    assert deliveries_of(instance, id) == {delivery.asset: delivery}
    assert list(last_deliveries(instance, delivery.asset, None)) == [delivery]


def test_a_whole_export_is_read_back_as_it_was_recorded(instance: dg.DagsterInstance) -> None:
    run(instance, WHOLE)
    assert previous_export(instance, org_id="org-1", schedule="nightly", export_id="f") == WHOLE


def test_the_database_holds_the_record_as_plain_json(instance: dg.DagsterInstance) -> None:
    """What later versions of this project must go on reading: a change here needs a new VERSION."""
    run(instance, METERS, WHOLE)
    found = {name: json.dumps(stored(instance, name), sort_keys=True) for name in ("meter", MANIFEST)}
    warehouse = (
        '{"bytes": 12, "destination": "warehouse", "etag": "\\"cd\\"", "sha256": "ab", '
        '"uri": "s3://acme/m3ter/orgId=org-1/type=meter/e_meter.csv"}'
    )
    archive = (
        '{"bytes": 12, "destination": "archive", "etag": "\\"ef-2\\"", "sha256": "ab", '
        '"uri": "s3://archive/orgId=org-1/type=meter/e_meter.csv"}'
    )
    hashes = (
        '{"bytes": 7, "destination": "warehouse", "etag": "\\"23\\"", "sha256": "01", '
        '"uri": "s3://acme/m3ter/orgId=org-1/type=manifest/e_meter_keys.parquet"}'
    )
    assert found["meter"] == (
        '{"asset": "meter", "changes": {"notCompared": "because", "objects": [{"bytes": 9, "destination": "warehouse", '
        '"etag": "\\"6\\"", "sha256": "45", "uri": "s3://acme/orgId=org-1/type=meter_changes/e_meter_changes.csv"}], '
        '"previous": "d", "rows": {"added": 1, "changed": 2, "deleted": 0, "removed": 0}}, '
        '"difference": {"added": 1, "changed": 2, "previous": "d", "removed": 0}, '
        f'"excluded": [], "export": "e", "keys": [{hashes}], "kind": "rows", "objects": [{warehouse}, {archive}], '
        '"orgId": "org-1", '
        '"reading": {"completeness": {"complete": "PROVEN", "deleted": 5, "deletedRows": 1, "passes": 2, "read": 2, '
        '"recovered": 3, "why": "because", "writtenMeanwhile": 4}, "duplicatesDropped": 4, '
        '"emptyFields": ["unit", "code"], "finished": "2026-01-02T12:00:02.623456Z", "how": null, '
        '"job": null, "requests": 6, "reusedInARow": 0, "started": "2026-01-02T12:00:00.123456Z"'
        ', "sums": {}, "unknownFields": {"colour": 5}, "window": null}, "rows": 3, "secondsToDeliver": 0.0625, '
        '"tableSchema": null, "version": 1}'
    )
    assert found[MANIFEST] == (
        f'{{"asset": "export_manifest", "entities": {{"bill": {{"keys": [], "rows": 0}}, "meter": {{"keys": [{hashes}],'
        f' "rows": 3}}}}, "export": "e", "kind": "manifest", "objects": [{warehouse}], "orgId": "org-1", '
        '"previous": "d", "schedule": "nightly", "version": 1}'
    )


def stored(instance: dg.DagsterInstance, asset: str) -> Any:
    (record,) = instance.fetch_materializations(dg.AssetKey(asset), 1).records
    assert record.asset_materialization
    return record.asset_materialization.metadata[KEY].value


def test_a_record_with_fields_that_a_later_version_added_is_read() -> None:
    """A field with a default needs no new version, so it may meet a version that does not know it, and lack one."""
    written = as_metadata(METERS)[KEY].value
    assert isinstance(written, dict)
    later = {**written, "colour": "red", "reading": {**written["reading"], "colour": "red"}}
    assert record_in("meter", {KEY: dg.MetadataValue.json(later)}) == METERS
    kept = ("asset", "export", "orgId", "rows", "objects", "secondsToDeliver", "kind")
    reading = {name: written["reading"][name] for name in ("started", "finished")}
    least = {**{name: written[name] for name in kept}, "reading": reading}
    assert record_in("meter", {KEY: dg.MetadataValue.json(least)}) == Delivery(
        asset="meter",
        export="e",
        org_id="org-1",
        rows=3,
        objects=METERS.objects,
        reading=Reading(METERS.reading.started, METERS.reading.finished),
        seconds_to_deliver=0.0625,
    )


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"rows": 5},
        {"objects": 5},
        {"objects": dg.MetadataValue.table([dg.TableRecord({"colour": "red"})])},
        {KEY: "text"},
        {KEY: dg.MetadataValue.json([1])},
    ],
    ids=lambda metadata: ", ".join(metadata) or "nothing",
)
def test_what_others_record_is_no_record_of_this_project(instance: dg.DagsterInstance, metadata: Any) -> None:
    """A person may report that an asset was materialised, or have an asset of the same name."""
    for name in ("meter", MANIFEST):
        instance.report_runless_asset_event(dg.AssetMaterialization(name, metadata=metadata))
    assert list(last_deliveries(instance, "meter", None)) == []
    assert previous_export(instance, org_id="org-1", schedule=None, export_id="e") is None


def test_a_record_is_of_its_own_kind_only() -> None:
    delivered = dg.AssetMaterialization("meter", metadata=as_metadata(METERS))
    whole = dg.AssetMaterialization(MANIFEST, metadata=as_metadata(WHOLE))
    assert (delivery_in(delivered), whole_export_in(delivered)) == (METERS, None)
    assert (delivery_in(whole), whole_export_in(whole)) == (None, WHOLE)


@pytest.mark.parametrize("record", [METERS, WHOLE], ids=lambda one: one.asset)
def test_a_record_of_a_later_version_says_what_to_do(record: Delivery | WholeExport) -> None:
    """Its other fields may be anything."""
    later = {"version": VERSION + 1, "kind": "of the future", "asset": record.asset}
    words = (
        r"^DAGSTER_HOME has records of version 2, which a later version of m3ter-dagster has written; this one reads "
        r"versions up to 1\. Install the later version again, or use another DAGSTER_HOME\.$"
    )
    with pytest.raises(RecordFromTheFuture, match=words):
        record_in(record.asset, {KEY: dg.MetadataValue.json(later)})


def test_of_several_deliveries_the_last_counts(instance: dg.DagsterInstance) -> None:
    """A re-execution of everything delivers again what the first run delivered."""
    bills = changed(METERS, asset="bill", rows=7)
    first = run(instance, METERS, bills)
    run(instance, changed(METERS, rows=4), root=first)
    run(instance, changed(METERS, rows=5))
    assert {name: one.rows for name, one in deliveries_of(instance, first).items()} == {"bill": 7, "meter": 4}
    assert [one.rows for one in last_deliveries(instance, "meter", None)] == [5, 4, 3]


def test_deliveries_of_another_organization_are_passed_over(instance: dg.DagsterInstance) -> None:
    for rows, org_id in ((5, "org-1"), (6, "org-2"), (7, "org-2")):
        run(instance, changed(METERS, rows=rows, org_id=org_id))
    assert [one.rows for one in last_deliveries(instance, "meter", "org-1")] == [5]
    assert [one.rows for one in last_deliveries(instance, "meter", "org-2")] == [7, 6]
    assert list(last_deliveries(instance, "meter", "org-3")) == []


def test_deliveries_come_in_the_order_of_the_entities_and_without_manifests(instance: dg.DagsterInstance) -> None:
    id = run(instance, WHOLE, MEASUREMENTS, METERS)
    run(instance, changed(METERS, asset="account"), changed(METERS, asset="bill"), root=id)
    assert list(deliveries_of(instance, id)) == ["account", "bill", "meter", "usage_raw"]


def test_the_previous_export_is_the_last_of_the_same_organization_and_schedule(instance: dg.DagsterInstance) -> None:
    for changes in (
        {"export": "older"},
        {"export": "previous"},
        {"export": "other organization", "org_id": "org-2"},
        {"export": "other schedule", "schedule": "weekly"},
        {"export": "by a person", "schedule": None},
        {"export": "of usage", "asset": USAGE_MANIFEST},
        {"export": "this one"},
    ):
        run(instance, changed(WHOLE, **changes))

    def found(**asked: Any) -> str | None:
        options = {"org_id": "org-1", "schedule": "nightly", "export_id": "this one", **asked}
        whole = previous_export(instance, **options)
        return whole.export if whole else None

    assert found() == "previous"
    assert found(export_id="another") == "this one"
    assert found(org_id="org-2") == "other organization"
    assert found(schedule="weekly") == "other schedule"
    assert found(schedule=None) == "by a person"
    assert found(manifest=USAGE_MANIFEST) == "of usage"
    assert found(org_id="org-3") is None
    assert found(org_id="org-2", schedule=None) is None


def test_the_manifest_lists_what_was_recorded() -> None:
    listed = exported_entity(METERS)
    assert listed.entity is entities()["meter"]
    assert (listed.rows, listed.difference) == (3, METERS.difference)
    assert (listed.file_format, listed.media_type, listed.compression) == ("csv", "text/csv", None)
    assert listed.objects == {"warehouse": as_dict(IN_WAREHOUSE), "archive": as_dict(IN_ARCHIVE)}
    assert listed.keys == [as_dict(HASHES)]
    assert listed.changes
    assert (listed.changes.table.name, listed.changes.objects) == ("meter_changes", {"warehouse": as_dict(IN_CHANGES)})
    assert (listed.changes.rows, listed.changes.previous) == (
        {"added": 1, "changed": 2, "deleted": 0, "removed": 0},
        "d",
    )
    assert listed.changes.not_compared == "because"
    assert listed.reading == {
        "from": "2026-01-02T12:00:00.123456+00:00",
        "until": "2026-01-02T12:00:02.623456+00:00",
        "duplicatesDropped": 4,
        "unknownFields": {"colour": 5},
        "emptyFields": ["unit", "code"],
    }
    assert METERS.reading.seconds == 2.5
    assert (listed.completeness["complete"], listed.completeness["writtenMeanwhile"]) == ("PROVEN", 4)
    assert exported_entity(MEASUREMENTS).completeness == {}


def test_the_manifest_lists_measurements_with_their_window_and_the_columns_that_they_had() -> None:
    listed = exported_entity(MEASUREMENTS)
    assert listed.reading["window"] == ["2024-03-31T00:00:00+00:00", "2024-04-01T00:00:00+00:00"]
    assert [column.name for column in listed.entity.columns] == ["uid"]
    assert listed.entity.name == "usage_raw"


def as_dict(one: StoredObject) -> Mapping[str, Any]:
    return {name: getattr(one, name) for name in ("destination", "uri", "bytes", "sha256", "etag")}
