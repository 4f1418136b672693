"""Export Schedules of entities, and what all Export Schedules have in common, in m3ter's own field names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.data_types import EntityNames, ExcludedColumns, with_sets
from m3ter_dagster.config.fields import (
    Code,
    Codes,
    Count,
    CronExpression,
    DaysToKeep,
    FileModel,
    FullEvery,
    Moment,
    Name,
    Offset,
    TrueOrFalse,
    rule,
)
from m3ter_dagster.config.names import ALL, OPERATIONAL, USAGE, dagster_name, job_name
from m3ter_dagster.config.organizations import OrganizationCodes
from m3ter_dagster.model.cadence import Cadence, Period
from m3ter_dagster.model.cron import Cron
from m3ter_dagster.model.entities import entities, find_entity
from m3ter_dagster.model.entity import Entity


class FileFormat(FileModel):
    """How files are written: those of a schedule, or those of the exports that people start."""

    export_file_format: Literal["CSV", "JSONL", "PARQUET"] = Field(
        default="CSV", description="The format of the files: of a schedule's exports, or of those that a person starts."
    )
    compression: Literal["GZIP"] | None = rule(
        "write GZIP, or leave it out",
        default=None,
        description="GZIP: files of CSV or JSONL are compressed (.csv.gz, .jsonl.gz). PARQUET is compressed in itself.",
    )

    typed: TrueOrFalse = Field(
        default=False,
        description="With PARQUET: fields that m3ter's API documents as dates and times are written as such (times in "
        "UTC), and an entity in which one is neither is not delivered. Left out: they stay m3ter's text. Measurements "
        "have no such fields.",
    )

    @field_validator("compression")
    @classmethod
    def _is_not_that_of_parquet(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("export_file_format") == "PARQUET":
            raise ValueError(f"has the compression {value!r} and PARQUET, which is compressed in itself; leave it out")
        return value

    @field_validator("typed")
    @classmethod
    def _is_that_of_parquet(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("export_file_format", "PARQUET") != "PARQUET":
            raise ValueError("has typed: true, which only exportFileFormat: PARQUET has; write that, or leave it out")
        return value


SHORTEST_MINUTES = 15
"""From one export to the next, as in m3ter."""
MOST_HOURS = 23
_OFTEN: JsonDict = {
    "anyOf": [
        {"required": ["scheduleType", "period"]},
        {"required": ["cronExpression"], "properties": dict.fromkeys(("scheduleType", "period", "offset"), False)},
    ],
    "if": {"required": ["scheduleType"], "properties": {"scheduleType": {"const": "MINUTE"}}},
    "then": {"properties": {"period": {"minimum": SHORTEST_MINUTES}, "offset": False}},
}
"""For editors: by period or by cron, and not too often."""


def shortest_period(info: ValidationInfo) -> timedelta:
    """The shortest time between two exports that is allowed, unless whoever validates says otherwise."""
    return (info.context or {}).get("shortest_period", timedelta(minutes=SHORTEST_MINUTES))


def _minutes(time: timedelta) -> str:
    return f"{time // timedelta(minutes=1)} minutes"


class ScheduleFields(FileFormat):
    """What all Export Schedules have in common: where to, and how often."""

    model_config = ConfigDict(json_schema_extra=_OFTEN)

    code: Code = Field(
        description="The schedule's name in Dagster; characters other than A-Z a-z 0-9 _ become _.",
        examples=["nightly"],
    )
    name: Name = Field(default_factory=lambda data: data.get("code", ""), description="A name for people.")
    destinations: Codes = Field(
        description="The codes of the destinations that get each export.", examples=[["warehouse"]]
    )
    organizations: OrganizationCodes = Field(
        default=(),
        description="The codes of the organizations that it exports, each by itself; needed where there are several.",
        examples=[["production"]],
    )
    cron_expression: CronExpression | None = Field(
        default=None,
        description="Instead of scheduleType and period: the times of the exports, as cron has them (UTC), at least "
        f"{SHORTEST_MINUTES} minutes apart.",
        examples=["0 8-18 * * MON-FRI"],
    )
    schedule_type: Literal["HOUR", "DAY", "MINUTE"] | None = Field(
        default=None, description="The unit of the period.", examples=["DAY"], validate_default=True
    )
    period: Count | None = Field(
        default=None,
        description="The number of minutes, hours or days from one export to the next; of minutes at least "
        f"{SHORTEST_MINUTES}.",
        examples=[5],
        validate_default=True,
    )
    offset: Offset | None = Field(
        default=None,
        description="With DAY: how many hours after midnight (UTC) the exports are due that follow the first; with "
        "HOUR: how many minutes after the full hour. Left out: at the time of day, or minute, of dtCreated.",
        examples=[5],
    )
    dt_created: Moment = Field(
        description="When the schedule was created, with a time zone: the first export is due at once, later ones "
        "whole periods after this moment.",
        examples=["2024-06-01T10:00:00Z"],
    )

    @property
    def definition(self) -> str:
        """The schedule as JSON, for `Exports.schedule`."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)

    @property
    def dagster_name(self) -> str:
        return dagster_name(self.code)

    @property
    def job_name(self) -> str:
        return job_name(self.code)

    @property
    def cadence(self) -> Cadence:
        if self.cron_expression:
            return Cadence(Cron(self.cron_expression), self.dt_created)
        assert self.schedule_type
        assert self.period
        return Cadence(Period(self.schedule_type, self.period, self.dt_created, self.offset or 0), self.dt_created)

    @field_validator("cron_expression")
    @classmethod
    def _is_not_due_too_often(cls, value: str | None, info: ValidationInfo) -> str | None:
        shortest = shortest_period(info)
        if value and Cron(value).shortest < shortest:
            raise ValueError(
                f"has the cronExpression {value!r}, which is due {_minutes(Cron(value).shortest)} after the time "
                f"before; write one whose times are at least {_minutes(shortest)} apart"
            )
        return value

    @field_validator("schedule_type", "period")
    @classmethod
    def _is_there_or_a_cron_expression(cls, value: Any, info: ValidationInfo) -> Any:
        is_by_cron = info.data.get("cron_expression", "") is not None  # a wrong one is there, too
        if value is None and not is_by_cron:
            raise PydanticCustomError("missing", "Without a cron expression it is needed.")
        if value is not None and is_by_cron:
            raise ValueError(f"has a cronExpression and the {to_camel(str(info.field_name))} {value!r}; write only one")
        return value

    @field_validator("period")
    @classmethod
    def _is_not_too_short(cls, value: int | None, info: ValidationInfo) -> int | None:
        shortest = shortest_period(info)
        if value and info.data.get("schedule_type") == "MINUTE" and timedelta(minutes=value) < shortest:
            raise ValueError(
                f"has the period {value} of scheduleType MINUTE; write {shortest // timedelta(minutes=1)} or more"
            )
        return value

    @field_validator("offset")
    @classmethod
    def _is_within_the_unit(cls, value: int | None, info: ValidationInfo) -> int | None:
        unit = info.data.get("schedule_type", "")
        if value and unit in ("MINUTE", None):
            what = f"the scheduleType {unit}" if unit else "a cronExpression"
            raise ValueError(f"has the offset {value} and {what}, which takes none; leave the offset out")
        if value and unit == "DAY" and value > MOST_HOURS:
            raise ValueError(f"has the offset {value}, which with DAY is in hours; write 1 to {MOST_HOURS}")
        return value


Completeness = Literal["previous", "twoPasses", "onePass"]


def completeness_field(otherwise: str) -> Any:
    """How it is proven that nothing is missing."""
    return rule(
        "write previous, twoPasses or onePass",
        default=None,
        description="How it is proven that nothing is missing although rows are deleted while lists are read. "
        "previous: rows of the previous export that are missing are asked for, and where there is none every list of "
        "more than a page is read twice. twoPasses: always twice. onePass: never, not even the first time. "
        f"{otherwise}",
    )


_FULL_EVERY = 7


class ExportSchedule(ScheduleFields):
    """Which entities to export, where to, and how often."""

    source_type: Literal["OPERATIONAL"] = rule(
        f"write {OPERATIONAL} or {USAGE}", default=OPERATIONAL, description="The kind of data."
    )
    operational_data_types: Annotated[
        EntityNames,
        BeforeValidator(with_sets, json_schema_input_type=Literal["ALL", "ALL_AND_REFERENCES"] | EntityNames),
    ] = Field(
        description="The entities to export; ALL, which are those of m3ter's own exports; or ALL_AND_REFERENCES, which "
        "are also those that their rows refer to.",
        examples=[["ACCOUNTS", "BILLS"], ALL],
    )
    reuse: Literal["unchangedBills"] | None = rule(
        "write unchangedBills, or leave it out",
        default=None,
        description="unchangedBills: line items of bills that did not change since the schedule's previous export are "
        "taken from its file, and only the others read. Left out: all are read.",
        validate_default=True,
    )
    full_every: FullEvery = Field(
        default=_FULL_EVERY,
        description="With reuse: every so many exports all line items are read, and compared with what reuse would "
        "have given.",
    )

    completeness: Completeness | None = completeness_field("Left out: as the file says for all exports.")
    deleted_rows: Literal["INCLUDE", "OMIT"] = rule(
        "write INCLUDE or OMIT",
        default="INCLUDE",
        description="INCLUDE: a row that m3ter has no more stands in the exports with its last values and deleted = "
        "true. OMIT: it is left out.",
    )
    keep_deleted_for: DaysToKeep = Field(
        default=90, description="For how many days a deleted row stands in the exports."
    )
    changes: TrueOrFalse = Field(
        default=False,
        description="Beside each entity's file, deliver one of the rows that were added, changed, deleted or removed "
        "since the schedule's previous export.",
    )

    exclude_columns: ExcludedColumns = Field(
        default=(),
        description="By entity, columns that are left out of the files and kept nowhere else. Not keys, times, and "
        "amounts that are checked.",
        examples=[{"account": ["address", "emailAddress"]}],
    )

    @property
    def asset_names(self) -> tuple[str, ...]:
        return self.operational_data_types

    @property
    def excluded(self) -> Mapping[str, tuple[str, ...]]:
        """By the entity's name."""
        return dict(self.exclude_columns)

    @property
    def kept_deleted(self) -> timedelta | None:
        return timedelta(days=self.keep_deleted_for) if self.deleted_rows == "INCLUDE" else None

    @property
    def reused(self) -> tuple[Entity, ...]:
        """The entities of which rows are taken from the previous export."""
        return tuple(map(find_entity, _reusable(self.operational_data_types))) if self.reuse else ()

    @field_validator("reuse")
    @classmethod
    def _has_what_it_is_about(cls, value: str | None, info: ValidationInfo) -> str | None:
        chosen = info.data.get("operational_data_types")
        if value and chosen and not _reusable(chosen):
            known = entities()
            pairs = [(known[name].listing.parent or "", name) for name in _reusable(tuple(known))]
            needed = " or ".join(" and ".join(known[one].operational_data_type for one in pair) for pair in pairs)
            raise ValueError(f"has the reuse {value!r}, which needs the operationalDataTypes {needed}; write them too")
        return value

    @field_validator("exclude_columns")
    @classmethod
    def _is_of_what_is_exported(cls, value: ExcludedColumns, info: ValidationInfo) -> ExcludedColumns:
        chosen = info.data.get("operational_data_types", [name for name, _ in value])
        others = [name for name, _ in value if name not in chosen]
        if others:
            raise ValueError(f"has excludeColumns of {others[0]!r}, which it does not export; leave them out")
        return value

    @field_validator("full_every")
    @classmethod
    def _belongs_to_reuse(cls, value: int, info: ValidationInfo) -> int:
        if value != _FULL_EVERY and info.data.get("reuse", value) is None:
            raise ValueError("has a fullEvery without reuse, where it does nothing; write reuse, too, or leave it out")
        return value


def _reusable(names: tuple[str, ...]) -> list[str]:
    """Those of the entities whose rows need not be read again while their parents, chosen too, do not change."""
    lists = {name: entities()[name].listing.per_parent for name in names}
    return [name for name, one in lists.items() if one and one.unchanged_by and one.entity in lists]
