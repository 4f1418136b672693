"""Export Schedules of usage data (measurements), and what they choose, in m3ter's own field names."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.file_model import FileModel
from m3ter_dagster.config.schedule_fields import LISTED, ScheduleFields, choice, list_of
from m3ter_dagster.config.values import Id, Text, unknown
from m3ter_dagster.time_periods import TIME_PERIODS

ALL = "ALL"
RAW, AGGREGATED = "usage_raw", "usage_aggregated"
"""The assets that a usage schedule exports: the one or the other."""
RAW_BY_DAY = "usage_raw_by_day"
USAGE_ASSETS = (RAW, AGGREGATED, RAW_BY_DAY)

ORIGINAL = "ORIGINAL"
FREQUENCIES = ("HOUR", "DAY", "WEEK", "MONTH")
FUNCTIONS = {"MEASURE": ("SUM", "MIN", "MAX", "COUNT", "LATEST", "MEAN"), "DIMENSION": ("COUNT", "UNIQUE")}


def _ids(value: Any, inner: ValidatorFunctionWrapHandler) -> tuple[str, ...]:
    """None at all stands for all, in code; in the file that would rather be a mistake."""
    return () if value in (ALL, ()) else inner(value)


Ids = Annotated[tuple[Id, ...], list_of("ids, or ALL"), WrapValidator(_ids)]


def _time_period(value: Any) -> str:
    if not isinstance(value, str) or value not in TIME_PERIODS:
        raise ValueError(f"has the timePeriod {value!r}; {unknown(str(value), TIME_PERIODS)}")
    return value


class DimensionFilter(FileModel):
    """Only measurements with one of these values in the field."""

    meter_id: Id = Field(description="The meter that has the field.", examples=["<meter id>"])
    field_code: Text = Field(description="The code of a field that is no number.", examples=["region"])
    values: Annotated[tuple[Text, ...], list_of("texts")] = Field(
        description="The values that are wanted.", examples=[["EU"]], json_schema_extra={"minItems": 1}
    )


class UsageAggregation(FileModel):
    """A field, and how its values become one."""

    meter_id: Id = Field(description="The meter that has the field.", examples=["<meter id>"])
    field_code: Text = Field(description="The code of the field.", examples=["gb"])
    field_type: Annotated[Literal["MEASURE", "DIMENSION"], *choice("fieldType", "MEASURE", "DIMENSION")] = Field(
        default="MEASURE", description="Whether the field holds numbers or text."
    )
    function: Annotated[
        Literal["SUM", "MIN", "MAX", "COUNT", "LATEST", "MEAN", "UNIQUE"],
        *choice("function", *FUNCTIONS["MEASURE"], "UNIQUE"),
    ] = Field(description="A measure has all but UNIQUE, a dimension COUNT and UNIQUE.", examples=["SUM"])

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
    """What aggregated values are kept apart by."""

    group_type: Annotated[
        Literal["ACCOUNT", "TIME", "DIMENSION"], *choice("groupType", "ACCOUNT", "TIME", "DIMENSION")
    ] = Field(description="The kind of group.", examples=["ACCOUNT"])
    frequency: Annotated[Literal["HOUR", "DAY", "WEEK", "MONTH"], *choice("frequency", *FREQUENCIES)] | None = Field(
        default=None, description="For TIME: the same as aggregationFrequency."
    )
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

    time_period: Annotated[str, BeforeValidator(_time_period), WithJsonSchema({"enum": list(TIME_PERIODS)})] = Field(
        description="The time of the measurements, relative to the moment the export is due (UTC).",
        examples=["YESTERDAY"],
    )
    meter_ids: Ids = Field(default=(), description="The meters, or ALL.", json_schema_extra=LISTED)
    account_ids: Ids = Field(default=(), description="The accounts, or ALL.", json_schema_extra=LISTED)
    dimension_filters: Annotated[tuple[DimensionFilter, ...], list_of("filters", at_least=0)] = Field(
        default=(), description="Only measurements that pass all of these."
    )
    groups: Annotated[tuple[UsageGroup, ...], list_of("groups", at_least=0)] = Field(
        default=(), description="What aggregated values are kept apart by, beside time."
    )
    aggregation_frequency: Annotated[
        Literal["ORIGINAL", "HOUR", "DAY", "WEEK", "MONTH"],
        *choice("aggregationFrequency", ORIGINAL, *FREQUENCIES),
    ] = Field(
        default_factory=lambda data: _frequency_of(data.get("groups", ())),
        description="ORIGINAL: the measurements as they are. Otherwise values are aggregated over this time.",
        validate_default=True,
    )
    aggregations: Annotated[tuple[UsageAggregation, ...], list_of("aggregations", at_least=0)] = Field(
        default=(), description="The fields of aggregated exports, each with its function.", validate_default=True
    )

    @field_validator("aggregation_frequency")
    @classmethod
    def _is_that_of_the_groups(cls, value: str, info: ValidationInfo) -> str:
        groups = info.data.get("groups", ())
        if groups and value == ORIGINAL:
            raise ValueError("has groups and the aggregationFrequency 'ORIGINAL'; leave out groups, or write another")
        if _frequency_of(groups) not in (ORIGINAL, value):
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


class UsageSchedule(UsageSelection, ScheduleFields):
    """Which measurements to export, whereto, and how often."""

    source_type: Annotated[Literal["USAGE"], *choice("sourceType", "USAGE")] = Field(
        description="The kind of data.", examples=["USAGE"]
    )

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
        """What it chooses, in the words of the file."""
        chosen = self.model_dump(by_alias=True, mode="json", exclude_none=True)
        fields = {str(field.alias) for field in UsageSelection.model_fields.values()}
        return {name: value for name, value in chosen.items() if name in fields and value != []}


def _frequency_of(groups: tuple[UsageGroup, ...]) -> str:
    return next((group.frequency for group in groups if group.frequency), ORIGINAL)
