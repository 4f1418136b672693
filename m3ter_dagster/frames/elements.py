"""Rows that are elements of an array in a listed record (pricing bands), taken out of the records of a page. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import msgspec

from m3ter_dagster.frames.cells import Unfit, read_cell
from m3ter_dagster.frames.raw_rows import RawRow, raw_elements, raw_rows, row_id
from m3ter_dagster.frames.schema import Breach, shown_json
from m3ter_dagster.model.entity import Entity

_NULL = b"null"


@dataclass(frozen=True)
class Record:
    """The parts of a listed record that the rows of its elements need."""

    ordinal: int
    fields: Mapping[str, str]
    """The record's fields that become columns of the elements, `id` among them."""
    version: int | None


@dataclass(frozen=True)
class Origin:
    """The record and the array that an element was taken from."""

    record: Record
    constants: Mapping[str, str]
    """Columns that say which array of the record the element was in."""


@dataclass(frozen=True)
class Elements:
    page: bytes
    """A JSON array of the elements, each as m3ter sent it."""
    origins: list[Origin]
    """The origin of each element."""
    records: list[Record]
    breaches: list[Breach]


def elements_of(pages: Iterable[bytes], entity: Entity, *, first_ordinal: int) -> Elements:
    """The elements of the pages' records; the first record has the ordinal `first_ordinal`."""
    found: list[bytes] = []
    elements = Elements(b"", [], [], [])
    records = [raw for page in pages for raw in raw_elements(page)]
    for ordinal, raw in enumerate(raw_rows(records, entity, elements.breaches), first_ordinal):
        try:
            record = _record(raw, entity, ordinal)
            elements.records.append(record)
            for array, constants in entity.elements:
                for element in _array(raw, array, entity):
                    elements.origins.append(Origin(record, dict(constants)))
                    found.append(element)
        except _Unusable as unusable:
            elements.breaches.append(unusable.breach)
    return replace(elements, page=b"[" + b",".join(found) + b"]")


class _Unusable(Exception):
    def __init__(self, breach: Breach) -> None:
        self.breach = breach


def _record(raw: RawRow, entity: Entity, ordinal: int) -> Record:
    names = {"id", *(column.parent_field for column in entity.columns if column.parent_field)}
    return Record(ordinal, {name: _text(raw, name, entity) for name in names}, _version(raw))


def _array(record: RawRow, field: str, entity: Entity) -> list[bytes]:
    raw = record.get(field, _NULL)
    if raw == _NULL:
        return []
    try:
        return raw_elements(raw)
    except (msgspec.ValidationError, ValueError):
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
    """A version to rank copies of a record by. That it is a number at all is for the record's own entity to check."""
    try:
        return int(str(read_cell("integer", record.get("version", _NULL))))
    except (Unfit, ValueError):
        return None


def _breach(record: RawRow, entity: Entity, field: str, raw: bytes, rule: str) -> Breach:
    return Breach(row_id(record, entity), f"{entity.listing.path.strip('/')}.{field}", shown_json(raw, None), rule)
