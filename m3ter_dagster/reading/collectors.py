"""Collectors: what is taken from the pages of a list while it is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache
from typing import Any, Protocol

import msgspec

from m3ter_dagster.frames import raw_json


class Collector(Protocol):
    """Collects from a list. A new one is made, without arguments, for each reading, and sees every page once, in order.

    An error that `add` raises goes to whoever asks for the collector, and to nobody else who reads the list.
    """

    def add(self, page: bytes) -> None:
        """Takes a JSON array of records, byte for byte as m3ter sent it: nothing of it has been validated."""


class Collecting:
    """A collector whose failure does not fail the list."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._failure: Exception | None = None

    def add(self, page: bytes) -> None:
        try:
            if not self._failure:
                self._collector.add(page)
        except Exception as failure:
            self._failure = failure

    def settle(self, future: Future[Any]) -> None:
        if self._failure:
            future.set_exception(self._failure)
        else:
            future.set_result(self._collector)


class RecordIds:
    """Collects ids and nothing else, so that a record which breaks its own schema still counts here."""

    def __init__(self) -> None:
        self.missing = 0
        self._ids: dict[str, None] = {}

    def add(self, page: bytes) -> None:
        for record in records(page):
            if isinstance(record.id, str) and record.id:
                self._ids[record.id] = None
            else:
                self.missing += 1

    def unique(self) -> Sequence[str]:
        """The ids in the order of the list."""
        return list(self._ids)


class Record(msgspec.Struct):
    """What others need to know of a record that may break its schema."""

    id: object = None
    version: object = None
    parent: object = None


def records(page: bytes, parent_field: str = "") -> list[Record]:
    """The ids and versions of a page's records, and the ids of their parents if the field that holds them is named."""
    try:
        return _decoder(parent_field).decode(page)
    except (msgspec.MsgspecError, RecursionError):  # rows that are no objects, half surrogate pairs, deep nesting
        return [_record(row, parent_field) for row in raw_json.elements(page)]


def _record(row: bytes, parent_field: str) -> Record:
    members = dict(raw_json.members(row)) if row.startswith(b"{") else {}
    try:
        return Record(*(json.loads(members.get(field, b"null")) for field in ("id", "version", parent_field)))
    except RecursionError:
        return Record()


@cache
def _decoder(parent_field: str) -> msgspec.json.Decoder[list[Record]]:
    fields = [("id", object, None), ("version", object, None), ("parent", object, None)]
    record: Any = msgspec.defstruct("Record", fields, rename={"parent": parent_field})
    return msgspec.json.Decoder(list[record])
