"""The sample organization's Data Export service: destinations and schedules as a customer has them in m3ter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from m3ter_sandbox.answers import json_answer
from m3ter_sandbox.list_routes import PAGE_PARAMETERS, page_answer, read_parameters
from m3ter_sandbox.lists import IDS, EntityList
from m3ter_sandbox.records import ENCODER, Row, Rows
from m3ter_sandbox.values import Record, Seed

DESTINATION_LIST = EntityList("export_destination", "/dataexports/destinations", {"ids": IDS}, maximum_page_size=200)
SCHEDULE_LIST = EntityList("export_schedule", "/dataexports/schedules", {"ids": IDS})
OF_ONE_KIND_ONLY = {
    *("bucketName", "prefix", "partitionOrder", "iamRoleArn", "poolId", "projectNumber", "providerId"),
    *("serviceAccountEmail", "operationalDataTypes", "timePeriod", "meterIds", "accountIds", "aggregations", "groups"),
}
"""What the documented list leaves out, since not every kind has it: the single record has it."""


def data_export_routes(destinations: Sequence[Record], schedules: Sequence[Record]) -> Blueprint:
    """To be given to SandboxApi as `further_routes`."""
    routes = Blueprint("data_exports", __name__)
    for entity_list, records in ((DESTINATION_LIST, destinations), (SCHEDULE_LIST, schedules)):
        _add_routes(routes, entity_list, records)
    return routes


def _add_routes(routes: Blueprint, entity_list: EntityList, records: Sequence[Record]) -> None:
    rows = Rows([_row(record) for record in records])
    whole = {record["id"]: record for record in records}

    def listed() -> Response:
        asked = read_parameters(entity_list.parameters, PAGE_PARAMETERS)
        return page_answer(rows.select(entity_list, asked, ""), entity_list, asked, lambda row: row.content)

    def single(id: str) -> Response:
        if id not in whole:
            raise NotFound(f"There is no {entity_list.entity.replace('_', ' ')} {id}.")
        return json_answer(whole[id])

    routes.add_url_rule(entity_list.path, f"{entity_list.entity}s", listed, methods=["GET"])
    routes.add_url_rule(f"{entity_list.path}/<id>", entity_list.entity, single, methods=["GET"])


def _row(record: Record) -> Row:
    common = {name: value for name, value in record.items() if name not in OF_ONE_KIND_ONLY}
    return Row(record["dtCreated"], record["id"], ENCODER.encode(common), {"id": record["id"]})


def sample_destinations(seed: Seed) -> list[Record]:
    role = "arn:aws:iam::123456789012:role/m3ter-export"
    warehouse = {"destinationType": "S3", "bucketName": "acme-m3ter-exports", "prefix": "m3ter", "iamRoleArn": role}
    archive = {"destinationType": "S3", "bucketName": "acme-archive", "iamRoleArn": role}
    lake = {
        "destinationType": "GCS",
        "bucketName": "acme-lake",
        "poolId": "m3ter",
        "projectNumber": "123456789",
        "providerId": "m3ter-aws",
    }
    return [
        _record(seed, 0, "warehouse", "Data warehouse bucket", **warehouse, partitionOrder="TIME_FIRST"),
        _record(seed, 1, "archive", "Archive: cold storage", **archive, partitionOrder="TYPE_FIRST"),
        _record(seed, 2, "lake", "Data lake", **lake, partitionOrder="TIME_FIRST"),
    ]


def sample_schedules(seed: Seed) -> list[Record]:
    warehouse, archive, lake = (record["id"] for record in sample_destinations(seed))
    finance = ["ACCOUNTS", "ACCOUNT_PLANS", "COMMITMENTS"]
    return [
        _schedule(seed, 10, "finance", [warehouse], finance, scheduleType="DAY", period=2),
        _schedule(seed, 11, "bills", [warehouse, lake], ["BILLS", "CHARGES"], scheduleType="HOUR", period=5, offset=15),
        _schedule(seed, 12, "type", [archive], ["METERS"], scheduleType="DAY", period=1, exportFileFormat="JSONL"),
        _schedule(seed, 13, "download", [], ["PLANS"], scheduleType="DAY", period=1),
        _schedule(seed, 14, "lake only", [lake], ["PRICING"], scheduleType="DAY", period=1),
        _schedule(seed, 15, "office hours", [archive], ["BALANCES"], cronExpression="0 8-18 * * 1-5"),
        _schedule(seed, 16, "quarterly", [archive], ["PRODUCTS"], scheduleType="MINUTE", period=15),
        _schedule(seed, 17, "once", [archive], ["CONTRACTS"], scheduleType="AD_HOC"),
        _record(seed, 18, "usage", "Usage", **_usage(warehouse)),
    ]


def _usage(destination: str) -> Record:
    return {
        "sourceType": "USAGE",
        "destinationIds": [destination],
        "scheduleType": "DAY",
        "period": 1,
        "timePeriod": "YESTERDAY",
        "exportFileFormat": "CSV",
        "meterIds": [],
        "accountIds": [],
        "aggregations": [],
        "groups": [],
    }


def _schedule(seed: Seed, number: int, code: str, to: Sequence[str], types: Sequence[str], **more: Any) -> Record:
    usual = {"sourceType": "OPERATIONAL", "exportFileFormat": "CSV"}
    given = {"destinationIds": list(to), "operationalDataTypes": list(types), **more}
    return _record(seed, number, code, f"{code.capitalize()} export", **usual | given)


def _record(seed: Seed, number: int, code: str, name: str, **more: Any) -> Record:
    created = f"2024-06-{number + 1:02}T10:00:00.123Z"
    return {
        "id": seed.id("data_export", number),
        "version": 1,
        "code": code,
        "name": name,
        **more,
        "dtCreated": created,
        "dtLastModified": created,
        "createdBy": seed.id("user", 1),
        "lastModifiedBy": seed.id("user", 1),
    }
