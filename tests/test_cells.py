"""One JSON value to one cell: what only rare texts show. Whole pages are in test_decoding.py."""

from __future__ import annotations

import pytest

from m3ter_dagster.frames.cells import Unfit, compact_json

LONG = "9" * 5000
"""Python itself reads no integer of so many digits."""


@pytest.mark.parametrize("space", [" ", "\n", "\t", "\r"])
def test_each_kind_of_white_space_goes(space: str) -> None:
    assert compact_json("array", [b"[2]", f'[1,{space}"a"]'.encode()]) == ["[2]", '[1,"a"]']


@pytest.mark.parametrize("number", [LONG, f"0.{LONG}", "1e400"])
def test_a_number_keeps_every_digit_where_a_text_has_to_be_looked_at_closely(number: str) -> None:
    text = f'{{"\\u0022":{number}}}'
    assert compact_json("object", [b"{}", text.encode()]) == ["{}", text]


@pytest.mark.parametrize("text", ["[1", "[1,]", '["\\u0022"'])
def test_what_is_no_json_is_said_to_be_none(text: str) -> None:
    with pytest.raises(Unfit, match=r"^must be JSON \(.+\)$"):
        compact_json("array", [text.encode()])


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a":1, "a" :2}'])
def test_a_repeated_key_among_sound_texts_is_refused(text: str) -> None:
    with pytest.raises(Unfit, match="must not have a key twice"):
        compact_json("object", [b'{"a":1}', text.encode(), b'{"b" : 1}'])
