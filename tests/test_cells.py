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


@pytest.mark.parametrize(
    "texts",
    [
        ["null"],
        ["[]", "null", '["null"]'],
        ['[{"at":"10:00"},{"at":"x\\":"}]', "null", '["{",1]'],
        ['[{"a":{"a":[{"b":1}]}}]', '[[{"a":1}],null]'],
    ],
)
def test_sound_texts_stay_as_they_are_and_null_is_none(texts: list[str]) -> None:
    expected = [None if text == "null" else text for text in texts]
    assert compact_json("array", [text.encode() for text in texts]) == expected


@pytest.mark.parametrize("text", ['{"a":1}', '"[]"', "1", "nul", "true", ""])
def test_one_other_text_among_arrays_is_refused(text: str) -> None:
    for texts in ([b"[]", text.encode(), b"null"], [text.encode(), b"[ 1 ]"]):
        with pytest.raises(Unfit, match="must be a JSON array"):
            compact_json("array", texts)


@pytest.mark.parametrize("text", ['["a",{"b":1,"b":2}]', '[["ab"],{"b":1,"b":2}]', '[{"a":{"b":1,"b":2}}]'])
def test_a_repeated_key_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(Unfit, match="must not have a key twice"):
        compact_json("array", [b"null", text.encode(), b'[{"c":1}]'])


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', '{"a":1, "a" :2}'])
def test_a_repeated_key_among_sound_texts_is_refused(text: str) -> None:
    with pytest.raises(Unfit, match="must not have a key twice"):
        compact_json("object", [b'{"a":1}', text.encode(), b'{"b" : 1}'])
