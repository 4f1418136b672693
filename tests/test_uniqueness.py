"""Every value that stands more than once is found, in whatever number of steps."""

from __future__ import annotations

from collections import Counter

import polars as pl
import pytest
from api_rows import UNHURRIED
from hypothesis import given
from hypothesis import strategies as st

from m3ter_dagster.frames.uniqueness import Repeated, repeated_values


def repeated(values: list[str | None], **limits: int) -> Repeated:
    return repeated_values(pl.LazyFrame({"id": values}, schema={"id": pl.String}), "id", rows=len(values), **limits)


@UNHURRIED
@given(values=st.lists(st.none() | st.sampled_from("abcdefgh"), max_size=30), hashes_at_once=st.integers(1, 40))
def test_it_finds_what_counting_finds(values: list[str | None], hashes_at_once: int) -> None:
    counts = Counter(value for value in values if value is not None)
    expected = sorted((value, count, values.index(value)) for value, count in counts.items() if count > 1)
    assert repeated(values, hashes_at_once=hashes_at_once) == Repeated(expected, len(expected))


def test_nulls_are_no_value() -> None:
    assert repeated([None, None, "a"]) == Repeated([], 0)


def test_an_empty_text_is_a_value() -> None:
    assert repeated(["", "", "a"]) == Repeated([("", 2, 0)], 1)


@pytest.mark.parametrize("hashes_at_once", [1, 7, 1000])
def test_more_than_are_named_are_counted(hashes_at_once: int) -> None:
    found = repeated([f"{number % 50}" for number in range(99)], at_most=3, hashes_at_once=hashes_at_once)
    assert (len(found.values), found.total) == (3, 49)
    assert {one.count for one in found.values} == {2}
