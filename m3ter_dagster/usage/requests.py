"""What a usage selection means for one Organization: the columns of its file, and the request to m3ter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from m3ter_dagster.config import UsageSelection
from m3ter_dagster.config.usage import UsageAggregation
from m3ter_dagster.m3ter.errors import UnknownMeters
from m3ter_dagster.model.time_periods import Window
from m3ter_dagster.usage.columns import UsageTable, aggregated_table, raw_table
from m3ter_dagster.usage.meters import Meter


def chosen_meters(selection: UsageSelection, meters: Sequence[Meter]) -> list[Meter]:
    """The selected meters in their order, or all of them. UnknownMeters if one does not exist."""
    by_id = {meter.id: meter for meter in meters}
    ids = selection.meter_ids or tuple(dict.fromkeys(one.meter_id for one in selection.aggregations)) or tuple(by_id)
    if unknown := [one for one in ids if one not in by_id]:
        raise UnknownMeters("meter", unknown)
    chosen = [by_id[one] for one in ids]
    if fields := list(_unknown_fields(selection, chosen)):
        raise UnknownMeters("meter field", fields)
    return chosen


def aggregations_of(selection: UsageSelection, meters: Sequence[Meter]) -> tuple[UsageAggregation, ...]:
    """The aggregations that the selection names, or else the sum of every measure."""
    if selection.aggregations or selection.is_raw:
        return selection.aggregations
    measures = ((meter, field) for meter in meters for field in meter.fields if field.is_number)
    return tuple(
        UsageAggregation(meter_id=meter.id, field_code=field.code, function="SUM") for meter, field in measures
    )


def table_of(name: str, selection: UsageSelection, meters: Sequence[Meter]) -> UsageTable:
    if selection.is_raw:
        return raw_table(name, meters)
    by_id = {meter.id: meter for meter in meters}
    groups = [(group.meter_id, group.field_code) for group in selection.groups if group.group_type == "DIMENSION"]
    aggregated = aggregations_of(selection, meters)
    return aggregated_table(
        name,
        frequency=selection.aggregation_frequency,
        aggregated=[(_name(by_id, one.meter_id, one.field_code), one.function) for one in aggregated],
        dimensions=[_name(by_id, meter_id, code) for meter_id, code in groups],
        has_accounts=_has_accounts(selection),
    )


def request_body(selection: UsageSelection, window: Window, meters: Sequence[Meter]) -> dict[str, Any]:
    """m3ter's AdHocUsageDataExportConfigurationRequest. It has no destination, so that the file can be downloaded."""
    body: dict[str, Any] = {
        "sourceType": "USAGE",
        "exportFileFormat": "CSV",
        "startDate": _iso(window.start),
        "endDate": _iso(window.end),
        "meterIds": list(selection.meter_ids),
        "accountIds": list(selection.account_ids),
        "dimensionFilters": [one.model_dump(by_alias=True, mode="json") for one in selection.dimension_filters],
        "aggregations": [one.model_dump(by_alias=True) for one in aggregations_of(selection, meters)],
        "groups": [] if selection.is_raw else list(_groups(selection)),
    }
    return {name: value for name, value in body.items() if value != []}


def _groups(selection: UsageSelection) -> Iterator[dict[str, Any]]:
    """The groups of a request. Selected accounts are kept apart, as in the published schema."""
    if _has_accounts(selection):
        yield {"groupType": "ACCOUNT"}
    yield {"groupType": "TIME", "frequency": selection.aggregation_frequency}
    for group in selection.groups:
        if group.group_type == "DIMENSION":
            yield group.model_dump(by_alias=True, exclude_none=True)


def _has_accounts(selection: UsageSelection) -> bool:
    return bool(selection.account_ids) or any(group.group_type == "ACCOUNT" for group in selection.groups)


def _unknown_fields(selection: UsageSelection, meters: Sequence[Meter]) -> Iterator[str]:
    by_id = {meter.id: meter for meter in meters}
    named = [*selection.aggregations, *selection.dimension_filters, *(one for one in selection.groups if one.meter_id)]
    for one in named:
        meter = by_id.get(one.meter_id or "")
        if meter is None or meter.field(one.field_code or "") is None:
            yield f"{one.field_code} of {one.meter_id}"


def _name(meters: dict[str, Meter], meter_id: str | None, code: str | None) -> str:
    field = meters[meter_id or ""].field(code or "")
    assert field
    return field.name


def _iso(moment: datetime) -> str:
    return f"{moment.isoformat(timespec='milliseconds')[:-6]}Z"
