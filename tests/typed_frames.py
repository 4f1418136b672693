"""Frames as exports write them, drawn at random: every column of an entity, with nulls and awkward texts."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
from api_rows import INT64, TEXTS
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity


def json_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


VALUES: dict[str, SearchStrategy[Any]] = {
    "array": st.lists(TEXTS, max_size=2).map(json_text),
    "boolean": st.booleans(),
    "integer": INT64,
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float),
    "object": st.dictionaries(TEXTS, TEXTS, max_size=2).map(json_text),
    "string": TEXTS,
}


@st.composite
def frames(draw: st.DrawFn, entity: Entity) -> pl.DataFrame:
    rows = draw(st.integers(0, 4))
    columns = {
        column.name: draw(st.lists(st.none() | VALUES[column.type], min_size=rows, max_size=rows))
        for column in entity.columns
    }
    return pl.DataFrame(columns, schema=frame_schema(entity))


ANY_FRAME = st.sampled_from(list(entities().values())).flatmap(lambda one: st.tuples(st.just(one), frames(one)))


def complete(frame: pl.DataFrame, entity: Entity) -> pl.DataFrame:
    """The frame with all columns of the entity, empty where it has none."""
    schema = frame_schema(entity)
    return frame.select(
        pl.col(name).cast(dtype) if name in frame.columns else pl.lit(None, dtype).alias(name)
        for name, dtype in schema.items()
    )
