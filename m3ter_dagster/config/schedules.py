"""Export Schedules of entities, and what all Export Schedules have in common, in m3ter's own field names."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.fields import (
    Code,
    Codes,
    DaysToKeep,
    FileModel,
    FullEvery,
    Moment,
    Name,
    Period,
    TrueOrFalse,
    rule,
)
from m3ter_dagster.config.names import ALL, OPERATIONAL, USAGE, dagster_name, job_name
from m3ter_dagster.model.cadence import Cadence
from m3ter_dagster.model.entities import Entity, UnknownEntity, entities, find_entity
from m3ter_dagster.model.suggestions import known_names


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

    @field_validator("compression")
    @classmethod
    def _is_not_that_of_parquet(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value and info.data.get("export_file_format") == "PARQUET":
            raise ValueError(f"has the compression {value!r} and PARQUET, which is compressed in itself; leave it out")
        return value


class ScheduleFields(FileFormat):
    """What all Export Schedules have in common: where to, and how often."""

    code: Code = Field(
        description="The schedule's name in Dagster; characters other than A-Z a-z 0-9 _ become _.",
        examples=["nightly"],
    )
    name: Name = Field(default_factory=lambda data: data.get("code", ""), description="A name for people.")
    destinations: Codes = Field(
        description="The codes of the destinations that get each export.", examples=[["warehouse"]]
    )
    # MINUTE is for the tests of this project; editors and messages do not offer it.
    schedule_type: Literal["HOUR", "DAY", "MINUTE"] = Field(
        description="The unit of the period.", examples=["DAY"], json_schema_extra={"enum": ["HOUR", "DAY"]}
    )
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
        return job_name(self.code)

    @property
    def cadence(self) -> Cadence:
        return Cadence(self.schedule_type, self.period, self.dt_created)


def data_types() -> list[str]:
    """m3ter's names of the entities, in the canonical order."""
    return [entity.operational_data_type for entity in entities().values()]


def _entity_name(name: str) -> str:
    try:
        return find_entity(name).name
    except UnknownEntity:
        known = [ALL, *data_types()]
        raise ValueError(f"names the operational data type {name!r}; {known_names(name, known)}") from None


def _all_entities(value: Any) -> Any:
    return list(entities()) if value == ALL or (isinstance(value, (list, tuple)) and ALL in value) else value


def _in_order(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in entities() if name in names)


def _offered_names(schema: dict[str, Any]) -> None:
    schema["enum"] = [ALL, *data_types(), *entities()]


EntityName = Annotated[
    str, AfterValidator(_entity_name), Field(title="operational data type", json_schema_extra=_offered_names)
]
EntityNames = Annotated[
    tuple[EntityName, ...],
    rule("write a list of entities such as [ACCOUNTS, BILLS], or ALL", min_length=1),
    AfterValidator(_in_order),
]


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
        EntityNames, BeforeValidator(_all_entities, json_schema_input_type=Literal["ALL"] | EntityNames)
    ] = Field(description="The entities to export, or ALL.", examples=[["ACCOUNTS", "BILLS"], ALL])
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

    @property
    def asset_names(self) -> tuple[str, ...]:
        return self.operational_data_types

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
