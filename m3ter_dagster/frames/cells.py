"""Converts one JSON value to one cell of a column, exactly, or names the rule that it breaks. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

Value = str | int | float | bool | None

_INT64 = range(-(2**63), 2**63)


class Unfit(Exception):
    """The value does not fit its column. The text is the rule that it breaks and holds nothing of the value."""


def read_cell(type_: str, raw: bytes) -> Value:
    """The value of a column of `type_` for the JSON text `raw`; null is None whatever the type."""
    return None if raw == b"null" else _READERS[type_](raw)


def compact_json(type_: str, raws: Sequence[bytes]) -> list[str]:
    """JSON texts without white space between their parts; keys in their order, numbers with every digit.

    A repeated key or half a surrogate pair reads differently in every reader of the file, so both are refused.
    """
    opening = b"{" if type_ == "object" else b"["
    if not all(raw.startswith(opening) for raw in raws):
        raise Unfit(f"must be a JSON {type_}")
    if _holds_white_space(b"".join(raws)):
        raws = [msgspec.json.format(raw, indent=-1) if _holds_white_space(raw) else raw for raw in raws]
    if not _are_plainly_sound(b"[" + b",".join(raws) + b"]"):
        for raw in raws:
            _check_soundness(raw)
    return [raw.decode() for raw in raws]


def _holds_white_space(raw: bytes) -> bool:
    return b" " in raw or b"\n" in raw or b"\t" in raw or b"\r" in raw


def _are_plainly_sound(texts: bytes) -> bool:
    """A cheap check that can only be wrong in one direction: what it doubts is looked at closely.

    A repeated key is one `":` less once it was read, unless an escaped quote before a colon makes up for it.
    """
    if b"\\u0022" in texts:
        return False
    try:
        again = msgspec.json.encode(msgspec.json.decode(texts))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    return again.count(b'":') == texts.count(b'":')


def _check_soundness(text: bytes) -> None:
    try:
        value = json.loads(text, object_pairs_hook=_refuse_repeated, parse_float=str, parse_int=str)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Unfit("must be text that UTF-8 can hold; it has half a surrogate pair") from None
    except ValueError as error:
        raise Unfit(f"must be JSON ({error})") from None


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise Unfit("must not have a key twice")
    return found


def _read_string(raw: bytes) -> str:
    if not raw.startswith(b'"'):
        raise Unfit("must be text")
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Unfit("must be text that UTF-8 can hold; it has half a surrogate pair") from None


def _read_boolean(raw: bytes) -> bool:
    if raw not in (b"true", b"false"):
        raise Unfit("must be true or false")
    return raw == b"true"


def _read_integer(raw: bytes) -> int:
    """The integer in a JSON number: 10, 10.0 and 1e1 are all 10."""
    try:
        number = Decimal(raw.decode("ascii"))
    except (InvalidOperation, UnicodeDecodeError):
        raise Unfit("must be a whole number") from None
    if not number.is_finite() or number != number.to_integral_value():
        raise Unfit("must be a whole number")
    if not _INT64.start <= number < _INT64.stop:
        raise Unfit("must be a whole number of 64 bits")
    return int(number)


def _read_number(raw: bytes) -> float:
    if raw[:1] not in b"-0123456789":
        raise Unfit("must be a number")
    number = float(raw)
    if math.isinf(number):
        raise Unfit("must be a number that a float64 can hold")
    return number


_READERS: Mapping[str, Callable[[bytes], Value]] = {
    "array": lambda raw: compact_json("array", [raw])[0],
    "boolean": _read_boolean,
    "integer": _read_integer,
    "number": _read_number,
    "object": lambda raw: compact_json("object", [raw])[0],
    "string": _read_string,
}
