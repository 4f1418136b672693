"""Export Destinations and Export Schedules as frozen models, in m3ter's own field names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.file_model import FileModel
from m3ter_dagster.config.names import name_mistakes
from m3ter_dagster.config.notifications import OptionalNotifications, Owner
from m3ter_dagster.config.schedule_fields import LISTED, ScheduleFields, choice, list_of
from m3ter_dagster.config.usage import UsageSchedule
from m3ter_dagster.config.values import (
    BucketName,
    Code,
    EndpointUrl,
    ExternalId,
    KmsKeyId,
    Name,
    Prefix,
    Region,
    RoleArn,
    StsEndpointUrl,
    TrueOrFalse,
    a_text,
    one_of,
    unknown,
)
from m3ter_dagster.model.entities import UnknownEntity, entities, find_entity

ALL = "ALL"
OPERATIONAL, USAGE = "OPERATIONAL", "USAGE"


def _entity_name(value: Any) -> str:
    name = a_text("operationalDataTypes", value)
    try:
        return find_entity(name).name
    except UnknownEntity:
        known = [ALL, *data_types()]
        raise ValueError(f"names the operational data type {name!r}; {unknown(name, known)}") from None


def data_types() -> list[str]:
    """m3ter's names of the entities, in the canonical order."""
    return [entity.operational_data_type for entity in entities().values()]


class Destination(FileModel):
    """A bucket, and how to write to it."""

    code: Code = Field(
        description="The name by which schedules and runs refer to this destination.", examples=["warehouse"]
    )
    name: Name = Field(default_factory=lambda data: data.get("code", ""), description="A name for people.")
    destination_type: Annotated[Literal["S3"], *choice("destinationType", "S3")] = Field(
        default="S3", description="The kind of store."
    )
    bucket_name: BucketName = Field(description="The S3 bucket.", examples=["acme-m3ter-exports"])
    prefix: Prefix = Field(default="", description="The folder in the bucket; left out: the root of the bucket.")
    partition_order: Annotated[
        Literal["TIME_FIRST", "TYPE_FIRST"], *choice("partitionOrder", "TIME_FIRST", "TYPE_FIRST")
    ] = Field(default="TIME_FIRST", description="Whether date and hour or the entity's type come first in object keys.")
    iam_role_arn: RoleArn | None = Field(
        default=None, description="The role to assume for writing; left out: the AWS credentials of the environment."
    )
    external_id: ExternalId | None = Field(default=None, description="The external id that the role asks for.")
    region: Region | None = Field(default=None, description="The AWS region; left out: that of the environment.")
    endpoint_url: EndpointUrl | None = Field(default=None, description="The address of an S3-compatible store.")
    sts_endpoint_url: StsEndpointUrl | None = Field(default=None, description="The address of its token service.")
    server_side_encryption: (
        Annotated[Literal["AES256", "aws:kms"], *choice("serverSideEncryption", "AES256", "aws:kms")] | None
    ) = Field(default=None, description="The encryption to ask for; left out: the bucket's own default.")
    kms_key_id: KmsKeyId | None = Field(default=None, description="The key, for serverSideEncryption aws:kms.")

    @field_validator("external_id")
    @classmethod
    def _needs_role(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("iam_role_arn", "") is None:
            raise ValueError("has an externalId and no iamRoleArn; write the iamRoleArn that asks for it")
        return value

    @field_validator("kms_key_id")
    @classmethod
    def _needs_kms(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("server_side_encryption", "aws:kms") != "aws:kms":
            raise ValueError(f"has the kmsKeyId {value!r}; it needs serverSideEncryption: aws:kms")
        return value


class ExportSchedule(ScheduleFields):
    """Which entities to export, whereto, and how often."""

    source_type: Annotated[
        Literal["OPERATIONAL"],
        BeforeValidator(one_of("sourceType", OPERATIONAL, USAGE)),
        WithJsonSchema({"enum": [OPERATIONAL]}),
    ] = Field(default="OPERATIONAL", description="The kind of data.")
    operational_data_types: Annotated[
        tuple[Annotated[str, BeforeValidator(_entity_name)], ...],
        list_of("entities such as [ACCOUNTS, BILLS], or ALL"),
    ] = Field(description="The entities to export, or ALL.", examples=[["ACCOUNTS", "BILLS"], ALL])

    @field_validator("operational_data_types", mode="before")
    @classmethod
    def _all(cls, value: Any) -> Any:
        return list(entities()) if value == ALL or (isinstance(value, (list, tuple)) and ALL in value) else value

    @field_validator("operational_data_types")
    @classmethod
    def _in_order(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in entities() if name in names)

    @property
    def asset_names(self) -> tuple[str, ...]:
        return self.operational_data_types


def _kind(schedule: Any) -> str:
    """Which model a schedule is read by; what has no sourceType, or a wrong one, is taken for operational."""
    is_mapping = isinstance(schedule, Mapping)
    given = (schedule.get("sourceType") or schedule.get("source_type")) if is_mapping else _source_type(schedule)
    return USAGE if given == USAGE else OPERATIONAL


def _source_type(schedule: Any) -> Any:
    return getattr(schedule, "source_type", None)


AnySchedule = ExportSchedule | UsageSchedule
_Schedule = Annotated[
    Annotated[ExportSchedule, Tag(OPERATIONAL)] | Annotated[UsageSchedule, Tag(USAGE)], Discriminator(_kind)
]


class Exports(FileModel):
    """The whole of exports.yaml."""

    destinations: Annotated[tuple[Destination, ...], list_of("destinations")] = Field(
        description="Where exports go.",
        examples=[[{"code": "warehouse", "bucketName": "acme-m3ter-exports"}]],
        json_schema_extra={"minItems": 1},
    )
    schedules: Annotated[tuple[_Schedule, ...], list_of("schedules", at_least=0)] = Field(
        default=(), description="What is exported, whereto, and how often."
    )
    default_destinations: Annotated[tuple[Code, ...], list_of("destination codes")] = Field(
        default_factory=lambda data: tuple(first.code for first in data.get("destinations", ())[:1]),
        description="Where an export goes that a person starts; left out: the first destination.",
        json_schema_extra=LISTED,
    )
    owners: Annotated[tuple[Owner, ...], list_of("owners such as team:finance or data@acme.com", at_least=0)] = Field(
        default=(), description="Who owns the exports, shown in Dagster.", examples=[["team:finance", "data@acme.com"]]
    )
    escape_formulas: TrueOrFalse = Field(
        default=False,
        description="For people who open files in a spreadsheet: texts that it would take for a formula (= + - @ at "
        "the start) get a ' in front. The files then no longer hold exactly what m3ter sent.",
    )
    previews: TrueOrFalse = Field(
        default=False,
        description="Shows the first rows of each delivered file in Dagster, which keeps them in its database: those "
        "columns that are not personal (m3ter:personal in schemas/).",
    )
    notifications: OptionalNotifications = Field(default=None, description="Whom to tell about exports.")

    def destination(self, code: str) -> Destination:
        return next(destination for destination in self.destinations if destination.code == code)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        mistakes = [
            f"{'.'.join(map(str, loc))} {words}" for loc, words in name_mistakes(self.model_dump(by_alias=True))
        ]
        if mistakes:
            raise ValueError("; ".join(mistakes))
        return self
