"""JSON taken apart into texts by the standard library's parser, which alone reads half a surrogate pair. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn

_SPACE = re.compile(r"[ \t\n\r]*")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def members(text: bytes) -> dict[str, bytes]:
    """The members of a JSON object, each value as it was written. ValueError if it is no JSON object."""
    return {str(key): value for key, value in _parts(text.decode(), "{", "}")}


def elements(text: bytes) -> list[bytes]:
    """The elements of a JSON array, each as it was written. ValueError if it is no JSON array."""
    return [value for _, value in _parts(text.decode(), "[", "]")]


def _parts(text: str, opening: str, closing: str) -> Iterator[tuple[str | None, bytes]]:
    """Where the parts begin and end; that the whole is JSON is checked first."""
    _DECODER.decode(text)
    position = _expect(text, _skip(text, 0), opening)
    is_object = opening == "{"
    key: str | None = None
    while not text.startswith(closing, _skip(text, position)):
        if is_object:
            key, position = _DECODER.raw_decode(text, _skip(text, position))
            position = _expect(text, _skip(text, position), ":")
        start = _skip(text, position)
        _, position = _DECODER.raw_decode(text, start)
        yield key, text[start:position].encode()
        position = _skip(text, position)
        if not text.startswith(closing, position):
            position = _expect(text, position, ",")


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _expect(text: str, position: int, character: str) -> int:
    if not text.startswith(character, position):
        raise ValueError(f"expected {character} at character {position}")
    return position + 1
