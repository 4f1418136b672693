"""A small m3ter Organization whose records change, and the memory of all that it ever held."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

from m3ter_sandbox import SandboxApi
from m3ter_sandbox.values import Record, date_time

SIZES = {"product": 20, "meter": 130, "account": 8}
"""Meters come in two pages."""
PLANS_OF_AN_ACCOUNT = 2
CHANGED_OFTEN = ("meter", "meter", "meter", "product", "account_plan", "account")

Cells = tuple[int, str]
"""Version and code of a record, which change together."""


class Organization:
    """Its API may be asked while records change, which is one change at a time; `moment` counts the changes."""

    def __init__(self, created: datetime) -> None:
        self.moment = 0
        self._numbers = defaultdict[str, int](int)
        self._there: dict[str, dict[str, Record]] = {name: {} for name in (*SIZES, "account_plan")}
        self._history: dict[str, dict[str, list[tuple[int, Cells | None]]]] = defaultdict(lambda: defaultdict(list))
        for name, size in SIZES.items():
            for _ in range(size):
                self._made(name, created)
        records = [(name, record) for name, found in self._there.items() for record in found.values()]
        self.api = SandboxApi(records, requests_per_second=None)

    def change(self, random: Random) -> str:
        """One record is made, changed or deleted; returns what happened. An account's plans come and go with it."""
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

    def _make(self, name: str, random: Random) -> list[str]:
        owners = sorted(self._there["account"])
        made = self._made(name if owners else "account", datetime.now(UTC), random.choice(owners or [""]))
        for entity, record in made:
            self.api.records.insert(entity, record)
        return [record["id"] for _, record in made]

    def _made(self, name: str, created: datetime, owner: str = "") -> list[tuple[str, Record]]:
        """A new record, with the plans of an account."""
        self.moment += 1
        self._numbers[name] += 1
        record_id = f"{name}-{self._numbers[name]}"
        record = {"id": record_id, "version": 1, "code": f"{record_id} v1", "dtCreated": date_time(created)}
        if name == "account_plan":
            record["accountId"] = owner
        self._note(name, record)
        plans = range(PLANS_OF_AN_ACCOUNT if name == "account" else 0)
        return [(name, record), *(one for _ in plans for one in self._made("account_plan", created, record_id))]

    def _modify(self, name: str, record_id: str) -> str:
        self.moment += 1
        record = dict(self._there[name][record_id])
        record |= {"version": record["version"] + 1, "dtLastModified": date_time(datetime.now(UTC))}
        record["code"] = f"{record_id} v{record['version']}"
        self._note(name, record)
        self.api.records.replace(name, record)
        return record_id

    def _delete(self, name: str, record_id: str) -> list[str]:
        plans = [one["id"] for one in self._there["account_plan"].values() if one["accountId"] == record_id]
        gone = [("account_plan", one) for one in plans] if name == "account" else []
        for entity, one in (*gone, (name, record_id)):
            self.moment += 1
            del self._there[entity][one]
            self._history[entity][one].append((self.moment, None))
            self.api.records.delete(entity, one)
        return [one for _, one in (*gone, (name, record_id))]

    def _note(self, name: str, record: dict[str, Any]) -> None:
        self._there[name][record["id"]] = record
        self._history[name][record["id"]].append((self.moment, (record["version"], record["code"])))
