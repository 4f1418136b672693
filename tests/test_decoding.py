"""Pages become rows with every digit and character as sent, or a breach that names the cell."""

from __future__ import annotations

import gc
import json
from contextlib import suppress
from typing import Any

import msgspec
import polars as pl
import pytest
from api_rows import DIGITS, UNHURRIED, pages
from hypothesis import given
from hypothesis import strategies as st

from m3ter_dagster.frames.cells import Unfit, read_cell
from m3ter_dagster.frames.decoding import Decoder
from m3ter_dagster.frames.schema import RECORD, RECORD_ID, RECORD_VERSION, Breach, frame_schema, spool_schema, validate
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity

LISTED = [entity for entity in entities().values() if not entity.elements]
ACCOUNT, AGGREGATION, BALANCE = (entities()[name] for name in ("account", "aggregation", "balance"))
METER, PRICING_BAND = entities()["meter"], entities()["pricing_band"]

ODD = '{"id":"odd","version":2.5}'
"""A row that breaks its schema, so its whole page is read cell by cell, for the report."""
NEW = '{"id":"new","a field of tomorrow":1}'
"""A row that cannot be decoded at once, so each row of its page is tried by itself."""
ODD_BREACH = Breach("odd", "version", "2.5", "must be a whole number")

WHOLE = "must be a whole number"
BITS = "must be a whole number of 64 bits"
NUMBER = "must be a number"
FLOAT = "must be a number that a float64 can hold"
TEXT = "must be text"
HALF_A_PAIR = "must be text that UTF-8 can hold; it has half a surrogate pair"

NUMBERS: list[tuple[str, int | str | None, float | str | None]] = [
    # as sent, in an integer column, in a number column
    ("null", None, None),
    ("0", 0, 0.0),
    ("0.0", 0, 0.0),
    ("-0.0", 0, -0.0),
    ("0e0", 0, 0.0),
    ("1", 1, 1.0),
    ("-1", -1, -1.0),
    ("10", 10, 10.0),
    ("10.0", 10, 10.0),
    ("10.000000000", 10, 10.0),
    ("1e1", 10, 10.0),
    ("1E1", 10, 10.0),
    ("1e+1", 10, 10.0),
    ("0.1e2", 10, 10.0),
    ("100e-1", 10, 10.0),
    ("-100.0E-1", -10, -10.0),
    ("100000000000000000000000e-20", 1000, 1000.0),
    ("2.5", WHOLE, 2.5),
    ("-2.5", WHOLE, -2.5),
    ("0.1", WHOLE, 0.1),
    ("1e-1", WHOLE, 0.1),
    ("1e-7", WHOLE, 1e-7),
    ("25e-1", WHOLE, 2.5),
    ("0.30000000000000004", WHOLE, 0.30000000000000004),
    ("0.1234567890123456789", WHOLE, 0.12345678901234568),
    ("2147483648", 2147483648, 2147483648.0),
    ("9007199254740991", 9007199254740991, 9007199254740991.0),
    ("9007199254740992", 9007199254740992, 9007199254740992.0),
    ("9007199254740993", 9007199254740993, 9007199254740992.0),
    ("9007199254740993.0", 9007199254740993, 9007199254740992.0),
    ("-9007199254740993.0", -9007199254740993, -9007199254740992.0),
    ("9007199254740992.5", WHOLE, 9007199254740992.0),
    ("1e18", 10**18, 1e18),
    ("1.234567890123456789e18", 1234567890123456789, 1.2345678901234568e18),
    ("9223372036854775807", 2**63 - 1, 2.0**63),
    ("9223372036854775807.0", 2**63 - 1, 2.0**63),
    ("-9223372036854775808", -(2**63), -(2.0**63)),
    ("9223372036854775808", BITS, 2.0**63),
    ("-9223372036854775809", BITS, -(2.0**63)),
    ("18446744073709551615", BITS, 2.0**64),
    ("18446744073709551616", BITS, 2.0**64),
    ("1e19", BITS, 1e19),
    ("12345678901234567890123456789", BITS, 1.2345678901234568e28),
    ("1e308", BITS, 1e308),
    ("1.7976931348623157e308", BITS, 1.7976931348623157e308),
    ("1e400", BITS, FLOAT),
    ("-1e400", BITS, FLOAT),
    ("1e999999999999999999999", WHOLE, FLOAT),
    ("2.2250738585072014e-308", WHOLE, 2.2250738585072014e-308),
    ("5e-324", WHOLE, 5e-324),
    ('"10"', WHOLE, NUMBER),
    ('""', WHOLE, NUMBER),
    ('"NaN"', WHOLE, NUMBER),
    ("true", WHOLE, NUMBER),
    ("[]", WHOLE, NUMBER),
    ("{}", WHOLE, NUMBER),
]
ROUNDED = [
    # what a float64 cannot tell from a whole number
    ("1e-400", WHOLE),
    ("2.0000000000000000001", WHOLE),
    ("-9.9999999999999999999", WHOLE),
    ("4503599627370496.0000001", WHOLE),
]

STRINGS = [
    ('""', ""),
    ('" "', " "),
    ('"null"', "null"),
    (r'"a\"b\\c\/d"', 'a"b\\c/d'),
    (r'"\b\f\n\r\t"', "\b\f\n\r\t"),
    (r'"\u0000"', "\0"),
    (r'"\u0001\u001f"', "\x01\x1f"),
    ('"\x7f\u0085\u2028\u2029"', "\x7f\u0085\u2028\u2029"),
    ('"\ufeffmark"', "\ufeffmark"),
    (r'"\u00e9"', "é"),
    ('"e\u0301"', "e\u0301"),
    ('"🚀"', "🚀"),
    (r'"\ud83d\ude80"', "🚀"),
    ('"👩‍👩‍👧‍👦"', "👩‍👩‍👧‍👦"),
    ('"\U0010ffff"', "\U0010ffff"),
    ('"2024-06-01T10:00:00.123456789Z"', "2024-06-01T10:00:00.123456789Z"),
    (f'"{"x" * 100_000}"', "x" * 100_000),
]

OBJECTS = [
    ("{}", "{}"),
    ("{ }", "{}"),
    ('{"b":1,"a":2}', '{"b":1,"a":2}'),
    ('{ "b" : 1 ,\n\t"a" : [ 1 , 2 ] }', '{"b":1,"a":[1,2]}'),
    ('{"a b":" c  d "}', '{"a b":" c  d "}'),
    ('{ "a" : " b : c , d " }', '{"a":" b : c , d "}'),
    ('{"n":0.12345678901234567890123456789}', '{"n":0.12345678901234567890123456789}'),
    ('{"n":12345678901234567890.5,"m":1.0,"o":1E+2,"p":-0}', '{"n":12345678901234567890.5,"m":1.0,"o":1E+2,"p":-0}'),
    ('{"n":1e999}', '{"n":1e999}'),
    (r'{"t":"\u00e9\/\ud83d\ude80\u0000"}', r'{"t":"\u00e9\/\ud83d\ude80\u0000"}'),
    ('{"t":"é🚀"}', '{"t":"é🚀"}'),
    ('{"":""}', '{"":""}'),
    (r'{"a\":b":{"a\":b":1}}', r'{"a\":b":{"a\":b":1}}'),
    ('{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}', '{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}'),
    ('{"a":null,"b":true}', '{"a":null,"b":true}'),
    ("null", None),
]

BREACHES = [
    # entity, field, as sent, as shown, rule
    ("account", "name", "5", "a number of 1 character", TEXT),
    ("account", "name", "true", "a boolean of 4 characters", TEXT),
    ("account", "name", '["x"]', "a JSON array of 5 characters", TEXT),
    ("account", "name", '{"x":1}', "a JSON object of 7 characters", TEXT),
    ("account", "version", "2.5", "2.5", WHOLE),
    ("account", "version", '"1"', '"1"', WHOLE),
    ("account", "version", "1e19", "1e19", BITS),
    ("account", "address", '"1, High Street"', "text of 14 characters", "must be a JSON object"),
    ("account", "address", "[]", "[]", "must be a JSON object"),
    ("account", "address", "1", "a number of 1 character", "must be a JSON object"),
    ("account", "creditApplicationOrder", "{}", "{}", "must be a JSON array"),
    ("account", "creditApplicationOrder", '"PREPAYMENT"', '"PREPAYMENT"', "must be a JSON array"),
    ("account", "customFields", '{"a":1,"b":2,"a":3}', "a JSON object of 19 characters", "must not have a key twice"),
    ("account", "customFields", '{"x":[{"a":1,"a":1}]}', "a JSON object of 21 characters", "must not have a key twice"),
    ("account", "customFields", r'{"a":1,"\u0061":2}', "a JSON object of 18 characters", "must not have a key twice"),
    ("balance", "amount", '"1.5"', '"1.5"', NUMBER),
    ("balance", "amount", "false", "false", NUMBER),
    ("balance", "amount", "-1e400", "-1e400", FLOAT),
    ("plan", "bespoke", '"true"', '"true"', "must be true or false"),
    ("plan", "bespoke", "1", "1", "must be true or false"),
    ("plan", "bespoke", "0", "0", "must be true or false"),
]


def decode(entity: Entity, *pages: str) -> tuple[pl.DataFrame, list[Breach]]:
    """The exported columns of the rows of several pages, with what breaks the schema."""
    decoder = Decoder(entity)
    decoded = [decoder.decode(page.encode()) for page in pages]
    frame = pl.concat(frame for frame, _ in decoded).select(list(frame_schema(entity)))
    return frame, [breach for _, breaches in decoded for breach in breaches]


def decode_by_cell(entity: Entity, page: str) -> tuple[pl.DataFrame, list[Breach]]:
    """The same for a page that holds an odd row too."""
    rows = page[1:-1].strip()
    frame, breaches = decode(entity, f"[{rows},{ODD}]" if rows else f"[{ODD}]")
    assert breaches.pop() == ODD_BREACH
    return frame.head(-1), breaches


def decode_by_row(entity: Entity, page: str) -> tuple[pl.DataFrame, list[Breach]]:
    """The same for a page with a row before and one behind that are not as documented."""
    rows = page[1:-1].strip()
    frame, breaches = decode(entity, f"[{NEW},{rows},{NEW}]" if rows else f"[{NEW},{NEW}]")
    assert [frame[entity.primary_key][place] for place in (0, -1)] == ["new", "new"]
    return frame.slice(1, len(frame) - 2), breaches


WAYS = (decode, decode_by_cell, decode_by_row)
DECODERS = pytest.mark.parametrize("decode", WAYS)


def page_of(field: str, value: str) -> str:
    return f'[{{"id":"a",{json.dumps(field)}:{value}}}]'


@DECODERS
@pytest.mark.parametrize(("sent", "integer", "number"), NUMBERS)
@pytest.mark.parametrize("entity_and_field", [(ACCOUNT, "version"), (BALANCE, "amount"), (AGGREGATION, "defaultValue")])
def test_a_number_is_read_exactly_or_refused(
    decode: Any,
    sent: str,
    integer: int | str | None,
    number: float | str | None,
    entity_and_field: tuple[Entity, str],
) -> None:
    entity, field = entity_and_field
    frame, breaches = decode(entity, page_of(field, sent))
    expected = integer if entity.column(field).type == "integer" else number
    if isinstance(expected, str):
        assert breaches == [Breach("a", field, sent, expected)]
    else:
        assert breaches == []
        assert repr(frame[field].to_list()) == repr([expected])


@pytest.mark.parametrize(("sent", "rule"), ROUNDED)
def test_a_fraction_in_an_integer_column_is_refused_however_small(sent: str, rule: str) -> None:
    _, breaches = decode(ACCOUNT, page_of("version", sent))
    assert breaches == [Breach("a", "version", sent, rule)]


@DECODERS
@pytest.mark.parametrize("gap", ["", " ", "\n", "\r\n  "])
@pytest.mark.parametrize("sent", ["-0", "-0.0", "-0e0", "-0E+1", "-0.00"])
def test_a_zero_keeps_its_sign_in_a_number_column_and_has_none_in_an_integer_column(
    decode: Any, sent: str, gap: str
) -> None:
    integers, _ = decode(ACCOUNT, page_of("version", f"{gap}{sent}{gap}"))
    assert integers["version"].to_list() == [0]
    numbers, _ = decode(BALANCE, page_of("amount", f"{gap}{sent}{gap}"))
    assert repr(numbers["amount"].to_list()) == "[-0.0]"


@pytest.mark.parametrize("gap", ["\t", "\r"])
def test_a_zero_keeps_its_sign_after_any_white_space(gap: str) -> None:
    frame, _ = decode(BALANCE, page_of("amount", f"{gap}-0"))
    assert repr(frame["amount"].to_list()) == "[-0.0]"


@DECODERS
@pytest.mark.parametrize(("sent", "text"), STRINGS, ids=range(len(STRINGS)))
def test_a_text_is_read_with_every_character(decode: Any, sent: str, text: str) -> None:
    frame, breaches = decode(ACCOUNT, page_of("name", sent))
    assert breaches == []
    assert frame["name"].to_list() == [text]


@DECODERS
@pytest.mark.parametrize(("sent", "text"), OBJECTS)
def test_an_object_keeps_its_key_order_digits_and_escapes_without_white_space(
    decode: Any, sent: str, text: str | None
) -> None:
    frame, breaches = decode(ACCOUNT, page_of("customFields", sent))
    assert breaches == []
    assert frame["customFields"].to_list() == [text]


@DECODERS
@pytest.mark.parametrize(
    ("sent", "text"), [("[]", "[]"), ("[ 1 , 2.50 ]", "[1,2.50]"), ('[{"b":1, "a":2}]', '[{"b":1,"a":2}]')]
)
def test_an_array_keeps_its_digits_without_white_space(decode: Any, sent: str, text: str) -> None:
    frame, breaches = decode(METER, page_of("dataFields", sent))
    assert breaches == []
    assert frame["dataFields"].to_list() == [text]


@DECODERS
@pytest.mark.parametrize(("sent", "value"), [("true", True), ("false", False), ("null", None)])
def test_a_boolean_is_read(decode: Any, sent: str, value: bool | None) -> None:
    frame, breaches = decode(entities()["plan"], page_of("bespoke", sent))
    assert breaches == []
    assert frame["bespoke"].to_list() == [value]


@DECODERS
@pytest.mark.parametrize(("entity", "field", "sent", "shown", "rule"), BREACHES)
def test_a_breach_names_row_column_value_and_rule(
    decode: Any, entity: str, field: str, sent: str, shown: str, rule: str
) -> None:
    good = '{"id":"good"}'
    _, breaches = decode(entities()[entity], f"[{good},{page_of(field, sent)[1:-1]},{good}]")
    assert breaches == [Breach("a", field, shown, rule)]
    assert str(breaches[0]) == f"row a, column {field}, value {shown}: {rule}"
    assert breaches[0].without_value == f"row a, column {field}: {rule}"


def test_all_breaches_of_a_page_are_named() -> None:
    _, breaches = decode(ACCOUNT, '[{"id":"a","name":1,"version":2.5},{"id":"b"},{"id":"c","address":3}]')
    assert [(breach.row_id, breach.column) for breach in breaches] == [
        ("a", "version"),
        ("a", "name"),
        ("c", "address"),
    ]


def test_a_row_without_an_id_is_named_so() -> None:
    _, breaches = decode(ACCOUNT, '[{"currency":1}]')
    assert str(breaches[0]) == "a row without id, column currency, value 1: must be text"


def test_a_long_value_is_cut_in_the_message() -> None:
    _, breaches = decode(ACCOUNT, page_of("version", json.dumps("x" * 1000)))
    assert breaches[0].value == f'"{"x" * 119}... (1002 characters)'


@pytest.mark.parametrize(
    ("field", "sent", "shown"),
    [
        ("name", r'"\ud800"', "text of 6 characters"),
        ("name", r'"x\udc00y"', "text of 8 characters"),
        ("name", r'"\ude80\ud83d"', "text of 12 characters"),
        ("customFields", r'{"a":"\ud800"}', "a JSON object of 14 characters"),
        ("customFields", r'{"a":[{"b":"\ud800"}]}', "a JSON object of 22 characters"),
        ("customFields", r'{"\ud800":1}', "a JSON object of 12 characters"),
        ("creditApplicationOrder", r'["\ud800"]', r'["\ud800"]'),
    ],
)
def test_half_a_surrogate_pair_is_refused_by_name(field: str, sent: str, shown: str) -> None:
    _, breaches = decode(ACCOUNT, f'[{{"id":"good"}},{page_of(field, sent)[1:-1]}]')
    assert breaches == [Breach("a", field, shown, HALF_A_PAIR)]


def test_half_a_pair_in_an_id_is_refused() -> None:
    _, breaches = decode(ACCOUNT, r'[{"id":"\ud800"}]')
    assert breaches == [Breach(None, "id", r'"\ud800"', HALF_A_PAIR)]


def test_half_a_pair_in_what_is_not_exported_changes_nothing_else_of_the_page() -> None:
    decoder = Decoder(ACCOUNT)
    rows = r'{"id":"a","\ud800":1,"new":"\ud800"},{"id":"b","customFields":{ "n":0.12345678901234567890123}}'
    frame, breaches = decoder.decode(f"[{rows}]".encode())
    assert breaches == []
    assert frame.select("id", "customFields").rows() == [("a", None), ("b", '{"n":0.12345678901234567890123}')]
    assert decoder.unknown_fields == {r"\ud800": 1, "new": 1}


def test_a_repeated_key_is_found_beside_a_text_that_looks_like_one() -> None:
    sent = r'{"a":1,"a":"\u0022:"}'
    _, breaches = decode(ACCOUNT, page_of("customFields", sent))
    assert breaches == [Breach("a", "customFields", "a JSON object of 21 characters", "must not have a key twice")]


@pytest.mark.parametrize(
    ("row", "shown"),
    [
        ("1", "a number of 1 character"),
        ('"x"', "text of 1 character"),
        ('["x"]', "a JSON array of 5 characters"),
        ("null", "null"),
        ("[]", "[]"),
    ],
)
def test_a_row_that_is_no_object_is_refused(row: str, shown: str) -> None:
    _, breaches = decode(ACCOUNT, f'[{{"id":"a"}},{row}]')
    assert breaches == [Breach(None, "id", shown, "must be a JSON object")]


@pytest.mark.parametrize("row", ["{}", '{"id":null}', '{"id":""}'])
def test_a_missing_id_is_a_breach(row: str) -> None:
    frame, breaches = decode(ACCOUNT, f'[{{"id":"a"}},{row}]')
    found = breaches + validate(frame, ACCOUNT)
    assert {(breach.row_id, breach.column) for breach in found} == {(None, "id")}
    assert found[0].rule in ("must not be missing", "must not be empty")


def test_an_empty_foreign_key_is_a_breach() -> None:
    frame, _ = decode(entities()["contract"], '[{"id":"a","accountId":""}]')
    assert validate(frame, entities()["contract"]) == [Breach("a", "accountId", '""', "must not be empty")]


def test_absent_and_null_fields_are_null_and_constants_stand_in_every_row() -> None:
    frame, _ = decode(ACCOUNT, '[{"id":"a"},{"id":"b","name":null,"customFields":null}]')
    assert frame["deleted"].to_list() == [False, False]
    assert [name for name in frame.columns if frame[name].null_count() == 0] == ["id", "deleted"]


def test_a_column_takes_its_value_from_the_apis_field() -> None:
    frame, _ = decode(entities()["bill"], '[{"id":"a","billFrequencyInterval":3}]')
    assert frame["billingFrequencyInterval"].to_list() == [3]


def test_a_field_that_the_export_fills_itself_is_not_taken_from_the_api() -> None:
    frame, breaches = decode(ACCOUNT, '[{"id":"a","deleted":true}]')
    assert breaches == []
    assert frame["deleted"].to_list() == [False]


@pytest.mark.parametrize("entity", LISTED, ids=lambda entity: entity.name)
def test_a_page_without_rows_has_all_columns(entity: Entity) -> None:
    frame, breaches = Decoder(entity).decode(b"[]")
    assert breaches == []
    assert dict(frame.schema) == spool_schema(entity)
    assert len(frame) == 0


@pytest.mark.parametrize("was_running", [True, False])
@pytest.mark.parametrize("page", ["[]", f"[{ODD}]", "no page"])
def test_the_garbage_collector_is_left_as_it_was(was_running: bool, page: str) -> None:
    (gc.enable if was_running else gc.disable)()
    try:
        with suppress(ValueError):
            decode(ACCOUNT, page)
        assert gc.isenabled() == was_running
    finally:
        gc.enable()


def test_records_are_counted_over_pages() -> None:
    decoder = Decoder(ACCOUNT)
    frames = [decoder.decode(page)[0] for page in (b'[{"id":"a"},{"id":"b"}]', b"[]", b'[{"id":"c"}]')]
    assert pl.concat(frames)[RECORD].to_list() == [0, 1, 2]


def test_unknown_fields_are_counted_over_pages() -> None:
    decoder = Decoder(ACCOUNT)
    for page in (
        '[{"id":"a"}]',
        '[{"id":"b","x":1},{"id":"c"}]',
        '[{"id":"d","x":null,"y":{}}]',
        '[{"id":"e","x":[2]}]',
    ):
        _, breaches = decoder.decode(page.encode())
        assert breaches == []
    assert decoder.unknown_fields == {"x": 3, "y": 1}


def test_rows_that_are_not_as_documented_stand_where_they_were() -> None:
    """Some are refused at once, some when they are read by themselves, and all others are not."""
    odd = {1: '"version":1.0', 4: '"a field of tomorrow":1', 5: '"daysBeforeBillDue":-0', 9: '"tomorrow":2'}
    rows = [f'{{"id":"{number}",{odd.get(number, f"{chr(34)}version{chr(34)}:{number}")}}}' for number in range(12)]
    decoder = Decoder(ACCOUNT)
    for _ in range(2):
        frame, breaches = decoder.decode(f"[{','.join(rows)}]".encode())
        assert breaches == []
        assert frame["id"].to_list() == [str(number) for number in range(12)]
        expected = [None if number in (4, 5, 9) else number for number in range(12)]
        assert frame["version"].to_list() == expected
    assert decoder.unknown_fields == {"a field of tomorrow": 2, "tomorrow": 2}


def test_known_fields_that_are_not_exported_are_not_reported() -> None:
    decoder = Decoder(ACCOUNT)
    assert ACCOUNT.not_exported == {"daysBeforeBillDue"}
    decoder.decode(b'[{"id":"a","daysBeforeBillDue":30}]')
    decoder.decode(b'[{"id":"b","daysBeforeBillDue":"x","version":1e0}]')
    assert decoder.unknown_fields == {}


def test_unknown_fields_are_counted_once_where_a_page_is_read_by_cell() -> None:
    decoder = Decoder(ACCOUNT)
    decoder.decode(b'[{"id":"a","x":1}]')
    decoder.decode(b'[{"id":"b","x":1,"version":10000000000000000.0}]')
    assert decoder.unknown_fields == {"x": 2}


@pytest.mark.parametrize("name", ["x", "", "a b", "Größe", "🚀", "id ", "field0", "class", "__dict__"])
def test_an_unknown_field_may_have_any_name(name: str) -> None:
    decoder = Decoder(ACCOUNT)
    page = json.dumps([{"id": "a", name: 1}]).encode()
    for _ in range(2):
        frame, breaches = decoder.decode(page)
        assert (frame["id"].to_list(), breaches) == (["a"], [])
    assert decoder.unknown_fields == {name: 2}


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\0"])
def test_an_unknown_field_may_have_a_name_that_json_escapes(name: str) -> None:
    decoder = Decoder(ACCOUNT)
    decoder.decode(json.dumps([{"id": "a", name: 1}]).encode())
    assert decoder.unknown_fields == {name: 1}


def test_bands_come_from_both_arrays_of_each_pricing() -> None:
    pricings = [
        {"id": "p", "version": 3, "pricingBands": [{"id": "a", "unitPrice": 1}, {"id": "b", "lowerLimit": 0.1}]},
        {"id": "q", "version": 1, "pricingBands": [], "overagePricingBands": None},
        {"id": "r", "pricingBands": [{"id": "c"}], "overagePricingBands": [{"id": "d", "fixedPrice": 2.5}]},
    ]
    decoder = Decoder(PRICING_BAND)
    frame, breaches = decoder.decode(json.dumps(pricings).encode())
    assert breaches == []
    assert frame.select("id", "pricingId", "type", "lowerLimit", "fixedPrice", "unitPrice", "deleted").rows() == [
        ("a", "p", "STANDARD", None, None, 1.0, False),
        ("b", "p", "STANDARD", 0.1, None, None, False),
        ("c", "r", "STANDARD", None, None, None, False),
        ("d", "r", "OVERAGE", None, 2.5, None, False),
    ]
    assert frame[RECORD].to_list() == [0, 0, 2, 2]
    assert decoder.enclosing_records().select(RECORD, RECORD_ID, RECORD_VERSION).rows() == [
        (0, "p", 3),
        (1, "q", 1),
        (2, "r", None),
    ]
    assert frame["version"].null_count() == 4


def test_pricings_are_counted_over_pages_even_where_they_have_no_bands() -> None:
    decoder = Decoder(PRICING_BAND)
    frames = [
        decoder.decode(json.dumps([{"id": "p"}, {"id": f"p{number}", "pricingBands": [{"id": "b"}]}]).encode())[0]
        for number in range(3)
    ]
    assert pl.concat(frames)[RECORD].to_list() == [1, 3, 5]


def test_unknown_fields_of_bands_are_counted_and_those_of_pricings_are_not() -> None:
    decoder = Decoder(PRICING_BAND)
    decoder.decode(b'[{"id":"p","new":1,"pricingBands":[{"id":"a","x":1,"creditTypeId":null}]}]')
    assert decoder.unknown_fields == {"x": 1}


@pytest.mark.parametrize(
    ("pricing", "breach"),
    [
        ('{"id":"p","pricingBands":{}}', Breach("p", "pricings.pricingBands", "{}", "must be a JSON array")),
        (
            '{"id":"p","overagePricingBands":1}',
            Breach("p", "pricings.overagePricingBands", "a number of 1 character", "must be a JSON array"),
        ),
        ('{"pricingBands":[{"id":"a"}]}', Breach(None, "pricings.id", "null", "must not be missing")),
        ('{"id":7,"pricingBands":[]}', Breach(None, "pricings.id", "a number of 1 character", TEXT)),
        ('{"id":"p","pricingBands":[{"id":"a","unitPrice":"1"}]}', Breach("a", "unitPrice", '"1"', NUMBER)),
        ('{"id":"p","pricingBands":[1]}', Breach(None, "id", "a number of 1 character", "must be a JSON object")),
    ],
)
def test_a_breach_in_a_pricing_or_its_bands_is_named(pricing: str, breach: Breach) -> None:
    _, breaches = Decoder(PRICING_BAND).decode(f'[{{"id":"good","pricingBands":[{{"id":"z"}}]}},{pricing}]'.encode())
    assert breaches == [breach]


@UNHURRIED
@given(page=st.sampled_from(LISTED).flatmap(lambda entity: st.tuples(st.just(entity), pages(entity))))
def test_any_page_decodes_to_exactly_the_values_sent(page: tuple[Entity, tuple[str, list[dict[str, Any]]]]) -> None:
    entity, (text, rows) = page
    for way in WAYS:
        frame, breaches = way(entity, text)
        assert breaches == []
        assert dict(frame.schema) == frame_schema(entity)
        assert repr(frame.rows(named=True)) == repr(rows)


@UNHURRIED
@given(number=DIGITS, column=st.sampled_from([(BALANCE, "amount"), (AGGREGATION, "quantityPerUnit")]))
def test_all_ways_agree_on_any_number(number: str, column: tuple[Entity, str]) -> None:
    entity, field = column
    at_once, *others = (way(entity, page_of(field, number)) for way in WAYS)
    for other in others:
        assert at_once[1] == other[1]
        assert repr(at_once[0][field].to_list()) == repr(other[0][field].to_list())


@UNHURRIED
@given(number=DIGITS | st.integers().map(lambda digits: f"{digits}.00000000000000000000001"))
def test_all_ways_agree_on_any_integer(number: str) -> None:
    at_once, *others = (way(ACCOUNT, page_of("version", number)) for way in WAYS)
    for other in others:
        assert at_once[1] == other[1]
        assert at_once[0].equals(other[0])


@UNHURRIED
@given(text=st.text(st.characters(codec="utf-8"), max_size=8), type_=st.sampled_from(["integer", "number", "boolean"]))
def test_a_text_is_never_taken_for_another_type(text: str, type_: str) -> None:
    with pytest.raises(Unfit):
        read_cell(type_, msgspec.json.encode(text))


DEPTHS = [500, 990, 1000, 5000, 100_000]
"""Parsers end somewhere between, each elsewhere, and earlier the more calls are open."""


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "1}")], ids=["array", "object"])
@pytest.mark.parametrize("field", ["name", "customFields", "version"])
def test_a_value_that_is_nested_too_deeply_is_named(field: str, opening: str, closing: str, depth: int) -> None:
    nested = opening * depth + closing[:-1] + closing[-1] * depth
    page = f'[{{"id":"a","say":"[\\"]","{field}": {nested} }},{{"id":"b"}}]'
    frame, breaches = Decoder(ACCOUNT).decode(page.encode())
    assert frame["id"].to_list() == ["a", "b"]
    fits = (field, opening[0]) == ("customFields", "{") and depth < DEPTHS[-1]
    found = [(one.row_id, one.column) for one in breaches]
    assert found == [("a", field)] or (fits and found == [])


@pytest.mark.parametrize("depth", [990, 100_000])
def test_an_unknown_field_that_is_nested_deeply_is_no_matter(depth: int) -> None:
    page = f'[{{"new":{"[" * depth}{"]" * depth},"id":"a"}},{{"id":"b"}}]'
    decoder = Decoder(ACCOUNT)
    frame, breaches = decoder.decode(page.encode())
    assert (frame["id"].to_list(), breaches) == (["a", "b"], [])
    assert decoder.unknown_fields == {"new": 1}


@pytest.mark.parametrize("depth", [1, 990, 100_000])
def test_a_row_that_is_nested_too_deeply_is_no_object(depth: int) -> None:
    _, breaches = Decoder(ACCOUNT).decode(b"[" * depth + b"]" * depth)
    assert [one.rule for one in breaches] == ([] if depth == 1 else ["must be a JSON object"])


@pytest.mark.parametrize("entity", [ACCOUNT, PRICING_BAND])
def test_a_row_that_is_text_with_half_a_surrogate_pair_is_no_object(entity: Entity) -> None:
    _, breaches = Decoder(entity).decode(rb'["\ud800"]')
    first = breaches[0]
    assert (first.row_id, first.value, first.rule) == (None, "text of 6 characters", "must be a JSON object")


def test_bands_that_are_nested_too_deeply_are_named() -> None:
    page = b'[{"id":"p","planId":"q","pricingBands":[' + b"[" * 5000 + b"]" * 5000 + b"]}]"
    _, breaches = Decoder(PRICING_BAND).decode(page)
    assert breaches
