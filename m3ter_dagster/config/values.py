"""The kinds of value in exports.yaml: text in, checked value out, errors that complete "schedule 'nightly' ..."."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema
from pydantic.alias_generators import to_camel

BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
ROLE = r"arn:aws[a-z-]*:iam::\d+:role/.+"
CODE = r"[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]{0,78}[^\s\x00-\x1f\x7f])?"
REGION = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
EXTERNAL_ID = r"[\w+=,.@:/-]{2,1224}"
URL = r"https?://[^\s/]+.*"
LONGEST_PERIOD = 10_000
YEARS = range(2000, 2101)
_MOMENT = "write the moment with its zone, such as 2024-06-01T10:00:00Z"


def unknown(value: str, known: Iterable[str]) -> str:
    """What is known instead of `value`, and which of it was probably meant."""
    names = sorted(known)
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=0.6)
    meant = f" Did you mean {folded[near[0]]!r}?" if near and len(names) > 5 else ""
    return f"known are {', '.join(names)}.{meant}"


def _true_or_false(value: Any, info: ValidationInfo) -> bool:
    if value in (True, False, "true", "false"):
        return value in (True, "true")
    raise ValueError(f"has the {to_camel(info.field_name or '')} {value!r}; write true or false")


TrueOrFalse = Annotated[bool, BeforeValidator(_true_or_false)]


def a_text(field: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"has {a_kind_of(value)} as {field}; write one text")
    return value


def a_kind_of(value: Any) -> str:
    kinds = {list: "a list", tuple: "a list", dict: "a mapping", type(None): "nothing"}
    return kinds.get(type(value), f"the value {value!r}")


def _matching(field: str, pattern: str, advice: str) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not re.fullmatch(pattern, a_text(field, value)):
            raise ValueError(f"has the {field} {value!r}; write {advice}")
        return value

    return check


def _name(value: Any) -> str:
    text = a_text("name", value)
    if not 1 <= len(text) <= 200 or not text.isprintable():
        raise ValueError(f"has the name {text!r}; write 1 to 200 characters on one line")
    return text


def _bucket(value: Any) -> str:
    text = a_text("bucketName", value)
    if not re.fullmatch(BUCKET, text) or ".." in text or _is_address(text):
        raise ValueError(
            f"has the bucketName {text!r}; write the name of an S3 bucket: 3 to 63 lower-case letters, digits, dots "
            "and hyphens, a letter or digit at both ends, no two dots together, not an IP address"
        )
    return text


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _prefix(value: Any) -> str:
    text = a_text("prefix", value).strip("/")
    folders = text.split("/") if text else []
    if any(folder in ("", ".", "..") for folder in folders) or len(text.encode()) > 512 or not text.isprintable():
        raise ValueError(
            f"has the prefix {value!r}; write folders such as 'm3ter/exports': at most 512 bytes, "
            "none of them empty, '.' or '..', no control characters"
        )
    return text


def http_url(field: str, value: Any) -> str:
    """An http(s) address with a host; one that may carry a password is refused without repeating it."""
    text = a_text(field, value)
    if "@" in text:
        raise ValueError(f"has a user or password in {field}; write the address without them")
    if not is_address_of_a_host(text):
        raise ValueError(
            f"has the {field} {text!r}; write an address such as https://store.example.com or http://host:9000"
        )
    return text.rstrip("/")


def is_address_of_a_host(text: str) -> bool:
    try:
        url = urlsplit(text)
        plain = text.isprintable() and " " not in text and not url.query and not url.fragment
        return plain and url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _period(value: Any) -> int:
    """A whole number; int() alone would take '5_0', ' 5' and True."""
    if not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,9}", str(value)) and 1 <= int(value) <= LONGEST_PERIOD:
        return int(value)
    raise ValueError(f"has the period {value!r}; write a whole number from 1 to {LONGEST_PERIOD}, such as 5")


def _moment(value: Any) -> datetime:
    """An aware time, in UTC."""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(a_text("dtCreated", value))
        utc = moment.astimezone(UTC)
    except (OverflowError, ValueError):
        raise ValueError(f"has the dtCreated {value!r}; {_MOMENT}") from None
    if moment.tzinfo is None:
        raise ValueError(f"has the dtCreated {str(value)!r}, which has no time zone; {_MOMENT}")
    if utc.year not in YEARS:
        raise ValueError(f"has the dtCreated {str(value)!r}; write a moment from {YEARS[0]} to {YEARS[-1]}")
    return utc


def one_of(field: str, *allowed: str, hidden: tuple[str, ...] = ()) -> Callable[[Any], str]:
    """Exactly one of the allowed words; hidden ones are taken and not offered."""

    def check(value: Any) -> str:
        if a_text(field, value) not in (*allowed, *hidden):
            raise ValueError(f"has the {field} {value!r}; write {' or '.join(allowed)}")
        return value

    return check


def _schema(**keywords: Any) -> WithJsonSchema:
    return WithJsonSchema(keywords)


def _pattern(pattern: str, **more: Any) -> WithJsonSchema:
    return _schema(type="string", pattern=f"^{pattern}$", **more)


_code = _matching("code", CODE, "1 to 80 characters without control characters and without a blank at either end")
_role = _matching("iamRoleArn", ROLE, "the ARN of a role, such as arn:aws:iam::123456789012:role/m3ter-export")
_region = _matching("region", REGION, "a region such as eu-west-1")
_id = _matching("id", r"[\w-]{1,80}", "an id as m3ter shows it: letters, digits, - and _")
_text = _matching("text", r"[^\x00-\x1f\x7f]{1,255}", "1 to 255 characters on one line")
_kms_key = _matching("kmsKeyId", r"\S+", "a key's id, alias or ARN")


def _external_id(value: Any) -> str:
    """Shared with the owner of the role alone, so a wrong one is not repeated."""
    text = a_text("externalId", value)
    if not re.fullmatch(EXTERNAL_ID, text, re.ASCII):
        raise ValueError("has an externalId that AWS refuses; write 2 to 1224 letters, digits and +=,.@:/-_")
    return text


def _url(field: str) -> BeforeValidator:
    return BeforeValidator(lambda value: http_url(field, value))


Code = Annotated[str, BeforeValidator(_code), _pattern(CODE)]
Id = Annotated[str, BeforeValidator(_id), _pattern(r"[\w-]{1,80}")]
Text = Annotated[str, BeforeValidator(_text), _schema(type="string", minLength=1, maxLength=255)]
Name = Annotated[str, BeforeValidator(_name), _schema(type="string", minLength=1, maxLength=200)]
BucketName = Annotated[str, BeforeValidator(_bucket), _pattern(BUCKET)]
Prefix = Annotated[str, BeforeValidator(_prefix), _schema(type="string", maxLength=512)]
RoleArn = Annotated[str, BeforeValidator(_role), _pattern(ROLE)]
ExternalId = Annotated[str, BeforeValidator(_external_id), _pattern(EXTERNAL_ID)]
Region = Annotated[str, BeforeValidator(_region), _pattern(REGION)]
EndpointUrl = Annotated[str, _url("endpointUrl"), _pattern(URL)]
StsEndpointUrl = Annotated[str, _url("stsEndpointUrl"), _pattern(URL)]
KmsKeyId = Annotated[str, BeforeValidator(_kms_key), _pattern(r"\S+")]
Period = Annotated[int, BeforeValidator(_period), _schema(type="integer", minimum=1, maximum=LONGEST_PERIOD)]
Moment = Annotated[datetime, BeforeValidator(_moment), _schema(type="string", format="date-time")]
