"""The tables of usage exports, whose columns follow from the meters: m3ter's published Measurement schema. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from m3ter_dagster.model.entity import Column, ForeignKey
from m3ter_dagster.usage.meters import Meter

TIME_PARTS = {"MONTH": 1, "WEEK": 2, "DAY": 3, "HOUR": 4}
"""How many of the columns month, week, day and hour an aggregated export has."""
TYPE = "measurements"
"""The type in the keys of measurements, in the place of an entity's name."""
METER, TIME, UID, ACCOUNT, YEAR = "meter_id", "timestamp", "uid", "account_id", "year"
FIXED_COLUMNS = {
    METER: "The meter it belongs to.",
    TIME: "When it was measured; of aggregated values, when their hour, day, week or month began.",
    UID: "The id that the measurement was sent with.",
    "ets": "When the measured time ended, where it is a span.",
    "received_at": "When m3ter received it.",
    ACCOUNT: "The account it belongs to.",
    **{part: f"The {part} of the timestamp, as m3ter gives it." for part in (YEAR, "month", "week", "day", "hour")},
}
"""The columns that the document names, raw or aggregated, and their types; all others are fields of meters."""


@dataclass(frozen=True)
class UsageTable:
    """The columns of one usage export, in the order of the document."""

    name: str
    columns: tuple[Column, ...]
    primary_key: str | None
    table_schema: str
    """A Table Schema as JSON text."""

    @property
    def foreign_keys(self) -> tuple[ForeignKey, ...]:
        keys = (ForeignKey(METER, "meter"), ForeignKey(ACCOUNT, "account"))
        names = {column.name for column in self.columns}
        return tuple(key for key in keys if key.column in names)


def raw_table(name: str, meters: Sequence[Meter]) -> UsageTable:
    """Every field of every meter, dimensions as text and measures as numbers."""
    fields = [(f"{field.name} (ORIGINAL)", field.is_number) for meter in meters for field in meter.fields]
    fixed = [_key(METER), _key(TIME), _key(UID), _text("ets"), _text("received_at"), _text(ACCOUNT)]
    return _table(name, [*fixed, *_fields(fields)], primary_key=UID)


def aggregated_table(
    name: str,
    *,
    frequency: str,
    aggregated: Iterable[tuple[str, str]],
    dimensions: Iterable[str] = (),
    has_accounts: bool,
) -> UsageTable:
    """The columns of an aggregated export, for fields with their functions (`aggregated`) and fields to group by."""
    fixed = [_key(METER), _key(TIME), _text(YEAR), *([_text(ACCOUNT)] if has_accounts else [])]
    fields = [(f"{field} (ORIGINAL)", False) for field in dimensions]
    fields += [(f"{field} ({function})", True) for field, function in aggregated]
    parts = [_text(part) for part in ("month", "week", "day", "hour")[: TIME_PARTS[frequency]]]
    return _table(name, [*fixed, *_fields(fields), *parts], primary_key=None)


def table_in(name: str, schema: Mapping[str, Any]) -> UsageTable:
    """The table that a Table Schema of this module describes."""
    columns = [
        _column(one["name"], one["type"], required=one.get("constraints", {}).get("required", False))
        for one in schema["fields"]
    ]
    return UsageTable(name, tuple(columns), schema.get("primaryKey"), json.dumps(schema, ensure_ascii=False))


def _fields(named: Iterable[tuple[str, bool]]) -> list[Column]:
    """The columns of fields. Fields of one name share a column, which is text unless all of them hold numbers."""
    are_numbers: dict[str, bool] = {}
    for name, is_number in named:
        are_numbers[name] = are_numbers.get(name, True) and is_number
    return [_column(name, "number" if is_number else "string") for name, is_number in are_numbers.items()]


def _key(name: str) -> Column:
    return _column(name, "string", required=True)


def _text(name: str) -> Column:
    return _column(name, "string")


def _column(name: str, type: str, *, required: bool = False) -> Column:
    return Column(
        name=name,
        type=type,
        description=FIXED_COLUMNS.get(name, ""),
        required=required,
        non_empty=required,
        is_personal=name == UID or (type == "string" and name not in FIXED_COLUMNS),
    )


def _table(name: str, columns: list[Column], *, primary_key: str | None) -> UsageTable:
    schema: dict[str, Any] = {"fields": [_field(column) for column in columns]}
    if primary_key:
        schema["primaryKey"] = primary_key
    names = {column.name for column in columns}
    references = {METER: "meter", ACCOUNT: "account"}
    schema["foreignKeys"] = [
        {"fields": column, "reference": {"resource": entity, "fields": "id"}}
        for column, entity in references.items()
        if column in names
    ]
    return UsageTable(name, tuple(columns), primary_key, json.dumps(schema, ensure_ascii=False))


def _field(column: Column) -> dict[str, Any]:
    required = {"constraints": {"required": True, "minLength": 1}} if column.required else {}
    personal = {"m3ter:personal": True} if column.is_personal else {}
    return {"name": column.name, "type": column.type, **required, **personal}
