"""Rows that are elements of an array in a listed record (pricing bands): taken out of the records of a page. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec

from m3ter_dagster.entities import Entity
from m3ter_dagster.frames.cells import Unfit, read_cell
from m3ter_dagster.frames.raw_rows import RawRow, raw_rows, row_id
from m3ter_dagster.frames.schema import Breach, shown

_NULL = b"null"


@dataclass(frozen=True)
class Origin:
    """The record that an element was taken from, and the columns that say from where in it."""

    ordinal: int
    record: Mapping[str, str | None]
    """Fields of the record that its elements' columns need, `id` among them."""
    version: int | None
    constants: Mapping[str, str]


@dataclass(frozen=True)
class Elements:
    page: bytes
    """A JSON array of the elements, as m3ter sent each."""
    origins: list[Origin]
    """One per element."""
    records: int
    breaches: list[Breach]


def elements_of(page: bytes, entity: Entity, *, first_ordinal: int) -> Elements:
    """The elements of the page's records; the first record has the ordinal `first_ordinal`."""
    found: list[bytes] = []
    origins: list[Origin] = []
    breaches: list[Breach] = []
    records = raw_rows(page, entity, breaches)
    for ordinal, record in enumerate(records, first_ordinal):
        try:
            for origin, element in _elements_of_record(record, entity, ordinal):
                origins.append(origin)
                found.append(element)
        except _Unusable as unusable:
            breaches.append(unusable.breach)
    return Elements(b"[" + b",".join(found) + b"]", origins, len(records), breaches)


class _Unusable(Exception):
    def __init__(self, breach: Breach) -> None:
        self.breach = breach


def _elements_of_record(record: RawRow, entity: Entity, ordinal: int) -> Iterator[tuple[Origin, bytes]]:
    fields = {"id", *(column.parent_field for column in entity.columns if column.parent_field)}
    texts = {field: _text(record, field, entity) for field in fields}
    for array, constants in entity.elements:
        origin = Origin(ordinal, texts, _version(record), dict(constants))
        for element in _array(record, array, entity):
            yield origin, bytes(element)


def _array(record: RawRow, field: str, entity: Entity) -> list[msgspec.Raw]:
    raw = record.get(field, _NULL)
    try:
        return msgspec.json.decode(raw, type=list[msgspec.Raw] | None) or []
    except msgspec.ValidationError:
        raise _Unusable(_breach(record, entity, field, raw, "must be a JSON array")) from None


def _text(record: RawRow, field: str, entity: Entity) -> str:
    raw = record.get(field, _NULL)
    try:
        text = read_cell("string", raw)
    except Unfit as unfit:
        raise _Unusable(_breach(record, entity, field, raw, str(unfit))) from None
    if not text:
        raise _Unusable(_breach(record, entity, field, raw, "must not be missing"))
    return str(text)


def _version(record: RawRow) -> int | None:
    """Only ranks copies of one record; that it is a number at all is for the record's own entity to check."""
    try:
        return int(str(read_cell("integer", record.get("version", _NULL))))
    except (Unfit, ValueError):
        return None


def _breach(record: RawRow, entity: Entity, field: str, raw: bytes, rule: str) -> Breach:
    return Breach(row_id(record, entity), f"{entity.listing.path.strip('/')}.{field}", shown(raw), rule)
