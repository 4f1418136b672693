"""A page as rows of JSON texts, for a close look at single cells. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from m3ter_dagster.frames import raw_json
from m3ter_dagster.frames.cells import Unfit, read_cell
from m3ter_dagster.frames.schema import Breach, shown_json
from m3ter_dagster.model.entity import Entity

RawRow = dict[str, bytes]


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


def _raw_row(row: bytes, entity: Entity, breaches: list[Breach]) -> RawRow:
    try:
        return {name: bytes(value) for name, value in msgspec.json.decode(row, type=dict[str, msgspec.Raw]).items()}
    except (msgspec.DecodeError, RecursionError):
        if not row.startswith(b"{"):
            breaches.append(Breach(None, entity.primary_key, shown_json(row, None), "must be a JSON object"))
            return {}
        # Half a surrogate pair in a name cannot be shown as it is.
        return {_printable(name): value for name, value in raw_json.members(row).items()}


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()
