"""The kinds of value in exports.yaml and the environment: pydantic's constraints, and advice beside each.

Rules that no constraint can express are validators that raise a kind of error. The words are in `wording`.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from m3ter_dagster.model.cron import Cron

URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s/]+.*$"
YEARS = range(2000, 2101)
FASTEST = 50.0
"""m3ter answers at most this many requests a second per Organization."""
AGE = r"^([0-9]{1,5})([dw])$"
DAYS, MOST_DAYS = {"d": 1, "w": 7}, 36_500
AGES = f"write days or weeks, such as 90d or 12w, up to {MOST_DAYS}d"
DISTINCT = {"uniqueItems": True}
REFUSED = ("refused", "The advice beside the field says what is allowed.")
"""The kind of error for a rule that no constraint can express."""


def rule(advice: str, *, schema: Mapping[str, Any] | None = None, **constraints: Any) -> Any:
    """Pydantic's constraints with advice on what to write instead of a wrong value, for messages and editors."""
    return Field(json_schema_extra={"errorMessage": advice, **(schema or {})}, **constraints)


class FileModel(BaseModel):
    """What every part of exports.yaml is: frozen, written in camel case, without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, data: Any) -> Any:
        """`region:` with nothing behind it is `region` left out."""
        if not isinstance(data, Mapping):
            return data
        optional = {field.alias for field in cls.model_fields.values() if not field.is_required()}
        return {key: value for key, value in data.items() if value is not None or key not in optional}


def written_as(pattern: str) -> BeforeValidator:
    """Refuses what pydantic would read all the same: 1_0 and ' 5' as numbers, yes as true, true as 1."""

    def check(value: Any) -> Any:
        text = value if isinstance(value, str) else json.dumps(value, default=str)
        if not re.fullmatch(pattern, text):
            raise PydanticCustomError(*REFUSED)
        return value

    return BeforeValidator(check)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError(*REFUSED)
    return text


def _no_address(bucket: str) -> str:
    try:
        ipaddress.ip_address(bucket)
    except ValueError:
        return bucket
    raise PydanticCustomError(*REFUSED)


def _folders(prefix: str) -> str:
    folders = prefix.split("/") if prefix else []
    if any(folder in ("", ".", "..") for folder in folders) or len(prefix.encode()) > 512:
        raise PydanticCustomError(*REFUSED)
    return _printable(prefix)


def _absolute(path: Any) -> Path:
    """The path with the home in place of ~. A relative one would be another folder in each process of Dagster's."""
    try:
        found = Path(path).expanduser()
    except (RuntimeError, TypeError):
        raise PydanticCustomError(*REFUSED) from None
    if not found.is_absolute() or ".." in found.parts or not str(found).isprintable():
        raise PydanticCustomError(*REFUSED)
    return found


def is_address_of_a_host(text: str) -> bool:
    try:
        url = urlsplit(text)
        plain = text.isprintable() and " " not in text and not url.query and not url.fragment
        return plain and url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def without_password(value: Any) -> Any:
    """Refuses an address with a user or password, before any other rule, whose message would repeat the address."""
    if isinstance(value, str) and "@" in value:
        raise PydanticCustomError("url_password", "An address may not carry a user or password.")
    return value


def _url(text: str) -> str:
    if not is_address_of_a_host(text):
        raise PydanticCustomError(*REFUSED)
    return text.rstrip("/")


def keeps_the_secret(url: str, name: str) -> str:
    """Refuses an address of m3ter, the value of `name`, at which others could read the secret."""
    address = urlsplit(url)
    if address.scheme == "http" and not is_this_machine(address.hostname or ""):
        raise ValueError(
            f"has the {name} {url!r}; write https://, since over http:// anyone on the way could read the secret (it "
            "is for this machine alone)"
        )
    return url


def _moment(value: Any) -> datetime:
    """An aware time, in UTC."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        utc = moment.astimezone(UTC)
    except (OverflowError, TypeError, ValueError):
        raise PydanticCustomError(*REFUSED) from None
    if moment.tzinfo is None:
        raise PydanticCustomError("timezone_aware", "A moment needs a time zone.")
    if utc.year not in YEARS:
        raise PydanticCustomError("year", "The year is far off.", {"first": YEARS[0], "last": YEARS[-1]})
    return utc


def age(value: Any) -> timedelta:
    """The age that is written as days or weeks, such as 90d or 12w; ValueError for anything else."""
    found = re.fullmatch(AGE, value, re.ASCII) if isinstance(value, str) else None
    days = int(found[1]) * DAYS[found[2]] if found else 0
    if not 0 < days <= MOST_DAYS:
        raise PydanticCustomError(*REFUSED)
    return timedelta(days=days)


def _cron_expression(text: str) -> str:
    try:
        return Cron(" ".join(text.split())).expression
    except ValueError as error:
        raise ValueError(
            f"has the cronExpression {text!r}, and {error}; write such as 0 8-18 * * MON-FRI, times in UTC"
        ) from None


def _day(value: Any) -> date:
    try:
        day = value if isinstance(value, date) else date.fromisoformat(value)
    except (TypeError, ValueError):
        raise PydanticCustomError(*REFUSED) from None
    if day.year not in YEARS:
        raise PydanticCustomError("year", "The year is far off.", {"first": YEARS[0], "last": YEARS[-1]})
    return day


TrueOrFalse = Annotated[bool, written_as("true|false")]
Code = Annotated[
    str,
    rule(
        "write 1 to 80 characters without control characters and without a blank at either end",
        pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,78}[^\s\x00-\x1f\x7f])?$",
        title="code",
    ),
]
Codes = Annotated[tuple[Code, ...], rule("write a list of destination codes", min_length=1, schema=DISTINCT)]
Id = Annotated[
    str,
    rule("write an id as m3ter shows it: letters, digits, - and _", pattern=r"^[\w-]+$", max_length=80, title="id"),
]
Text = Annotated[
    str,
    rule("write 1 to 255 characters on one line", pattern=r"^[^\x00-\x1f\x7f]+$", max_length=255, title="text"),
]
Name = Annotated[
    str, rule("write 1 to 200 characters on one line", min_length=1, max_length=200), AfterValidator(_printable)
]
BucketName = Annotated[
    str,
    rule(
        "write the name of an S3 bucket: 3 to 63 lower-case letters, digits, dots and hyphens, a letter or digit at "
        "both ends, no two dots together, not an IP address",
        pattern=r"^[a-z0-9](\.?(-\.?)*[a-z0-9])*$",
        min_length=3,
        max_length=63,
    ),
    AfterValidator(_no_address),
]
GcsBucketName = Annotated[
    str,
    rule(
        "write the name of a bucket of Google Cloud Storage: 3 to 63 lower-case letters, digits, dots, hyphens and _, "
        "a letter or digit at both ends",
        pattern=r"^[a-z0-9][a-z0-9._-]*[a-z0-9]$",
        min_length=3,
        max_length=63,
    ),
]
Prefix = Annotated[
    str,
    rule(
        "write folders such as 'm3ter/exports': at most 512 bytes, none of them empty, '.' or '..', no control "
        "characters",
        max_length=512,
    ),
    BeforeValidator(lambda value: value.strip("/") if isinstance(value, str) else value),
    AfterValidator(_folders),
]
Folder = Annotated[
    Path,
    BeforeValidator(_absolute),
    rule(
        "write the absolute path of a folder without '..', such as /srv/m3ter-exports or ~/m3ter-exports",
        schema={"pattern": "^[/~]"},
    ),
]
RoleArn = Annotated[
    str,
    rule(
        "write the ARN of a role, such as arn:aws:iam::123456789012:role/m3ter-export",
        pattern=r"^arn:aws[a-z-]*:iam::\d+:role/.+$",
    ),
]
ServiceAccount = Annotated[
    str,
    rule(
        "write the address of a service account, such as m3ter-export@acme.iam.gserviceaccount.com",
        pattern=r"^[a-z0-9.-]+@[a-z0-9.-]+\.gserviceaccount\.com$",
    ),
]
ExternalId = Annotated[
    str,
    rule(
        "write 2 to 1224 letters, digits and +=,.@:/-_",
        pattern=r"^[A-Za-z0-9_+=,.@:/-]+$",
        min_length=2,
        max_length=1224,
        schema={"writeOnly": True},
    ),
]
"""Known only to this project and the owner of the role, so messages do not repeat a wrong one."""
Region = Annotated[
    str, rule("write a region such as eu-west-1", pattern=r"^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$")
]
Url = Annotated[
    str,
    rule("write an address such as https://store.example.com or http://host:9000", pattern=URL),
    BeforeValidator(without_password),
    AfterValidator(_url),
]
OrganizationId = Annotated[
    str, rule("write the id alone, letters, digits, - and _", pattern="^[A-Za-z0-9_-]+$", title="id")
]
"""It becomes part of addresses and object keys."""
RequestsPerSecond = Annotated[
    float,
    rule(
        f"write a number above 0 and at most {FASTEST:g}, which is what m3ter answers per Organization",
        gt=0,
        le=FASTEST,
    ),
]
KmsKeyId = Annotated[str, rule("write a key's id, alias or ARN", pattern=r"^\S+$")]
Count = Annotated[int, Field(ge=1, le=10_000), written_as("[0-9]{1,9}")]
Offset = Annotated[int, Field(ge=1, le=59), written_as("[0-9]{1,9}")]
CronExpression = Annotated[
    str,
    rule(
        "write minute, hour, day of the month, month and weekday, such as 0 8-18 * * MON-FRI", schema={"minLength": 9}
    ),
    AfterValidator(_cron_expression),
]
DaysToKeep = Annotated[int, Field(ge=1, le=10_000), written_as("[0-9]{1,9}")]
FullEvery = Annotated[int, Field(ge=2, le=10_000), written_as("[0-9]{1,9}")]
Age = Annotated[
    timedelta, BeforeValidator(age), WithJsonSchema({"type": "string", "pattern": AGE, "errorMessage": AGES})
]
Moment = Annotated[
    datetime, BeforeValidator(_moment), rule("write the moment with its zone, such as 2024-06-01T10:00:00Z")
]
Day = Annotated[date, BeforeValidator(_day), rule("write the day, such as 2024-01-01")]
Frequency = Literal["HOUR", "DAY", "WEEK", "MONTH"]
