"""The Organization's own Export Destinations and Export Schedules, as m3ter's Data Export API has them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from m3ter_dagster.config import M3terSettings
from m3ter_dagster.m3ter.client import open_client
from m3ter_dagster.m3ter.errors import Later, M3terError, Refused, quoted
from m3ter_dagster.model.entities import Listing

DESTINATIONS = Listing("/dataexports/destinations", 200)
SCHEDULES = Listing("/dataexports/schedules", 100)
Record = Mapping[str, Any]


class DataExportUnavailable(M3terError):
    """The service is a Preview of m3ter's, which not every Organization has."""

    def __init__(self, org_id: str, refusal: Refused) -> None:
        super().__init__(
            f"The Data Export service is not enabled for Organization {org_id}, or the service user of M3TER_API_KEY "
            f"may not read it. Ask m3ter's support to enable it, or write exports.yaml by hand.\n{refusal}"
        )


@dataclass(frozen=True)
class DataExports:
    destinations: list[Record]
    schedules: list[Record]


def read_data_exports(settings: M3terSettings) -> DataExports:
    """All of both, whole. DataExportUnavailable where m3ter does not know the service or does not let us."""
    reader = _Reader(settings)
    try:
        return DataExports(reader.records(DESTINATIONS), reader.records(SCHEDULES))
    except Refused as refusal:
        if refusal.status in (403, 404):
            raise DataExportUnavailable(settings.org_id, refusal) from None
        raise


class _Reader:
    def __init__(self, settings: M3terSettings) -> None:
        self._client = open_client(settings, stop=threading.Event())

    def records(self, listing: Listing) -> list[Record]:
        """The list documents only what all kinds have in common; what it leaves out is read record by record."""
        listed = [record for page in self._client.pages(listing) for record in msgspec.json.decode(page.rows)]
        return [self._whole(listing, record) if _is_short(record) else record for record in listed]

    def _whole(self, listing: Listing, record: Record) -> Record:
        path = f"{listing.path}/{quote(str(record['id']), safe='')}"
        return {**record, **self._client.get(path, _record)}


def _is_short(record: Record) -> bool:
    """Is it without what only its kind has?"""
    return not record.keys() & {"bucketName", "operationalDataTypes", "timePeriod"}


def _record(body: bytes) -> dict[str, Any]:
    try:
        record = json.loads(body)
    except ValueError as error:
        raise Later(f"the answer is not JSON ({error})") from None
    if not isinstance(record, dict):
        raise Later(f"the answer is no record; it starts with {quoted(body)[:60]!r}")
    return record
