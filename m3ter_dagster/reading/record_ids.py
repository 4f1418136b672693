"""The ids of a list's records, for lists that are asked for once per record of another."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from m3ter_dagster.frames import raw_json


class _Record(msgspec.Struct):
    id: object = None


class RecordIds:
    """Collects ids and nothing else, so that a record which breaks its own schema still counts here."""

    def __init__(self) -> None:
        self.missing = 0
        self._ids: dict[str, None] = {}

    def add(self, page: bytes) -> None:
        for record in _records(page):
            if isinstance(record.id, str) and record.id:
                self._ids[record.id] = None
            else:
                self.missing += 1

    def unique(self) -> Sequence[str]:
        """In the order of the list."""
        return list(self._ids)


def _records(page: bytes) -> list[_Record]:
    try:
        return msgspec.json.decode(page, type=list[_Record])
    except msgspec.MsgspecError:
        rows = [json.loads(row) for row in raw_json.elements(page)]
        return [_Record(row.get("id") if isinstance(row, dict) else None) for row in rows]
