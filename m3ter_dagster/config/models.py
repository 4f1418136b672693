"""Export Destinations, and the whole of exports.yaml, as frozen models in m3ter's own field names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Discriminator, Field, Tag, TypeAdapter, field_validator, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core.core_schema import ValidationInfo

from m3ter_dagster.config.fields import (
    Age,
    BucketName,
    Code,
    Codes,
    ExternalId,
    FileModel,
    Folder,
    GcsBucketName,
    KmsKeyId,
    Name,
    Prefix,
    Region,
    RoleArn,
    ServiceAccount,
    TrueOrFalse,
    Url,
    rule,
)
from m3ter_dagster.config.names import USAGE, name_mistakes
from m3ter_dagster.config.notifications import Notifications, Owner
from m3ter_dagster.config.organizations import M3terOrganization
from m3ter_dagster.config.schedules import Completeness, ExportSchedule, FileFormat, completeness_field
from m3ter_dagster.config.usage import UsageRawByDay, UsageSchedule

DESTINATION_TYPES = "write S3, GCS or LOCAL"


class DestinationFields(FileModel):
    """What all Export Destinations have in common."""

    code: Code = Field(
        description="The name by which schedules and runs refer to this destination.", examples=["warehouse"]
    )
    name: Name = Field(default_factory=lambda data: data.get("code", ""), description="A name for people.")
    partition_order: Literal["TIME_FIRST", "TYPE_FIRST"] = Field(
        default="TIME_FIRST", description="Whether date and hour or the entity's type come first in object keys."
    )
    scheme: ClassVar[str]
    """How the addresses of its objects begin."""


class S3Destination(DestinationFields):
    """A bucket, and how to write to it."""

    scheme: ClassVar[str] = "s3"
    destination_type: Literal["S3"] = rule(DESTINATION_TYPES, default="S3", description="The kind of store.")
    bucket_name: BucketName = Field(description="The S3 bucket.", examples=["acme-m3ter-exports"])
    prefix: Prefix = Field(default="", description="The folder in the bucket; left out: the root of the bucket.")
    iam_role_arn: RoleArn | None = Field(
        default=None, description="The role to assume for writing; left out: the AWS credentials of the environment."
    )
    external_id: ExternalId | None = Field(default=None, description="The external id that the role asks for.")
    region: Region | None = Field(default=None, description="The AWS region; left out: that of the environment.")
    endpoint_url: Url | None = Field(default=None, description="The address of an S3-compatible store.")
    sts_endpoint_url: Url | None = Field(default=None, description="The address of its token service.")
    server_side_encryption: Literal["AES256", "aws:kms"] | None = Field(
        default=None, description="The encryption to ask for; left out: the bucket's own default."
    )
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


class GcsDestination(DestinationFields):
    """A bucket at Google Cloud Storage, written to with application-default credentials (extra `gcs`)."""

    scheme: ClassVar[str] = "gs"
    destination_type: Literal["GCS"] = rule(DESTINATION_TYPES, description="The kind of store.", examples=["GCS"])
    bucket_name: GcsBucketName = Field(description="The bucket.", examples=["acme-m3ter-exports"])
    prefix: Prefix = Field(default="", description="The folder in the bucket; left out: the root of the bucket.")
    service_account_email: ServiceAccount | None = Field(
        default=None,
        description="The service account to act as; left out: the Google credentials of the environment.",
    )


class LocalDestination(DestinationFields):
    """A folder on the machine that exports, or on a drive that is mounted there."""

    scheme: ClassVar[str] = "file"
    destination_type: Literal["LOCAL"] = rule(DESTINATION_TYPES, description="The kind of store.", examples=["LOCAL"])
    path: Folder = Field(
        description="The folder, which must exist; ~ stands for the home of the user who exports.",
        examples=["/srv/m3ter-exports"],
    )
    prefix: ClassVar[str] = ""
    """Object keys start in the folder."""


Destination = S3Destination | GcsDestination | LocalDestination
DESTINATIONS: dict[str, type[Destination]] = {"S3": S3Destination, "GCS": GcsDestination, "LOCAL": LocalDestination}
"""The models of destinations by their destinationType."""


def _destination_model(destination: Any) -> str:
    """The model of a destination, by its destinationType; without a valid one it is taken to be a bucket at S3."""
    return DESTINATIONS.get(str(_kind(destination, "destination_type")), S3Destination).__name__


def _schedule_model(schedule: Any) -> str:
    """The model of a schedule, by its sourceType; without a valid one it is taken to be operational."""
    return (UsageSchedule if _kind(schedule, "source_type") == USAGE else ExportSchedule).__name__


def _kind(item: Any, field: str) -> Any:
    """The field by which the model of an item is chosen, as the file or as Python has it."""
    if isinstance(item, Mapping):
        return item.get(to_camel(field)) or item.get(field)
    return getattr(item, field, None)


_Destination = Annotated[
    Annotated[S3Destination, Tag(S3Destination.__name__)]
    | Annotated[GcsDestination, Tag(GcsDestination.__name__)]
    | Annotated[LocalDestination, Tag(LocalDestination.__name__)],
    Discriminator(_destination_model),
]
AnySchedule = ExportSchedule | UsageSchedule
_Schedule = Annotated[
    Annotated[ExportSchedule, Tag(ExportSchedule.__name__)] | Annotated[UsageSchedule, Tag(UsageSchedule.__name__)],
    Discriminator(_schedule_model),
]

_SCHEDULE: TypeAdapter[AnySchedule] = TypeAdapter(_Schedule)


class Exports(FileFormat):
    """The whole of exports.yaml."""

    destinations: tuple[_Destination, ...] = rule(
        "write a list of destinations",
        min_length=1,
        description="Where exports go.",
        examples=[[{"code": "warehouse", "bucketName": "acme-m3ter-exports"}]],
    )
    organizations: tuple[M3terOrganization, ...] = rule(
        "write a list of organizations",
        default=(),
        description="The Organizations that are exported, where they are several; left out: that of the environment.",
        examples=[
            [
                {
                    "code": "production",
                    "orgId": "5a7d0c0e-4f0b-4f0e-9d7e-2f1f6f0d3b11",
                    "apiKey": "${M3TER_PRODUCTION_API_KEY}",
                    "apiSecret": "${M3TER_PRODUCTION_API_SECRET}",
                }
            ]
        ],
    )
    schedules: tuple[_Schedule, ...] = rule(
        "write a list of schedules", default=(), description="What is exported, where to, and how often."
    )
    default_destinations: Codes = Field(
        default_factory=lambda data: tuple(first.code for first in data.get("destinations", ())[:1]),
        description="Where an export goes that a person starts; left out: the first destination.",
    )
    owners: tuple[Owner, ...] = rule(
        "write a list of owners such as team:finance or data@acme.com",
        default=(),
        description="Who owns the exports, shown in Dagster.",
        examples=[["team:finance", "data@acme.com"]],
    )
    escape_formulas: TrueOrFalse = Field(
        default=False,
        description="For people who open CSV in a spreadsheet: texts that it would take for a formula (= + - @ at the "
        "start) get a ' in front. The files then no longer hold exactly what m3ter sent.",
    )
    completeness: Completeness | None = completeness_field("Left out: previous.")
    previews: TrueOrFalse = Field(
        default=False,
        description="Shows the first rows of each delivered file in Dagster, which keeps them in its database: those "
        "columns that are not personal (m3ter:personal in schemas/).",
    )
    ledger_check: TrueOrFalse = Field(
        default=False,
        description="Compares the transactions of each balance with m3ter's summary of them, which takes a request per "
        "balance: the check ledger of balance_transaction.",
    )
    keep_history: Age | None = Field(
        default=None,
        description="How long exports stay in Dagster's records, such as 90d or 12w: each day the job prune_history "
        "removes older ones, as m3ter-dagster prune does. Left out: nothing is removed by itself.",
    )
    usage_raw_by_day: UsageRawByDay | None = Field(
        default=None,
        description="An asset with a file of raw measurements per day, for backfills; left out: there is none.",
    )
    notifications: Notifications | None = Field(default=None, description="Whom to tell about exports.")

    def of(self, organization: M3terOrganization) -> Exports:
        """The exports of one Organization alone."""
        schedules = [one for one in self.schedules if organization.code in (one.organizations or [organization.code])]
        return self.model_copy(update={"organizations": (), "schedules": tuple(schedules)})

    def two_passes(self, schedule: ExportSchedule | None) -> bool | None:
        """Whether lists are read twice. None: where there is no previous export; False: not even there."""
        chosen = (schedule.completeness if schedule else None) or self.completeness
        return {"twoPasses": True, "onePass": False}.get(chosen or "")

    def schedule(self, code: str, otherwise: str | None = None) -> AnySchedule | None:
        """The schedule of this code, or, where it is gone, what its `definition` was. ValueError: that is none."""
        found = next((one for one in self.schedules if one.code == code), None)
        if found or otherwise is None:
            return found
        # It was allowed when it was written.
        return _SCHEDULE.validate_json(otherwise, context={"shortest_period": timedelta()})

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
