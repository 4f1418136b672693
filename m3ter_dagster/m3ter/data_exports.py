"""The Organization's own Export Destinations and Export Schedules, as m3ter's Data Export API has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import msgspec

from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.errors import Later, M3terError, Refused, quoted
from m3ter_dagster.model.entity import Listing

DESTINATIONS = Listing("/dataexports/destinations", 200)
SCHEDULES = Listing("/dataexports/schedules", 100)
_OF_ONE_KIND = {"bucketName", "operationalDataTypes", "timePeriod"}
Record = Mapping[str, Any]


class DataExportUnavailable(M3terError):
    """m3ter's Data Export service cannot be read: it is a Preview that not every Organization has."""

    def __init__(self, org_id: str, refusal: Refused) -> None:
        super().__init__(
            f"The Data Export service is not enabled for Organization {org_id}, or the service user of M3TER_API_KEY "
            f"may not read it. Ask m3ter's support to enable it, or write exports.yaml by hand.\n{refusal}"
        )


@dataclass(frozen=True)
class DataExports:
    destinations: list[Record]
    schedules: list[Record]


def read_data_exports(client: M3terClient) -> DataExports:
    """All destinations and schedules. DataExportUnavailable if the service is not enabled or may not be used."""
    try:
        return DataExports(_records(client, DESTINATIONS), _records(client, SCHEDULES))
    except Refused as refusal:
        if refusal.status in (403, 404):
            raise DataExportUnavailable(client.org_id, refusal) from None
        raise


def _records(client: M3terClient, listing: Listing) -> list[Record]:
    """Every record in full: the list documents only what all kinds have in common, so the rest is read one by one."""
    try:
        decoder = msgspec.json.Decoder(list[dict[str, Any]])
        listed: list[Record] = [record for page in client.pages(listing) for record in decoder.decode(page.rows)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise M3terError(f"{listing.path} lists what is no record ({error}); ask m3ter's support about it.") from None
    for number, record in enumerate(listed):
        if not record.keys() & _OF_ONE_KIND:
            path = f"{listing.path}/{quote(str(record['id']), safe='')}"
            listed[number] = {**record, **client.get(path, _record)}
    return listed


def _record(body: bytes) -> dict[str, Any]:
    try:
        record = json.loads(body)
    except ValueError as error:
        raise Later(f"the answer is not JSON ({error})") from None
    if not isinstance(record, dict):
        raise Later(f"the answer is no record; it starts with {quoted(body)[:60]!r}")
    return record
