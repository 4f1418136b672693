"""What Dagster's pages show of a delivery beside its record, in words and numbers for people."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import msgspec
import pytest

from m3ter_dagster.history.captions import delivery_captions, manifest_captions
from m3ter_dagster.history.record import Changes, Completeness, Delivery, Reading, StoredObject, exported_entity
from m3ter_dagster.model.exports import Export
from m3ter_dagster.model.manifest import Manifest

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
OBJECTS = (
    StoredObject("warehouse", "s3://acme/e_meter.csv", 12, "ab", '"cd"'),
    StoredObject("archive", "s3://archive/e_meter.csv", 12, "ab", '"ef"'),
)
ROWS = [
    {"destination": "warehouse", "uri": "s3://acme/e_meter.csv", "bytes": 12, "sha256": "ab", "etag": '"cd"'},
    {"destination": "archive", "uri": "s3://archive/e_meter.csv", "bytes": 12, "sha256": "ab", "etag": '"ef"'},
]
READING = Reading(started=NOON, finished=NOON + timedelta(seconds=1.23456), requests=6)
METERS = Delivery("meter", "e", "org-1", rows=3, objects=OBJECTS, reading=READING, seconds_to_deliver=0.00049)
COMPLETENESS = Completeness(
    complete="PROVEN", why="", passes=1, read=3, recovered=0, written_meanwhile=0, deleted=2, deleted_rows=0
)
ALWAYS = {
    "dagster/row_count": 3,
    "dagster/uri": "s3://acme/e_meter.csv",
    "bytes": 12,
    "objects": ROWS,
    "seconds to read": 1.235,
    "seconds to write and deliver": 0.0,
    "read from": NOON.timestamp(),
    "read until": NOON.timestamp() + 1.23456,
    "rows dropped as older copies": 0,
}


def no_page(destination: str, uri: str) -> None:
    """The page of an object in a store that has none."""


def page(destination: str, uri: str) -> str | None:
    return f"https://console/{uri}" if destination == "warehouse" else None


def shown(captions: dict[str, Any]) -> dict[str, Any]:
    """As plain values; a table as its rows."""
    return {name: plain(value) for name, value in captions.items()}


def plain(value: Any) -> Any:
    if isinstance(value, dg.TableMetadataValue):
        return [dict(record.data) for record in value.records]
    return value.value if isinstance(value, dg.MetadataValue) else value


def test_an_entity_without_findings_shows_none() -> None:
    assert shown(delivery_captions(METERS, no_page)) == {**ALWAYS, "requests": 6}


def test_what_a_person_looks_for_comes_first_and_hashes_last() -> None:
    names = list(delivery_captions(METERS, page))
    assert names[:4] == ["dagster/row_count", "bytes", "dagster/uri", "console (warehouse)"]
    assert names[4:6] == ["seconds to read", "seconds to write and deliver"]
    assert names[-1] == "objects"


def test_files_are_linked_where_their_store_has_a_page_of_them() -> None:
    link = "https://console/s3://acme/e_meter.csv"
    assert shown(delivery_captions(METERS, page))["console (warehouse)"] == link
    manifest = Manifest(Export("e", "org-1", NOON), None, [], NOON, NOON, None, {}, [exported_entity(METERS)])
    found = shown(manifest_captions(manifest, OBJECTS, page))
    assert found["console (warehouse)"] == link
    assert found["files in the console"] == f"- meter: [warehouse]({link})"
    assert "console (archive)" not in found


def test_how_a_list_was_read_is_shown_where_there_was_a_choice() -> None:
    reading = msgspec.structs.replace(READING, how="over one cursor: 12 pages")
    found = shown(delivery_captions(msgspec.structs.replace(METERS, reading=reading), no_page))
    assert found == {**ALWAYS, "requests": 6, "how the list was read": "over one cursor: 12 pages"}


def test_findings_and_the_difference_are_shown() -> None:
    reading = msgspec.structs.replace(
        READING, duplicates_dropped=2, unknown_fields={"colour": 3}, empty_fields=("unit",)
    )
    difference = {"previous": "d", "added": 1, "removed": 0, "changed": 2}
    found = shown(delivery_captions(msgspec.structs.replace(METERS, reading=reading, difference=difference), no_page))
    assert found == {
        **ALWAYS,
        "requests": 6,
        "rows dropped as older copies": 2,
        "API fields not in the schema": {"colour": 3},
        "documented fields without any value": ["unit"],
        "rows added": 1,
        "rows removed": 0,
        "rows changed": 2,
    }


@pytest.mark.parametrize(
    ("previous", "why", "words"),
    [
        ("d", None, {"changes since export": "d"}),
        (
            None,
            "because",
            {"changes since export": "none: all rows are added", "why rows were not compared": "because"},
        ),
    ],
)
def test_a_file_of_changes_is_shown(previous: str | None, why: str | None, words: dict[str, str]) -> None:
    changes = Changes({"added": 1, "changed": 2, "removed": 4}, OBJECTS, previous, why)
    found = shown(delivery_captions(msgspec.structs.replace(METERS, changes=changes), no_page))
    assert found == {
        **ALWAYS,
        "requests": 6,
        "rows in the file of changes": 7,
        **words,
        "objects of changes": ROWS,
    }


def test_why_an_entity_was_not_compared_is_no_number_of_rows() -> None:
    delivery = msgspec.structs.replace(METERS, difference={"notCompared": "there is no previous export"})
    assert not [name for name in delivery_captions(delivery, no_page) if name.startswith("rows not")]


def test_measurements_show_their_window_and_m3ter_s_job() -> None:
    window = (datetime(2024, 3, 31, tzinfo=UTC), datetime(2024, 4, 1, tzinfo=UTC))
    for job, words in (("job-1", "job-1"), (None, "none: there can be nothing in this window")):
        reading = msgspec.structs.replace(READING, requests=None, job=job, window=window)
        found = shown(delivery_captions(msgspec.structs.replace(METERS, reading=reading), no_page))
        assert found == {
            **ALWAYS,
            "window": "2024-03-31 00:00 to 2024-04-01 00:00 UTC",
            "m3ter's export job": words,
        }


def test_a_manifest_is_the_report_of_its_export() -> None:
    bills = msgspec.structs.replace(METERS, asset="bill", rows=4, difference={"notCompared": "it is the first"})
    proven = msgspec.structs.replace(READING, completeness=COMPLETENESS)
    meters = msgspec.structs.replace(METERS, difference={"previous": "d", "added": 1, "removed": 0}, reading=proven)
    listed = [exported_entity(bills), exported_entity(meters)]
    manifest = Manifest(Export("e", "org-1", NOON), "nightly", ["warehouse"], NOON, NOON, "d", {}, listed)
    compared = {"added": 1, "changed": "", "removed": 0, "deleted": 2}
    nothing = dict.fromkeys(compared, "")
    assert shown(manifest_captions(manifest, OBJECTS, no_page)) == {
        "rows": 4 + METERS.rows,
        "report": [
            {"entity": "bill", "rows": 4, "bytes": OBJECTS[0].bytes, **nothing, "complete": ""},
            {"entity": "meter", "rows": METERS.rows, "bytes": OBJECTS[0].bytes, **compared, "complete": "PROVEN"},
        ],
        "compared with export": "d",
        "dagster/uri": "s3://acme/e_meter.csv",
        "objects": ROWS,
    }
    assert (
        shown(manifest_captions(replace(manifest, previous=None), OBJECTS, no_page))["compared with export"] == "none"
    )
