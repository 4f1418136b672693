"""What a usage schedule lists: ids, filters, aggregations and groups, in m3ter's own field names."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.file_model import FileModel
from m3ter_dagster.config.schedule_fields import choice, list_of
from m3ter_dagster.config.values import Id, Text

ALL = "ALL"
FREQUENCIES = ("HOUR", "DAY", "WEEK", "MONTH")
FUNCTIONS = {"MEASURE": ("SUM", "MIN", "MAX", "COUNT", "LATEST", "MEAN"), "DIMENSION": ("COUNT", "UNIQUE")}


def _ids(value: Any, inner: ValidatorFunctionWrapHandler) -> tuple[str, ...]:
    """None at all stands for all, in code; in the file that would rather be a mistake."""
    return () if value in (ALL, ()) else inner(value)


Ids = Annotated[tuple[Id, ...], list_of("ids, or ALL"), WrapValidator(_ids)]


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
