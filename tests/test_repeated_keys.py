"""A key that a record has twice: each reader would keep another of its values, so the record is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest
from api_rows import UNHURRIED, pages
from hypothesis import given
from hypothesis import strategies as st

from m3ter_dagster.frames.decoding import SEARCHED, Decoder
from m3ter_dagster.frames.raw_rows import may_repeat_a_key
from m3ter_dagster.frames.schema import Breach
from m3ter_dagster.model.entities import entities

ACCOUNT, METER, PRICING_BAND = (entities()[name] for name in ("account", "meter", "pricing_band"))
ONCE = "must be in a record only once"
LONG = "9" * 5000
"""Python itself reads no integer of so many digits."""
GOOD = '{"id":"good"}'
GOOD_PAGE = f"[{GOOD}]".encode()


def batched(pages: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (pages[first : first + size] for first in range(0, len(pages), size))


def breaches(*found: str) -> list[Breach]:
    """What breaks the schema of meters in some pages that are decoded together."""
    return Decoder(METER).decode(*(page.encode() for page in found))[1]


@pytest.mark.parametrize(
    ("row", "column", "shown"),
    [
        ('{"id":"a","code":"x","code":"y"}', "code", '"y"'),
        ('{"id":"a","code":"x","version":1,"code":"x"}', "code", '"x"'),
        (r'{"id":"a","code":null,"\u0063ode":"y"}', "code", '"y"'),
        ('{ "id" : "a",\t"code" :"x"\r\n, "code": null}', "code", "null"),
        ('{"id":"a","note:":1,"version":1,"version":2}', "version", "2"),
        ('{"id":"a","customFields":{"a":{"b":1}},"customFields":{}}', "customFields", "{}"),
        ('{"id":"a","tomorrow":"x","tomorrow":["y:"]}', "tomorrow", "a JSON array of 6 characters"),
        (f'{{"id":"a","n":{LONG},"version":{LONG},"version":1}}', "version", "1"),
        (r'{"id":"a","\ud800":"x","\ud800":"y"}', r"\ud800", "text of 1 character"),
        (f'{{"id":"a","code":"\\"code\\":","code":"x","n":{"[" * 2000}{"]" * 2000}}}', "code", '"x"'),
    ],
)
def test_a_repeated_key_is_named(row: str, column: str, shown: str) -> None:
    assert breaches(f"[{GOOD},{row},{GOOD}]") == [Breach("a", column, shown, ONCE)]


def test_all_repeated_keys_of_a_page_are_named() -> None:
    twice = '{"id":"%s","code":"x","code":"y","version":1,"version":1,"version":1}'
    found = breaches(f"[{twice % 'a'},{GOOD},{twice % 'b'}]")
    assert [(breach.row_id, breach.column) for breach in found] == [
        (row, column) for row in "ab" for column in ("code", "version")
    ]


def test_the_value_of_a_personal_field_is_not_shown() -> None:
    row = '{"id":"a","name":"Quux","name":"Quux Ltd"}'
    _, found = Decoder(ACCOUNT).decode(f"[{row}]".encode())
    assert found == [Breach("a", "name", "text of 8 characters", ONCE)]


@pytest.mark.parametrize("at_once", [1, 3, 2 * SEARCHED + 2])
def test_the_first_pages_are_searched_and_then_every_so_manyth(at_once: int) -> None:
    twice = b'[{"id":"a","code":"x","code":"y"}]'

    def is_found_on(number: int) -> bool:
        decoder, sent = Decoder(METER), [GOOD_PAGE] * (2 * SEARCHED + 2)
        sent[number] = twice
        decoded = [decoder.decode(*pages) for pages in batched(sent, at_once)]
        assert sum(len(frame) for frame, _ in decoded) == len(sent)
        return [Breach("a", "code", '"y"', ONCE)] in [breaches for _, breaches in decoded]

    found = [number for number in range(2 * SEARCHED + 2) if is_found_on(number)]
    assert found == [*range(SEARCHED + 1), 2 * SEARCHED]


def test_a_row_that_is_read_by_cell_may_repeat_no_key_on_any_page() -> None:
    decoder = Decoder(METER)
    decoder.decode(*[GOOD_PAGE] * (SEARCHED + 1))
    _, found = decoder.decode(b'[{"id":"a","code":"x","code":"y","a field of tomorrow":1}]')
    assert found == [Breach("a", "code", '"y"', ONCE)]


def test_a_record_whose_elements_are_rows_may_repeat_no_key_on_any_page() -> None:
    pricing = '{"id":"p","pricingBands":[{"id":"a"}],"pricingBands":[]}'
    _, found = Decoder(PRICING_BAND).decode(b'[{"id":"good"}]', f"[{pricing}]".encode())
    assert found == [Breach("p", "pricingBands", "[]", ONCE)]
    _, found = Decoder(PRICING_BAND).decode(b'[{"id":"p","pricingBands":[{"id":"a","unitPrice":1,"unitPrice":2}]}]')
    assert found == [Breach("a", "unitPrice", "2", ONCE)]


@UNHURRIED
@given(page=pages(METER), data=st.data())
def test_a_key_is_found_wherever_it_is_repeated(page: tuple[str, list[dict[str, object]]], data: st.DataObject) -> None:
    text, rows = page
    assert not any(breach.rule == ONCE for breach in breaches(text))
    if filled := [number for number, row in enumerate(rows) if row]:
        number = data.draw(st.sampled_from(filled))
        key, value = data.draw(st.sampled_from(sorted(rows[number].items(), key=str)))
        texts = [json.dumps(row) for row in rows]
        texts[number] = f"{texts[number][:-1]},{json.dumps(key)}:{json.dumps(value)}}}"
        found = breaches(f"[{','.join(texts)}]")
        assert [breach.column for breach in found if breach.rule == ONCE] == [key]


@pytest.mark.parametrize(
    "page",
    [
        "[]",
        '[{"id":"a","at":"2026-01-01T10:00:00Z","note":"\\":\\",\\"id\\":"}]',
        '[ {"id" : "a", "x" : {"id":{"id":1}} }\n, {"id":"a"} ]',
        '[{},{"":""}]',
    ],
)
def test_a_sound_page_is_read_at_once(page: str) -> None:
    assert not may_repeat_a_key(page.encode())
