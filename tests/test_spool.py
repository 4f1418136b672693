"""Every row of a list is in the frame, in the list's order, whatever the sizes of list, pages and batches."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from api_rows import UNHURRIED
from hypothesis import given
from hypothesis import strategies as st

from m3ter_dagster.model.entities import find_entity
from m3ter_dagster.reading.spool import Batches, Spool

MANY = 1 << 30
"""A limit that is never reached."""
SIZES = range(20_000, 43_501, 500)


@st.composite
def limits(draw: st.DrawFn) -> Batches:
    """Of each kind the smallest, some that a few pages reach exactly or nearly, and one that is out of reach."""
    return Batches(
        decode_bytes=draw(st.sampled_from([1, MANY]) | st.integers(20, 600)),
        rows=draw(st.just(MANY) | st.integers(1, 8)),
        bytes=draw(st.just(MANY) | st.integers(1, 4000)),
    )


@st.composite
def sizes(draw: st.DrawFn, batches: Batches) -> int:
    """Around a whole number of batches, or any."""
    around = st.integers(0, 3).flatmap(lambda whole: st.integers(-1, 1).map(lambda off: whole * batches.rows + off))
    return max(0, draw(around if batches.rows < MANY else st.integers(0, 24)))


@UNHURRIED
@given(data=st.data(), batches=limits(), page_size=st.integers(1, 5))
def test_no_row_is_lost_whatever_the_limits_are(data: st.DataObject, batches: Batches, page_size: int) -> None:
    ids = [f"account {number}" for number in range(data.draw(sizes(batches)))]
    assert spooled("account", [{"id": id} for id in ids], batches, page_size=page_size) == ids


@UNHURRIED
@given(data=st.data(), batches=limits(), page_size=st.integers(1, 5))
def test_no_element_is_lost_whatever_the_limits_are(data: st.DataObject, batches: Batches, page_size: int) -> None:
    ids = [f"band {number}" for number in range(data.draw(sizes(batches)))]
    pricings, rest = [], ids
    while rest:
        bands = data.draw(st.integers(0, 3))
        pricings.append(pricing(len(pricings), rest[:bands]))
        rest = rest[bands:]
    pricings += [pricing(len(pricings) + more, []) for more in range(data.draw(st.integers(0, 2)))]
    assert spooled("pricing_band", pricings, batches, page_size=page_size) == ids


def pricing(number: int, bands: Sequence[str]) -> dict[str, Any]:
    return {"id": f"pricing {number}", "pricingBands": [{"id": band} for band in bands]}


def spooled(entity: str, records: Sequence[dict[str, Any]], batches: Batches, *, page_size: int) -> list[str]:
    """The ids of the rows that a list of these records gives."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(find_entity(entity), Path(folder, "rows"), batches=batches)
        for first in range(0, len(records), page_size):
            spool.add(json.dumps(records[first : first + page_size]).encode())
        reading = spool.finish()
        ids = reading.frame.collect()["id"].to_list()
    assert reading.rows == len(ids)
    assert reading.duplicates == 0
    return ids


@pytest.fixture(scope="module")
def account_pages() -> list[bytes]:
    """Pages of a hundred accounts, as wide as those of an organization."""
    rows = (
        {
            "id": f"account {number}",
            "version": 1,
            "name": f"Name {number}",
            "code": f"code-{number}",
            "daysBeforeBillDue": 30,
            "emailAddress": f"billing-{number}@example.com",
            "address": {"addressLine1": f"{number} High Street"},
        }
        for number in range(SIZES[-1])
    )
    return [json.dumps([next(rows) for _ in range(100)]).encode() for _ in range(SIZES[-1] // 100)]


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_an_entity_of_any_size_is_read(account_pages: list[bytes], tmp_path: Path, size: int) -> None:
    spool = Spool(find_entity("account"), tmp_path / "rows")
    for page in account_pages[: size // 100]:
        spool.add(page)
    reading = spool.finish()
    ids = reading.frame.select("id").collect()["id"]
    assert reading.rows == len(ids) == ids.n_unique() == size
