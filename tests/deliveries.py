"""A delivery as the tests make it: one small export to destinations of one store."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from stores import Store

from m3ter_dagster.config import Destination, GcsDestination, LocalDestination, S3Destination
from m3ter_dagster.delivery.destinations import Delivered, DeliveryFailed, Destinations
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.model.exports import Export

CSV = Csv()
EXPORT = Export(id="b9a317a6", org_id="org-1", due=datetime(2025, 1, 27, 10, tzinfo=UTC))
KEY = "m3ter/orgId=org-1/date=2025-01-27/hour=10/type=bill/b9a317a6_bill.csv"
ROWS = b'"id","name"\n1,one\n'
MARK = b"begin-of-the-file"
"""What the large file starts with."""


def destination(store: Store | str, bucket: str, code: str = "warehouse", **more: Any) -> S3Destination:
    endpoint = store if isinstance(store, str) else store.endpoint
    given: dict[str, Any] = {"prefix": "m3ter", "endpoint_url": endpoint, **more}
    return S3Destination(code=code, name=code, bucket_name=bucket, **given)


def local_destination(folder: Path, code: str = "warehouse") -> LocalDestination:
    return LocalDestination(code=code, destination_type="LOCAL", path=folder)


def gcs_destination(bucket: str, code: str = "warehouse") -> GcsDestination:
    return GcsDestination(code=code, destination_type="GCS", bucket_name=bucket, prefix="m3ter")


def destinations(*given: Destination, retries: int = 1) -> Destinations:
    return Destinations({one.code: one for one in given}, max_attempts=retries)


def deliver(to: Destination, file: Path, *, retries: int = 1) -> Delivered:
    (delivered,) = destinations(to, retries=retries).deliver(file, EXPORT, "bill", to=[to.code], kind=CSV)
    return delivered


def refusal_of(to: Destination, file: Path) -> str:
    with pytest.raises(DeliveryFailed) as failed:
        destinations(to).deliver(file, EXPORT, "bill", to=[to.code], kind=CSV)
    assert failed.value.delivered == []
    (refusal,) = failed.value.failures
    assert str(refusal) in str(failed.value)
    return str(refusal)
