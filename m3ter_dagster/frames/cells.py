"""Converts one JSON value to one cell of a column, exactly, or names the rule that it breaks. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Any

import msgspec

Value = str | int | float | bool | None

_INT64 = range(-(2**63), 2**63)
_ANY = msgspec.json.Decoder()
_FLAT = {
    "array": msgspec.json.Decoder(list[dict[str, Any]] | None),
    "object": msgspec.json.Decoder(dict[str, Any] | None),
}


class Unfit(Exception):
    """The value does not fit its column. The text is the rule that it breaks and holds nothing of the value."""


def read_cell(type_: str, raw: bytes) -> Value:
    """The value of a column of `type_` for the JSON text `raw`; null is None whatever the type."""
    try:
        return None if raw == b"null" else _READERS[type_](raw)
    except RecursionError:
        raise Unfit("must not be nested too deeply to be read") from None


def compact_json(type_: str, raws: Sequence[bytes | msgspec.Raw]) -> list[str | None]:
    """JSON texts without white space between their parts, None for null; keys in their order, numbers with every digit.

    A repeated key or half a surrogate pair reads differently in every reader of the file, so both are refused.
    """
    if not raws:
        return []
    # All are looked at together, a line each: a compact text holds no line break.
    lines = b"\n".join(raws)
    if _holds_white_space(lines, breaks=len(raws) - 1):
        texts = map(bytes, raws)
        lines = b"\n".join(msgspec.json.format(one, indent=-1) if _holds_white_space(one) else one for one in texts)
    cells = lines.decode().split("\n")
    nulls = cells.count("null")
    if not _are_soundly_flat(type_, lines, len(cells)):
        opening = "{" if type_ == "object" else "["
        if sum(cell.startswith(opening) for cell in cells) + nulls != len(cells):
            raise Unfit(f"must be a JSON {type_}")
        if not _are_soundly_nested(lines):
            for text in lines.split(b"\n"):
                _check_soundness(text)
    return [None if cell == "null" else cell for cell in cells] if nulls else [*cells]


def _holds_white_space(text: bytes, *, breaks: int = 0) -> bool:
    """Whether there is any, apart from so many line breaks."""
    return b" " in text or b"\t" in text or b"\r" in text or text.count(b"\n") > breaks


def _are_soundly_flat(type_: str, lines: bytes, number: int) -> bool:
    """Whether all are null, or of `type_` with objects of which none repeats a key. Only a yes is certain.

    Behind each key stands `":`, so texts that hold no more of these than keys were read repeat none. Of the `number` of
    lines those that are empty are not read at all.
    """
    try:
        values = _FLAT[type_].decode_lines(lines)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    objects = filter(None, values) if type_ == "object" else chain.from_iterable(filter(None, values))
    keys = sum(map(len, objects))
    return len(values) == number and (lines.count(b":") == keys or lines.count(b'":') == keys)


def _are_soundly_nested(lines: bytes) -> bool:
    """The same for any JSON: its keys are counted as it is written again, if no escaped quote can make up for one."""
    try:
        again = msgspec.json.encode(_ANY.decode_lines(lines))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return b"\\u0022" not in lines and again.count(b'":') == lines.count(b'":')


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
