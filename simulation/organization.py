"""A small m3ter Organization whose records change, and the memory of all that it ever held."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import Any

from m3ter_sandbox import SandboxApi
from m3ter_sandbox.usage import SampleUsage
from m3ter_sandbox.usage_exports import UsageExportJobs
from m3ter_sandbox.values import Record, Seed, date_time

SIZES = {"product": 20, "meter": 130, "account": 8, "bill": 70}
"""Meters come in two pages, line items in five."""
MEASURED = 3
"""So many meters have measurements, and keep them when they are deleted."""
CHANGED_OFTEN = ("meter", "meter", "meter", "product", "account_plan", "account", "bill", "bill")
WORDS = defaultdict(lambda: "code", bill="purchaseOrderNumber", bill_line_item="description")
"""The field of a record that changes with its version."""

Cells = tuple[int, str]
"""Version and words of a record."""


@dataclass(frozen=True)
class Part:
    """Records that come and go with another one."""

    name: str
    owner: str
    """The field with the id of the other one."""
    number: int


PARTS = {"account": Part("account_plan", "accountId", 2), "bill": Part("bill_line_item", "billId", 6)}


class Organization:
    """Its API may be asked while records change, which is one change at a time; `moment` counts the changes."""

    def __init__(self, created: datetime) -> None:
        self.moment = 0
        self._numbers = defaultdict[str, int](int)
        names = (*SIZES, *(part.name for part in PARTS.values()))
        self._there: dict[str, dict[str, Record]] = {name: {} for name in names}
        self._history: dict[str, dict[str, list[tuple[int, Cells | None]]]] = defaultdict(lambda: defaultdict(list))
        for name, size in SIZES.items():
            for _ in range(size):
                self._made(name, created)
        records = [(name, record) for name, found in self._there.items() for record in found.values()]
        measured = list(self._there["meter"].values())[: MEASURED + 1]
        self._usage = SampleUsage(Seed(1), measured, sorted(self._there["account"]))
        jobs = UsageExportJobs(self._usage, {meter["id"]: meter for meter in measured}, time.time)
        self.api = SandboxApi(records, requests_per_second=None, further_routes=[jobs.routes()])

    def change(self, random: Random) -> str:
        """One record is made, changed or deleted; returns what happened. Its parts come and go with it."""
        name, kind = random.choice(CHANGED_OFTEN), random.choice(("made", "changed", "deleted"))
        known = self._there[name]
        if kind == "made" or not known:
            kind, ids = "made", self._make(name, random)
        elif kind == "changed":
            ids = [self._modify(name, random.choice(sorted(known)))]
        else:
            ids = self._delete(name, random.choice(sorted(known)))
        return f"{name} {', '.join(ids)} {kind}"

    def between(self, name: str, first: int, last: int) -> Mapping[str, set[Cells | None]]:
        """What each record was at any moment from the first to the last; None: not there."""
        found: dict[str, set[Cells | None]] = {}
        for record_id, steps in self._history[name].items():
            before = [cells for moment, cells in steps if moment <= first]
            found[record_id] = {before[-1] if before else None, *(c for moment, c in steps if first < moment <= last)}
        return found

    def measured(self, start: datetime, end: datetime) -> set[str]:
        """The uids of the measurements of a window."""
        window = {"startDate": start.isoformat(), "endDate": end.isoformat()}
        return {one["uid"] for one in self._usage.measurements(window)}

    def _make(self, name: str, random: Random) -> list[str]:
        owners = sorted(self._there["account"])
        name = name if owners else "account"
        made = self._made(name, datetime.now(UTC), random.choice(owners or [""]))
        for entity, record in made:
            self.api.records.insert(entity, record)
        return [record["id"] for _, record in made]

    def _made(self, name: str, created: datetime, owner: str = "") -> list[tuple[str, Record]]:
        """A new record, with its parts."""
        self.moment += 1
        self._numbers[name] += 1
        record_id = f"{name}-{self._numbers[name]}"
        record: Record = {
            "id": record_id,
            "version": 1,
            WORDS[name]: f"{record_id} v1",
            "dtCreated": date_time(created),
        }
        record |= {part.owner: owner for part in PARTS.values() if part.name == name}
        if name == "meter":
            record |= {"dataFields": [{"code": "gb", "name": "GB", "category": "MEASURE"}], "derivedFields": []}
        if name == "bill":
            record |= {"lastCalculatedDate": date_time(created), "currency": "USD", "billTotal": PARTS["bill"].number}
        if name == "bill_line_item":
            record |= {"convertedSubtotal": 1}
        self._note(name, record)
        if part := PARTS.get(name):
            parts = [one for _ in range(part.number) for one in self._made(part.name, created, record_id)]
            return [(name, record), *parts]
        return [(name, record)]

    def _modify(self, name: str, record_id: str) -> str:
        """A bill is calculated anew: it changes with one of its line items."""
        if name == "bill":
            self._modify("bill_line_item", self._parts_of(name, record_id)[0])
        self.moment += 1
        record, now = dict(self._there[name][record_id]), date_time(datetime.now(UTC))
        record |= {"version": record["version"] + 1, "dtLastModified": now}
        record |= {"lastCalculatedDate": now} if name == "bill" else {}
        record[WORDS[name]] = f"{record_id} v{record['version']}"
        self._note(name, record)
        self.api.records.replace(name, record)
        return record_id

    def _delete(self, name: str, record_id: str) -> list[str]:
        parts = self._parts_of(name, record_id)
        for entity, one in (*((PARTS[name].name, part) for part in parts), (name, record_id)):
            self.moment += 1
            del self._there[entity][one]
            self._history[entity][one].append((self.moment, None))
            self.api.records.delete(entity, one)
        return [*parts, record_id]

    def _parts_of(self, name: str, record_id: str) -> list[str]:
        part = PARTS.get(name)
        return [one["id"] for one in self._there[part.name].values() if one[part.owner] == record_id] if part else []

    def _note(self, name: str, record: dict[str, Any]) -> None:
        self._there[name][record["id"]] = record
        self._history[name][record["id"]].append((self.moment, (record["version"], record[WORDS[name]])))
