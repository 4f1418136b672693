"""Deterministic ids, times and texts: one seed always draws the same sample organization."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from hashlib import blake2b
from random import Random
from typing import Any

Record = dict[str, Any]
"""A record of the API, with the API's field names. Decimals are numbers with more digits than a float keeps."""

MONTHS = 18
"""The sample's history: the months from January 2024."""

TEXTS = (
    "Acme Ltd",
    "Ångström & Söhne GmbH",
    '"Quoted" Industries, Inc.',
    "株式会社サンプル",
    "Line one\nline two",
    "Windows line\r\nanother, with comma",
    "O'Neill; Partners | Co\t(tabbed)",
    "Émile 🚀 Zoë",
    "=SUM(A1:A9)",
    "NA",
    " blanks around ",
    "شركة المثال",
    "back\\slash and ,,commas,,",
    "null",
    "x",
)
CUSTOM_NUMBERS = (
    Decimal("0.12345678901234567890123456789"),
    Decimal("12345678901234567890.5"),
    0.1,
    1e-7,
    42,
)


@dataclass(frozen=True)
class Seed:
    """Draws ids and random streams by name, so that any record can be made, and referred to, without the others."""

    number: int

    def id(self, kind: str, *numbers: int) -> str:
        text = blake2b(f"{self.number}/{kind}/{numbers}".encode(), digest_size=16).hexdigest()
        return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:]}"

    def random(self, kind: str, *numbers: int) -> Random:
        return Random(f"{self.number}/{kind}/{numbers}")


def month(number: int) -> datetime:
    """The start of a month of the sample's history."""
    return datetime(2024 + number // 12, number % 12 + 1, 1, tzinfo=UTC)


def date_time(moment: datetime) -> str:
    """ISO 8601 as the API writes it: `2024-01-31T10:00:00.250Z`."""
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def date(moment: datetime) -> str:
    return moment.isoformat()[:10]


def text(random: Random) -> str:
    return TEXTS[int(random.random() * len(TEXTS))]


@cache
def users(seed: Seed) -> tuple[str, ...]:
    return tuple(seed.id("user", number) for number in range(5))


def audit(random: Random, seed: Seed, created: datetime) -> Record:
    """The fields that every record ends with; some were never changed, and some have no author."""
    draw = random.random()
    created_text = date_time(created)
    changed = date_time(created + timedelta(seconds=int(draw * 9e5))) if draw > 0.3 else created_text
    return {
        "version": 1 + int(draw * 6),
        "dtCreated": created_text,
        "dtLastModified": changed,
        "createdBy": users(seed)[int(draw * 5)],
        "lastModifiedBy": users(seed)[int(draw * 3)] if draw > 0.1 else None,
    }


def moment(random: Random, first: datetime, days: int) -> datetime:
    """Some millisecond of the `days` after `first`."""
    return first + timedelta(milliseconds=int(random.random() * days * 86_400_000))


def configured(random: Random) -> datetime:
    """When a part of the catalog was made: in the quarter before the first month."""
    return moment(random, month(0) - timedelta(days=90), 90)


def custom_fields(random: Random) -> Record:
    number = CUSTOM_NUMBERS[int(random.random() * len(CUSTOM_NUMBERS))]
    return {"crm id": f"CRM-{int(random.random() * 1e6)}", "score": number, "Überschrift": text(random), "empty": ""}


def some(random: Random, **fields: Any) -> Record:
    """Optional fields: most of the time all are there, sometimes one is null, now and then all are absent."""
    draw = random.random()
    if draw < 0.15:
        return {}
    if draw < 0.3:
        return {**fields, next(iter(fields)): None}
    return fields
