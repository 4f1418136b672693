"""What every Export Schedule has, whatever it exports, and the kinds of field that the models share."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.file_model import FileModel
from m3ter_dagster.config.names import dagster_name
from m3ter_dagster.config.values import Code, Moment, Name, Period, a_kind_of, one_of
from m3ter_dagster.model.cadence import Cadence

LISTED: dict[str, Any] = {"minItems": 1, "uniqueItems": True}


def choice(field: str, *allowed: str, hidden: tuple[str, ...] = ()) -> tuple[BeforeValidator, WithJsonSchema]:
    return BeforeValidator(one_of(field, *allowed, hidden=hidden)), WithJsonSchema({"enum": list(allowed)})


def list_of(what: str, *, at_least: int = 1) -> BeforeValidator:
    """A list that is long enough, or an error that says of what."""

    def check(value: Any, info: ValidationInfo) -> list[Any]:
        field = to_camel(str(info.field_name))
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"has {a_kind_of(value)} as {field}; write a list of {what}")
        if len(value) < at_least:
            raise ValueError(f"has an empty list as {field}; write at least one of {what}")
        return list(value)

    return BeforeValidator(check)


class ScheduleFields(FileModel):
    """Whereto, and how often."""

    code: Code = Field(
        description="The schedule's name in Dagster; characters other than A-Z a-z 0-9 _ become _.",
        examples=["nightly"],
    )
    name: Name = Field(default_factory=lambda data: data.get("code", ""), description="A name for people.")
    destinations: Annotated[tuple[Code, ...], list_of("destination codes")] = Field(
        description="The codes of the destinations that get each export.",
        examples=[["warehouse"]],
        json_schema_extra=LISTED,
    )
    schedule_type: Annotated[
        Literal["HOUR", "DAY", "MINUTE"], *choice("scheduleType", "HOUR", "DAY", hidden=("MINUTE",))
    ] = Field(description="The unit of the period.", examples=["DAY"])
    period: Period = Field(description="The number of hours or days from one export to the next.", examples=[5])
    dt_created: Moment = Field(
        description="When the schedule was created, with a time zone: the first export is due at once, later ones "
        "whole periods after this moment.",
        examples=["2024-06-01T10:00:00Z"],
    )

    @property
    def dagster_name(self) -> str:
        return dagster_name(self.code)

    @property
    def job_name(self) -> str:
        return f"export_{self.dagster_name}"

    @property
    def cadence(self) -> Cadence:
        return Cadence(self.schedule_type, self.period, self.dt_created)
