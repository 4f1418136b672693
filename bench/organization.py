"""An organization of any size behind the loopback API, described by its id: `documented-20000-300000-5000`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Self
from urllib.parse import parse_qsl

import msgspec

from bench.records import ODD, bill, line_item
from m3ter_dagster.model.entities import entities
from m3ter_sandbox.accounts import account
from m3ter_sandbox.organization import SampleOrganization
from m3ter_sandbox.values import Record, Seed

SEED = Seed(1)
PATTERN = 20_000
"""Line items are drawn once and repeat, apart from their ids: those that an export spools at once are all different."""
BILLS = 997
"""The same for bills."""
ONE_IS_ODD = 20
"""Of so many line items, where some are not as documented."""
OTHERS = 20
"""The accounts of the sample organization whose contracts, plans and pricing the line items refer to."""
ENCODER = msgspec.json.Encoder(decimal_format="number")

Around = tuple[bytes, bytes, bytes]
"""The JSON of a record before, between and after two ids."""


@dataclass(frozen=True)
class Data:
    """What an organization holds. `kind`: `documented` rows, or `odd` ones: 5 % of the line items have an odd value."""

    kind: str
    bills: int
    line_items: int
    accounts: int

    @classmethod
    def of(cls, organization_id: str) -> Self:
        kind, *sizes = organization_id.split("-")
        return cls(kind, *map(int, sizes))

    @property
    def organization_id(self) -> str:
        return f"{self.kind}-{self.bills}-{self.line_items}-{self.accounts}"

    def first_line_item(self, bill: int) -> int:
        return bill * self.line_items // self.bills

    def bill_of(self, line_item: int) -> int:
        return ((line_item + 1) * self.bills - 1) // self.line_items


@dataclass(frozen=True)
class Rows:
    count: int
    row: Callable[[int], bytes]


class Organization:
    """Answers the lists of one organization. The rows are made beforehand; a page only puts their ids in."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self._pattern, amounts = _line_items(data.kind)
        self._cents = list(accumulate(amounts, initial=0))
        self._bills = _bills()
        self._accounts = [SEED.id("account", number).encode() for number in range(data.accounts)]
        self._bill_numbers: dict[bytes, int] = {}
        self._lists = {path: rows if data.accounts else Rows(0, rows.row) for path, rows in _other_lists().items()} | {
            "/accounts": Rows(data.accounts, lambda number: ENCODER.encode(account(SEED, number))),
            "/accountplans": Rows(0, self._line_item),
            "/bills": Rows(data.bills, self._bill),
            "/lineitems": Rows(data.line_items, self._line_item),
        }

    def page(self, path: str, query: str) -> bytes:
        """The body of an answer; KeyError if there is no such list."""
        asked = dict(parse_qsl(query))
        bill_id = asked.get("billId") or (path.split("/")[2] if path.startswith("/bills/") else None)
        if path.startswith("/balances/"):
            rows = Rows(0, self._line_item)  # nothing was ever drawn
        else:
            rows = self._line_items_of(bill_id) if bill_id else self._lists[path]
        first = int(asked.get("nextToken", 0))
        last = min(first + int(asked.get("pageSize", 100)), rows.count)
        token = b'"%d"' % last if last < rows.count else b"null"
        return b'{"data":[%b],"nextToken":%b}' % (b",".join(map(rows.row, range(first, last))), token)

    def _line_items_of(self, bill_id: str) -> Rows:
        if not self._bill_numbers:
            self._bill_numbers = {uuid(b"bill", number): number for number in range(self.data.bills)}
        number = self._bill_numbers[bill_id.encode()]
        first, end = self.data.first_line_item(number), self.data.first_line_item(number + 1)
        return Rows(end - first, lambda index: self._line_item(first + index))

    def _line_item(self, number: int) -> bytes:
        before, between, after = self._pattern[number % PATTERN]
        bill_id = uuid(b"bill", self.data.bill_of(number))
        return b"".join((before, uuid(b"line item", number), between, bill_id, after))

    def _bill(self, number: int) -> bytes:
        before, between, after = self._bills[number % BILLS]
        owner = self._accounts[number % len(self._accounts)]
        total = b"%.2f}" % ((self._cents_before(number + 1) - self._cents_before(number)) / 100)
        return b"".join((before, uuid(b"bill", number), between, owner, after[:-1], b',"billTotal":', total))

    def _cents_before(self, number: int) -> int:
        """The sum of all line items of earlier bills."""
        rounds, rest = divmod(self.data.first_line_item(number), PATTERN)
        return rounds * self._cents[-1] + self._cents[rest]


def uuid(kind: bytes, number: int) -> bytes:
    """An id that no other number has, mixed so that it compresses no better than a random one."""
    mixed = (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 + int.from_bytes(kind)) % (1 << 128)
    text = b"%032x" % mixed
    return b"-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _around_ids(record: Record) -> Around:
    before, between, after = ENCODER.encode(record).split(b'"@"')
    return before + b'"', b'"' + between + b'"', b'"' + after


@cache
def _sample() -> Mapping[str, list[Record]]:
    found = defaultdict(list)
    for name, record in SampleOrganization(OTHERS).records():
        found[name].append(record)
    return found


@cache
def _other_lists() -> Mapping[str, Rows]:
    """The lists of the sample organization, so that whatever the line items refer to exists."""
    return {
        entities()[name].listing.path: Rows(len(records), list(map(ENCODER.encode, records)).__getitem__)
        for name, records in _sample().items()
    }


@cache
def _line_items(kind: str) -> tuple[list[Around], list[int]]:
    """Line items around their ids, and their amounts in cents."""
    ids = {name: [record["id"] for record in records] for name, records in _sample().items()}
    random = SEED.random("line items")
    drawn = [line_item(random, SEED, ids) for _ in range(PATTERN)]
    if kind == "odd":
        for number, (record, _) in enumerate(drawn[::ONE_IS_ODD]):
            field, value = ODD[number % len(ODD)]
            record[field] = value
    records = (_around_ids({**record, "id": "@", "billId": "@"}) for record, _ in drawn)
    return list(records), [cents for _, cents in drawn]


@cache
def _bills() -> list[Around]:
    random = SEED.random("bills")
    return [_around_ids({**bill(random, SEED), "id": "@", "accountId": "@"}) for _ in range(BILLS)]
