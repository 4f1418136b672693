"""The keys of an export's objects."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from m3ter_dagster.model.exports import DueWithoutZone, Export, object_key

EXPORT = Export(id="b9a317a6", org_id="org-1", due=datetime(2025, 1, 27, 10, 59, tzinfo=UTC))

KEYS = [
    ("m3ter", "TIME_FIRST", "m3ter/orgId=org-1/date=2025-01-27/hour=10/type=bill/b9a317a6_bill.csv"),
    ("m3ter", "TYPE_FIRST", "m3ter/orgId=org-1/type=bill/date=2025-01-27/hour=10/b9a317a6_bill.csv"),
    ("", "TIME_FIRST", "orgId=org-1/date=2025-01-27/hour=10/type=bill/b9a317a6_bill.csv"),
    ("", "TYPE_FIRST", "orgId=org-1/type=bill/date=2025-01-27/hour=10/b9a317a6_bill.csv"),
    ("/a/b/", "TIME_FIRST", "a/b/orgId=org-1/date=2025-01-27/hour=10/type=bill/b9a317a6_bill.csv"),
    ("/", "TIME_FIRST", "orgId=org-1/date=2025-01-27/hour=10/type=bill/b9a317a6_bill.csv"),
]


@pytest.mark.parametrize(("prefix", "order", "key"), KEYS)
def test_a_key_follows_prefix_and_partition_order(prefix, order, key):
    assert object_key(EXPORT, "bill", prefix=prefix, partition_order=order, suffix="csv") == key


def test_the_suffix_is_the_files_own():
    key = object_key(EXPORT, "manifest", prefix="", partition_order="TIME_FIRST", suffix="json")
    assert key == "orgId=org-1/date=2025-01-27/hour=10/type=manifest/b9a317a6_manifest.json"


def test_date_and_hour_are_utc():
    due = datetime(2025, 1, 28, 1, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    key = object_key(Export(id="e", org_id="o", due=due), "bill", prefix="", partition_order="TIME_FIRST", suffix="csv")
    assert key == "orgId=o/date=2025-01-27/hour=20/type=bill/e_bill.csv"


def test_a_due_time_without_a_zone_is_refused():
    with pytest.raises(DueWithoutZone, match=r"2025-01-27T10:00:00, which has no time zone"):
        Export(id="e", org_id="o", due=datetime(2025, 1, 27, 10))
