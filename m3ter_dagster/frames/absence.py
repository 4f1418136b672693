"""Which records of one reading are absent from another, in bounded memory however many there are. Pure."""

from __future__ import annotations

import polars as pl

ID, VERSION, PARENT, HASH = "id", "version", "parent", "key"
RECORDS = {ID: pl.String, VERSION: pl.Int64, PARENT: pl.String, HASH: pl.UInt64}
"""The columns of records, as others compare them: `HASH` is that of the id."""
COMPARED_AT_ONCE = 500_000
"""The number of records whose hashes are in memory at a time."""


def absent(records: pl.LazyFrame, from_: pl.LazyFrame) -> pl.DataFrame:
    """The records that are not among those of `from_`, of which only the hashes are looked at.

    They are compared by hashes of their ids: of five million records, two have one hash in 1 of 1.5 million cases.
    """
    rows = max(one.select(pl.len()).collect().item() for one in (records, from_))
    buckets = rows // COMPARED_AT_ONCE + 1
    found = [
        records.filter(pl.col(HASH) % buckets == bucket)
        .join(from_.select(HASH).filter(pl.col(HASH) % buckets == bucket), on=HASH, how="anti")
        .collect(engine="streaming")
        for bucket in range(buckets)
    ]
    return pl.concat(found)


def hashes(records: pl.LazyFrame) -> pl.Series:
    """The sorted hashes of all records, 8 bytes each."""
    return records.select(HASH).collect(engine="streaming")[HASH].sort()


def hold(sorted_hashes: pl.Series, ids: pl.Series) -> pl.Series:
    """Which of the ids are among these hashes."""
    if not len(sorted_hashes):
        return pl.repeat(False, len(ids), dtype=pl.Boolean, eager=True)
    asked = ids.hash()
    places = sorted_hashes.search_sorted(asked)
    return (places < len(sorted_hashes)) & (sorted_hashes.gather(places.clip(0, len(sorted_hashes) - 1)) == asked)
