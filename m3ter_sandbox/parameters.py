"""The query parameters of m3ter's lists: what they accept and which records they select."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Keys = Mapping[str, Any]
"""The fields of a record that some parameter looks at."""


class InvalidParameter(ValueError):
    """A parameter, or a value, that m3ter refuses with status 400."""


@dataclass(frozen=True)
class Parameter:
    fields: tuple[str, ...] = ()
    selects: Callable[[Keys, Any], bool] | None = None
    """None: the parameter says how to answer, not which records."""
    parse: Callable[[str], Any] = str
    is_exact: bool = False
    """The value of the one field: found by an index, not by a scan."""
    is_list: bool = False
    """May be repeated, or hold several values with commas between."""

    def read(self, name: str, texts: list[str]) -> Any:
        if self.is_list:
            return frozenset(value for text in texts for value in text.split(","))
        if len(texts) > 1:
            raise InvalidParameter(f"{name} is given {len(texts)} times; it takes one value.")
        try:
            return self.parse(texts[0])
        except ValueError:
            raise InvalidParameter(f"{name} does not take the value {texts[0]!r}.") from None


def day(text: str) -> str:
    """The date of a date or date-time."""
    datetime.fromisoformat(text)
    return text[:10]


def boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def exactly(field: str, *values: str) -> Parameter:
    """The empty text finds the records without the field; `values`, if given, are all that is accepted."""

    def parse(text: str) -> str:
        if values and text not in values:
            raise ValueError(text)
        return text

    return Parameter((field,), lambda keys, asked: (keys[field] or "") == asked, parse, is_exact=True)


def one_of(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: keys[field] in asked, is_list=True)


def holding(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: asked in (keys[field] or ()))


def at_least(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: (keys[field] or "")[:10] >= asked, day)


def before(field: str) -> Parameter:
    return Parameter((field,), lambda keys, asked: "" < (keys[field] or "")[:10] < asked, day)


def active_on() -> Parameter:
    return Parameter(("startDate", "endDate"), is_active, day)


def is_active(keys: Keys, at: str) -> bool:
    """Started and not ended at a date (`2025-01-31`) or a moment (`2025-01-31T10:00:00`)."""
    end = keys["endDate"]
    return (keys["startDate"] or "")[: len(at)] <= at and (not end or at < end[: len(at)])


def answer_option() -> Parameter:
    return Parameter(parse=boolean)


def answer_fields() -> Parameter:
    return Parameter(is_list=True)
