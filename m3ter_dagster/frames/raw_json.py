"""JSON taken apart into texts by the standard library's parser, which alone reads half a surrogate pair. Pure.

What is nested too deeply for it is cut at its outermost commas, so that the cell can be named.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NoReturn

_STRUCTURE = re.compile(rb'[][{},]|"(?:[^"\\]|\\.)*+"', re.DOTALL)
_SPACE = re.compile(r"[ \t\n\r]*")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


# Values stay as they were written, and Python reads no integer of more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_int=str, parse_float=str)


def members(text: bytes) -> list[tuple[str, bytes]]:
    """The keys and values of a JSON object, each value as it was written. ValueError if it is no JSON object."""
    try:
        return [(str(key), value) for key, value in _parts(text.decode(), "{", "}")]
    except RecursionError:
        return [*map(_member, _outermost(text))]


def repeated(members: Iterable[tuple[str, bytes]]) -> list[str]:
    """The keys that are there more than once."""
    return [key for key, count in Counter(key for key, _ in members).items() if count > 1]


def elements(text: bytes) -> list[bytes]:
    """The elements of a JSON array, each as it was written. ValueError if it is no JSON array."""
    try:
        return [value for _, value in _parts(text.decode(), "[", "]")]
    except RecursionError:
        return _outermost(text)


def _outermost(text: bytes) -> list[bytes]:
    """The elements or members of JSON that is nested too deeply for any parser; whether it is JSON is not checked."""
    parts, depth, start = list[bytes](), 0, 0
    for token in _STRUCTURE.finditer(text):
        mark = token[0]
        if depth == 1 and mark in (b",", b"]", b"}"):
            parts.append(text[start : token.start()].strip())
            start = token.end()
        if mark in (b"[", b"{"):
            depth += 1
            start = token.end() if depth == 1 else start
        elif mark in (b"]", b"}"):
            depth -= 1
    return [part for part in parts if part]


def _member(text: bytes) -> tuple[str, bytes]:
    key, end = _DECODER.raw_decode(text.decode())
    return str(key), text.decode()[end:].lstrip().removeprefix(":").strip().encode()


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
