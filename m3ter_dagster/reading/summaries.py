"""m3ter's summaries of the transactions of balances, a request each."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from urllib.parse import quote

import msgspec

from m3ter_dagster.frames.ledgers import Summary
from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.errors import Later, Refused
from m3ter_dagster.model.entities import entities

AT_ONCE = 16


def summaries(client: M3terClient, balances: Iterable[str]) -> dict[str, Summary]:
    """By the balance's id; not of those that m3ter does not have, or gives no amounts for. M3terError."""
    path = f"{entities()['balance_transaction'].listing.path}/summary"

    def of(balance: str) -> Summary | None:
        try:
            return client.get(path.format(id=quote(balance, safe="")), _read, gives_way=True)
        except Refused as refusal:
            if refusal.status != 404:
                raise
            return None

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="summary") as threads:
        ids = list(balances)
        return {id: found for id, found in zip(ids, threads.map(of, ids), strict=True) if found}


class _Answer(msgspec.Struct):
    credit: Decimal | None = msgspec.field(default=None, name="totalCreditAmount")
    debit: Decimal | None = msgspec.field(default=None, name="totalDebitAmount")


def _read(body: bytes) -> Summary | None:
    try:
        found = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Later(f"the answer is not a summary ({error})") from None
    if found.credit is None and found.debit is None:
        return None
    return Summary(found.credit or Decimal(), found.debit or Decimal())
