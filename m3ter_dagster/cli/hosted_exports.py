"""Exports hosted by m3ter: its destinations and schedules as items of exports.yaml, with what is different here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from m3ter_dagster.config import DESTINATIONS, ExportSchedule, GcsDestination, S3Destination, UsageSchedule
from m3ter_dagster.config.names import ALL, NO_CHOICE, OPERATIONAL, RESERVED, USAGE, dagster_name
from m3ter_dagster.config.wording import refusals
from m3ter_dagster.model.entities import UnknownEntity, find_entity, operational_entities

Record = Mapping[str, Any]

LONGEST_CODE, LONGEST_NAME = 80, 200
DESTINATION_FIELDS = {
    S3Destination: ("bucketName", "prefix", "partitionOrder", "iamRoleArn"),
    GcsDestination: ("destinationType", "bucketName", "prefix", "partitionOrder", "serviceAccountEmail"),
}
USAGE_FIELDS = ("timePeriod", "meterIds", "accountIds", "dimensionFilters", "aggregations", "groups")
ABOUT_THE_RECORD = {"id", "version", "dtLastModified", "createdBy", "lastModifiedBy", "destinationIds"}
NOT_HERE = {
    "AD_HOC": "it runs once, on request; `m3ter-dagster export` does that",
}
"""Why schedules of these kinds are written as comments only."""


@dataclass
class Item:
    """A destination or schedule of exports.yaml."""

    fields: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Why the item cannot be used as it is."""

    @property
    def is_usable(self) -> bool:
        return not self.reasons


def destination_items(records: Sequence[Record]) -> dict[str, Item]:
    """The items of m3ter's destinations, by m3ter's ids."""
    taken: set[str] = set()
    return {record["id"]: _destination(record, taken) for record in records}


def schedule_items(records: Sequence[Record], destinations: Mapping[str, Item]) -> list[Item]:
    taken = set(RESERVED)
    return [_schedule(record, destinations, taken) for record in records]


def _destination(record: Record, taken: set[str]) -> Item:
    kind = record.get("destinationType", "S3")
    model = GcsDestination if kind == "GCS" else S3Destination
    fields = {name: record[name] for name in DESTINATION_FIELDS[model] if record.get(name)}
    item = _item(record, fields, _free_code(record, taken, key=str))
    if kind not in DESTINATIONS:
        item.reasons.append(f"it is of type {kind}, which this project does not deliver to")
        return _with_the_rest(item, record)
    if record.get("poolId"):
        item.notes.append(f"its pool {record['poolId']!r} lets m3ter in and is not needed: the credentials are yours")
    return _checked(item, model, record)


def _schedule(record: Record, destinations: Mapping[str, Item], taken: set[str]) -> Item:
    item = _item(record, {"sourceType": record.get("sourceType")}, _free_code(record, taken, key=dagster_name))
    item.reasons += _reasons(record)
    if record.get("sourceType") == OPERATIONAL:
        item.fields["operationalDataTypes"] = _data_types(record, item)
    if record.get("sourceType") == USAGE:
        item.fields |= _usage(record, item)
    item.fields["destinations"] = _codes(record, destinations, item)
    often = ("cronExpression",) if record.get("cronExpression") else ("scheduleType", "period", "offset")
    item.fields |= {name: record[name] for name in (*often, "dtCreated") if record.get(name)}
    if record.get("exportFileFormat", "CSV") != "CSV":
        item.fields["exportFileFormat"] = record["exportFileFormat"]
    return _checked(item, UsageSchedule if record.get("sourceType") == USAGE else ExportSchedule, record)


def _item(record: Record, fields: Mapping[str, Any], code: str) -> Item:
    name = _plain(record.get("name"))[:LONGEST_NAME].strip()
    item = Item({"code": code, **({"name": name} if name else {}), **fields})
    for field_name, given in (("code", code), ("name", name)):
        if record.get(field_name) and record[field_name] != given:
            item.notes.append(f"its {field_name} in m3ter is {record[field_name]!r}")
    return item


def _checked(item: Item, model: type[BaseModel], record: Record) -> Item:
    """The item, with the reasons why exports.yaml's own check refuses it, if it does."""
    if item.is_usable:
        try:
            model.model_validate(item.fields, by_alias=True, by_name=False)
        except ValidationError as refused:
            item.reasons += [f"it {one.words}" for one in refusals(refused, model)]
    if any("${" in str(value) for value in item.fields.values()):
        item.reasons.append("it has a value with ${, which exports.yaml takes for a variable of the environment")
    return item if item.is_usable else _with_the_rest(item, record)


def _with_the_rest(item: Item, record: Record) -> Item:
    """The item with all other fields of m3ter's record, for the person who adapts it."""
    known = {*item.fields, *ABOUT_THE_RECORD}
    item.fields |= {name: value for name, value in record.items() if name not in known and value not in (None, "CSV")}
    return item


def _reasons(record: Record) -> Iterator[str]:
    for name in ("sourceType", "scheduleType"):
        if record.get(name) in NOT_HERE:
            yield NOT_HERE[record[name]]
    if not record.get("destinationIds"):
        yield "it has no destination, m3ter only keeps its files for download; give it destinations"


def _data_types(record: Record, item: Item) -> Any:
    known: list[str] = []
    for name in record.get("operationalDataTypes") or []:
        try:
            known.append(find_entity(name).operational_data_type)
        except UnknownEntity:
            item.notes.append(f"{name!r} is not carried over: this project does not export it")
    if not known:
        item.reasons.append("it exports nothing that this project exports")
    return ALL if {*known} == {one.operational_data_type for one in operational_entities().values()} else known


def _usage(record: Record, item: Item) -> dict[str, Any]:
    """The fields of a usage schedule. The group by time becomes the aggregationFrequency."""
    fields = {name: record[name] for name in USAGE_FIELDS if record.get(name)}
    times = [group.get("frequency") for group in record.get("groups") or [] if group.get("groupType") == "TIME"]
    if times:
        fields["aggregationFrequency"] = times[0]
        fields["groups"] = [group for group in record["groups"] if group.get("groupType") != "TIME"]
    if record.get("aggregations") and not times:
        item.reasons.append("it aggregates over no time; give it an aggregationFrequency")
    return {name: value for name, value in fields.items() if value != []}


def _codes(record: Record, destinations: Mapping[str, Item], item: Item) -> list[str]:
    codes: list[str] = []
    for id in record.get("destinationIds") or []:
        found = destinations.get(id)
        if found is not None and found.is_usable:
            codes.append(found.fields["code"])
        else:
            named = repr(found.fields["code"]) if found else f"with the id {id!r}, which m3ter does not list"
            item.notes.append(f"its destination {named} is not carried over")
    if record.get("destinationIds") and not codes:
        item.reasons.append("none of its destinations is carried over; give it another")
    return list(dict.fromkeys(codes))


def _free_code(record: Record, taken: set[str], *, key: Callable[[str], str]) -> str:
    """The record's code, or one like it whose `key` is not taken yet."""
    code = _plain(record.get("code") or record.get("name"))[:LONGEST_CODE].strip() or str(record["id"])
    if NO_CHOICE.fullmatch(code) or (key(code) in RESERVED and key(code) in taken):
        code = f"{code[: LONGEST_CODE - 7]}_export"
    numbered, number = code, 1
    while key(numbered) in taken:
        number += 1
        numbered = f"{code[: LONGEST_CODE - 4]}_{number}"
    taken.add(key(numbered))
    return numbered


def _plain(text: str | None) -> str:
    """The text on one line, without anything that exports.yaml would take for an environment variable."""
    return "".join(letter if letter.isprintable() else " " for letter in text or "").replace("${", "$ {")
