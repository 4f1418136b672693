"""A page as rows of JSON texts, for a close look at single cells. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

import msgspec

from m3ter_dagster.frames import raw_json
from m3ter_dagster.frames.cells import Unfit, read_cell
from m3ter_dagster.frames.schema import Breach, shown_json
from m3ter_dagster.model.entity import Entity

RawRow = dict[str, bytes]

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])


def raw_rows(elements: Iterable[bytes], entity: Entity, breaches: list[Breach]) -> list[RawRow]:
    """The elements of a page as rows. One that is no object becomes an empty row and is added to `breaches`."""
    return [_raw_row(element, entity, breaches) for element in elements]


def raw_elements(array: bytes) -> list[bytes]:
    """The elements of a JSON array; ValidationError if it is no array."""
    try:
        return [bytes(element) for element in msgspec.json.decode(array, type=list[msgspec.Raw])]
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, RecursionError):
        return raw_json.elements(array)


def row_id(row: RawRow, entity: Entity) -> str | None:
    try:
        return str(read_cell("string", row.get(entity.primary_key, b"null")) or "") or None
    except Unfit:
        return None


def may_repeat_a_key(page: bytes) -> bool:
    """Whether an object in an array of them may have a key twice. Only a no is certain.

    What reads the rows at once keeps the last value of such a key and does not tell.
    """
    try:
        rows = _OBJECTS.decode(page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return _colons_of_keys(page, chain.from_iterable(row.values() for row in rows)) != sum(map(len, rows))


def _colons_of_keys(text: bytes, values: Iterable[bytes | msgspec.Raw]) -> int:
    """The colons in `text` outside of `values`: one behind each key, and those that a key itself holds."""
    return text.count(b":") - b"".join(values).count(b":")


def _raw_row(row: bytes, entity: Entity, breaches: list[Breach]) -> RawRow:
    try:
        found = {name: bytes(value) for name, value in _OBJECT.decode(row).items()}
        if _colons_of_keys(row, found.values()) == len(found):
            return found
    except (msgspec.DecodeError, RecursionError):
        if not row.startswith(b"{"):
            breaches.append(Breach(None, entity.primary_key, shown_json(row, None), "must be a JSON object"))
            return {}
    members = raw_json.members(row)
    # Half a surrogate pair in a name cannot be shown as it is.
    found = {_printable(name): value for name, value in members}
    breaches += (_repeated(_printable(name), found, entity) for name in raw_json.repeated(members))
    return found


def _repeated(name: str, row: RawRow, entity: Entity) -> Breach:
    column = next((column for column in entity.columns if column.api_field == name), None)
    value = shown_json(row[name], column)
    return Breach(row_id(row, entity), column.name if column else name, value, "must be in a record only once")


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
