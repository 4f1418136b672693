"""Export Schedules of usage data (measurements), and what they choose, in m3ter's own field names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.file_model import FileModel
from m3ter_dagster.config.schedule_fields import LISTED, ScheduleFields, choice, list_of
from m3ter_dagster.config.usage_items import FREQUENCIES, DimensionFilter, Ids, UsageAggregation, UsageGroup
from m3ter_dagster.config.values import unknown
from m3ter_dagster.model.time_periods import TIME_PERIODS

RAW, AGGREGATED = "usage_raw", "usage_aggregated"
"""The assets that a usage schedule exports: the one or the other."""
RAW_BY_DAY = "usage_raw_by_day"
USAGE_ASSETS = (RAW, AGGREGATED, RAW_BY_DAY)

ORIGINAL = "ORIGINAL"


def _time_period(value: Any) -> str:
    if not isinstance(value, str) or value not in TIME_PERIODS:
        raise ValueError(f"has the timePeriod {value!r}; {unknown(str(value), TIME_PERIODS)}")
    return value


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
