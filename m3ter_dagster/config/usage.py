"""Export Schedules of usage data (measurements), and what they choose, in m3ter's own field names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator, field_validator, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.fields import DISTINCT, Day, FileModel, Frequency, Id, Text, rule
from m3ter_dagster.config.names import ALL
from m3ter_dagster.config.schedules import ScheduleFields
from m3ter_dagster.model.time_periods import TIME_PERIODS

if TYPE_CHECKING:
    TimePeriod = str
else:
    TimePeriod = Literal[tuple(TIME_PERIODS)]

RAW, AGGREGATED = "usage_raw", "usage_aggregated"
"""Each usage schedule exports one or the other of these assets."""
RAW_BY_DAY = "usage_raw_by_day"
USAGE_ASSETS = (RAW, AGGREGATED, RAW_BY_DAY)

ORIGINAL = "ORIGINAL"
FREQUENCIES: tuple[str, ...] = get_args(Frequency)
FUNCTIONS = {"MEASURE": ("SUM", "MIN", "MAX", "COUNT", "LATEST", "MEAN"), "DIMENSION": ("COUNT", "UNIQUE")}


def _ids(value: Any, inner: ValidatorFunctionWrapHandler) -> tuple[str, ...]:
    """In code an empty list means all; in the file it is more likely a mistake."""
    return () if value in (ALL, ()) else inner(value)


IdList = Annotated[tuple[Id, ...], rule("write a list of ids, or ALL", min_length=1, schema=DISTINCT)]
Ids = Annotated[IdList, WrapValidator(_ids, json_schema_input_type=Literal["ALL"] | IdList)]


class DimensionFilter(FileModel):
    """A filter: only measurements with one of these values in the field."""

    meter_id: Id = Field(description="The meter that has the field.", examples=["<meter id>"])
    field_code: Text = Field(description="The code of a field that is no number.", examples=["region"])
    values: tuple[Text, ...] = rule(
        "write a list of texts", min_length=1, description="The values that are wanted.", examples=[["EU"]]
    )


class UsageAggregation(FileModel):
    """A field, and the function that makes one value of many."""

    meter_id: Id = Field(description="The meter that has the field.", examples=["<meter id>"])
    field_code: Text = Field(description="The code of the field.", examples=["gb"])
    field_type: Literal["MEASURE", "DIMENSION"] = Field(
        default="MEASURE", description="Whether the field holds numbers or text."
    )
    function: Literal["SUM", "MIN", "MAX", "COUNT", "LATEST", "MEAN", "UNIQUE"] = Field(
        description="A measure has all but UNIQUE, a dimension COUNT and UNIQUE.", examples=["SUM"]
    )

    @field_validator("function")
    @classmethod
    def _fits_the_field(cls, value: str, info: ValidationInfo) -> str:
        field_type = info.data.get("field_type")
        if field_type and value not in FUNCTIONS[field_type]:
            raise ValueError(
                f"has the function {value!r} for a field of the type {field_type}; "
                f"write {' or '.join(FUNCTIONS[field_type])}"
            )
        return value


class UsageGroup(FileModel):
    """What aggregated values are grouped by."""

    group_type: Literal["ACCOUNT", "TIME", "DIMENSION"] = Field(description="The kind of group.", examples=["ACCOUNT"])
    frequency: Frequency | None = Field(default=None, description="For TIME: the same as aggregationFrequency.")
    meter_id: Id | None = Field(default=None, description="For DIMENSION: the meter that has the field.")
    field_code: Text | None = Field(default=None, description="For DIMENSION: the code of the field.")

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> Self:
        needed = {"ACCOUNT": (), "TIME": ("frequency",), "DIMENSION": ("meterId", "fieldCode")}[self.group_type]
        given = self.model_dump(by_alias=True, exclude={"group_type"}, exclude_none=True)
        if set(given) != set(needed):
            takes = " and ".join(needed) or "nothing else"
            raise ValueError(f"has a group with the groupType {self.group_type}, which takes {takes}; write that")
        return self


class UsageSelection(FileModel):
    """Which measurements, and how they are aggregated."""

    time_period: TimePeriod = Field(
        description="The time of the measurements, relative to the moment the export is due (UTC).",
        examples=["YESTERDAY"],
    )
    meter_ids: Ids = Field(default=(), description="The meters, or ALL.")
    account_ids: Ids = Field(default=(), description="The accounts, or ALL.")
    dimension_filters: tuple[DimensionFilter, ...] = rule(
        "write a list of filters", default=(), description="Only measurements that pass all of these."
    )
    groups: tuple[UsageGroup, ...] = rule(
        "write a list of groups", default=(), description="What aggregated values are grouped by, besides time."
    )
    aggregation_frequency: Literal["ORIGINAL", "HOUR", "DAY", "WEEK", "MONTH"] = Field(
        default_factory=lambda data: next(
            (group.frequency for group in data.get("groups", ()) if group.frequency), ORIGINAL
        ),
        description="ORIGINAL: the measurements as they are. Otherwise values are aggregated over this time.",
        validate_default=True,
    )
    aggregations: tuple[UsageAggregation, ...] = rule(
        "write a list of aggregations",
        default=(),
        description="The fields of aggregated exports, each with its function.",
        validate_default=True,
    )

    @field_validator("dimension_filters", "groups", "aggregations")
    @classmethod
    def _are_of_the_meters(cls, value: tuple[Any, ...], info: ValidationInfo) -> tuple[Any, ...]:
        chosen = info.data.get("meter_ids")
        for one in value:
            if chosen and one.meter_id not in (None, *chosen):
                raise ValueError(
                    f"has {to_camel(str(info.field_name))} of the meter {one.meter_id!r} and meterIds without it; "
                    f"meterIds has {', '.join(chosen)}"
                )
        return value

    @field_validator("aggregation_frequency")
    @classmethod
    def _is_that_of_the_groups(cls, value: str, info: ValidationInfo) -> str:
        groups = info.data.get("groups", ())
        if groups and value == ORIGINAL:
            raise ValueError("has groups and the aggregationFrequency 'ORIGINAL'; leave out groups, or write another")
        if any(group.frequency not in (None, value) for group in groups):
            raise ValueError(f"has the aggregationFrequency {value!r} and a group by another; write it once")
        return value

    @field_validator("aggregations")
    @classmethod
    def _are_of_one_kind(
        cls, value: tuple[UsageAggregation, ...], info: ValidationInfo
    ) -> tuple[UsageAggregation, ...]:
        frequency = info.data.get("aggregation_frequency")
        if value and frequency == ORIGINAL:
            raise ValueError(
                "has aggregations and no aggregationFrequency to aggregate over; "
                f"write aggregationFrequency: {' or '.join(FREQUENCIES)}"
            )
        if len(set(value)) < len(value):
            raise ValueError("has an aggregation twice; write it once")
        return value

    @property
    def is_raw(self) -> bool:
        return self.aggregation_frequency == ORIGINAL


class UsageRawByDay(FileModel):
    """The asset usage_raw_by_day: a file of raw measurements per day (UTC), for backfills of the past."""

    first_day: Day = Field(description="The day of its first partition.", examples=["2024-01-01"])


class UsageSchedule(UsageSelection, ScheduleFields):
    """Which measurements to export, where to, and how often."""

    source_type: Literal["USAGE"] = Field(description="The kind of data.", examples=["USAGE"])

    @field_validator("aggregations")
    @classmethod
    def _are_there(cls, value: tuple[UsageAggregation, ...], info: ValidationInfo) -> tuple[UsageAggregation, ...]:
        frequency = info.data.get("aggregation_frequency", ORIGINAL)
        if frequency != ORIGINAL and not value:
            raise ValueError(
                f"has the aggregationFrequency {frequency!r} and no aggregations; write at least one, such as "
                "{meterId: <meter id>, fieldCode: gb, function: SUM}"
            )
        return value

    @property
    def asset_names(self) -> tuple[str, ...]:
        return (RAW if self.is_raw else AGGREGATED,)

    @property
    def selection(self) -> dict[str, Any]:
        """The selection of the schedule, in the words of the file."""
        chosen = self.model_dump(by_alias=True, mode="json", exclude_none=True)
        fields = {str(field.alias) for field in UsageSelection.model_fields.values()}
        return {name: value for name, value in chosen.items() if name in fields and value != []}
