"""JSON rows as the API might send them, drawn at random, with the cells that they have to become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from m3ter_dagster.model.entity import Column, Entity

UNHURRIED = settings(deadline=None)
"""A machine with other work is no reason to fail."""

GAPS = ("", "", " ", "\n", "\t ", "\r\n  ")
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "null",
        "NA",
        "a,b",
        '"',
        '""',
        "\n",
        "\r",
        "\r\n",
        "\0",
        "\\",
        "'",
        "=1+1",
        "\ufeff",
        "\u2028",
        "🚀",
        "\x7f",
    ]
)
DIGITS = st.from_regex(
    r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?",
    fullmatch=True,
    alphabet=st.characters(max_codepoint=127),
)
INT64 = st.integers(-(2**63), 2**63 - 1)


@dataclass(frozen=True)
class Cell:
    json: str
    value: Any


@st.composite
def json_texts(draw: st.DrawFn) -> str:
    return json.dumps(draw(TEXTS), ensure_ascii=draw(st.booleans()))


def json_values(gap: SearchStrategy[str]) -> SearchStrategy[tuple[str, str]]:
    """(with white space, without) of any JSON value: every digit and escape stays as it is."""
    plain = (json_texts() | DIGITS | st.sampled_from(["null", "true", "false"])).map(lambda text: (text, text))
    return st.recursive(plain, lambda inner: arrays(inner, gap) | objects(inner, gap), max_leaves=6)


@st.composite
def arrays(draw: st.DrawFn, inner: SearchStrategy[tuple[str, str]], gap: SearchStrategy[str]) -> tuple[str, str]:
    values = draw(st.lists(inner, max_size=3))
    between = draw(gap)
    spaced = f"{between},{between}".join(value for value, _ in values)
    return f"[{between}{spaced}{between}]", f"[{','.join(compact for _, compact in values)}]"


@st.composite
def objects(draw: st.DrawFn, inner: SearchStrategy[tuple[str, str]], gap: SearchStrategy[str]) -> tuple[str, str]:
    keys = draw(st.lists(json_texts(), max_size=3, unique_by=json.loads))
    values = [draw(inner) for _ in keys]
    between = draw(gap)
    spaced = [f"{key}{between}:{between}{value}" for key, (value, _) in zip(keys, values, strict=True)]
    compact = [f"{key}:{value}" for key, (_, value) in zip(keys, values, strict=True)]
    return f"{{{between}{f'{between},'.join(spaced)}{between}}}", f"{{{','.join(compact)}}}"


@st.composite
def integers(draw: st.DrawFn) -> Cell:
    number = draw(INT64 | st.integers(-9, 9) | st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1]))
    tenfold = f"{number}0e-1" if number else "0e-1"
    return Cell(draw(st.sampled_from([f"{number}", f"{number}.0", f"{number}.000", f"{number}e0", tenfold])), number)


@st.composite
def numbers(draw: st.DrawFn) -> Cell:
    number = draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float))
    return Cell(draw(st.sampled_from([repr(number), f"{number:.17g}", f"{number:.20E}"])), number)


def json_cells(columns: SearchStrategy[tuple[str, str]]) -> SearchStrategy[Cell]:
    return columns.map(lambda both: Cell(*both))


_ANY = json_values(st.sampled_from(GAPS))
CELLS: Mapping[str, SearchStrategy[Cell]] = {
    "array": json_cells(arrays(_ANY, st.sampled_from(GAPS))),
    "boolean": st.booleans().map(lambda is_true: Cell("true" if is_true else "false", is_true)),
    "integer": integers(),
    "number": numbers(),
    "object": json_cells(objects(_ANY, st.sampled_from(GAPS))),
    "string": json_texts().map(lambda text: Cell(text, json.loads(text))),
}


@st.composite
def rows(draw: st.DrawFn, entity: Entity, *, row_id: str) -> tuple[str, dict[str, Any]]:
    """A record's JSON and the row of the frame; fields are given, null or absent, in any order."""
    fields: list[str] = []
    values: dict[str, Any] = {}
    for column in entity.columns:
        cell = draw(_cell(column, entity, row_id))
        values[column.name] = cell.value if cell else column.constant
        if cell:
            fields.append(f"{json.dumps(column.api_field)}:{cell.json}")
    between = draw(st.sampled_from(GAPS))
    return f"{{{between}{f'{between},'.join(draw(st.permutations(fields)))}{between}}}", values


def _cell(column: Column, entity: Entity, row_id: str) -> SearchStrategy[Cell | None]:
    if column.api_field is None:
        return st.none()
    if column.name == entity.primary_key:
        return st.just(Cell(json.dumps(row_id), row_id))
    return st.sampled_from([None, Cell("null", None)]) | CELLS[column.type] | CELLS[column.type]


@st.composite
def pages(draw: st.DrawFn, entity: Entity, *, max_rows: int = 3) -> tuple[str, list[dict[str, Any]]]:
    drawn = [draw(rows(entity, row_id=f"row-{number}")) for number in range(draw(st.integers(0, max_rows)))]
    return f"[{','.join(text for text, _ in drawn)}]", [values for _, values in drawn]
