"""A page as rows of JSON texts, for a close look at single cells. Pure."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from m3ter_dagster.entities import Entity
from m3ter_dagster.frames.cells import Unfit, read_cell
from m3ter_dagster.frames.schema import Breach, shown

RawRow = dict[str, bytes]

HALF_A_PAIR = "must be text that UTF-8 can hold; it has half a surrogate pair"


def raw_rows(page: bytes, entity: Entity, breaches: list[Breach]) -> list[RawRow]:
    """The rows of a page; what is no row at all, or cannot be text, is added to `breaches`."""
    try:
        rows = msgspec.json.decode(page, type=list[msgspec.Raw])
    except msgspec.DecodeError:
        return _rows_with_half_pairs(page, entity, breaches)
    return [_raw_row(bytes(row), entity, breaches) for row in rows]


def row_id(row: RawRow, entity: Entity) -> str | None:
    try:
        return str(read_cell("string", row.get(entity.primary_key, b"null")) or "") or None
    except Unfit:
        return None


def _raw_row(row: bytes, entity: Entity, breaches: list[Breach]) -> RawRow:
    try:
        fields = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
    except msgspec.MsgspecError:
        breaches.append(Breach(None, entity.primary_key, shown(row), "must be a JSON object"))
        return {}
    return {name: bytes(value) for name, value in fields.items()}


def _rows_with_half_pairs(page: bytes, entity: Entity, breaches: list[Breach]) -> list[RawRow]:
    """Only the standard library's parser reads half a surrogate pair, and so can say where it stands."""
    rows: list[RawRow] = []
    for row in json.loads(page):
        fields = row if isinstance(row, dict) else {}
        sound = {name: value for name, value in fields.items() if is_text([name, value])}
        rows.append({name: json.dumps(value).encode() for name, value in sound.items()})
        for name in fields.keys() - sound.keys():
            value = shown(json.dumps(fields[name]))
            breaches.append(Breach(row_id(rows[-1], entity), json.dumps(name)[1:-1], value, HALF_A_PAIR))
    return rows


def is_text(value: Any) -> bool:
    """Can UTF-8 hold every string in this JSON value?"""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
