"""What pydantic refuses, in words that complete "schedule 'nightly' ...": one table by kind of error.

What is allowed, and an example of it, stands beside each field; it is read from the JSON Schema of the model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from m3ter_dagster.model.suggestions import known_names

Loc = tuple[str | int, ...]
Schema = Mapping[str, Any]

WORDS = {
    "container": "has {kind} as {noun}; {advice}",
    "extra_forbidden": "has the unknown key {key!r}; {known}",
    "missing": "has no {key!r}; write it, such as {key}: {example}",
    "model_type": "{has_a_kind}; write keys and values, such as {pair}",
    "nothing": "has nothing behind {key!r}; write it, such as {key}: {example}",
    "of_another_kind": "has the key {key!r}, which belongs to the {field} {other}; leave it out, or "
    "write {field}: {other}",
    "secret": "has an invalid {noun}; {advice}",
    "string_type": "has {kind} as {noun}; write one text",
    "timezone_aware": "has the {noun} {value!r}, which has no time zone; {advice}",
    "too_short": "has an empty list as {noun}; {at_least}",
    "tuple_type": "has {kind} as {noun}; {advice}",
    "url_password": "has a user or password in {noun}; write the address without them",
    "value_error": "{error}",
    "year": "has the {noun} {value!r}; write a moment from {first} to {last}",
}
A_WRONG_VALUE = "{has} the {noun} {value!r}; {advice}"
"""The words for every other kind of error: patterns, lengths, limits, choices."""
MOST_CHOICES = 7
"""A longer list of choices is in alphabetical order, and the nearest one is suggested."""


@dataclass(frozen=True)
class Refusal:
    """One mistake; `loc` is where the wrong value is, by the names that the file uses."""

    kind: str
    loc: Loc
    words: str


@dataclass(frozen=True)
class _Place:
    """What the schema says of a location: of the value, of the model that it is in, of that model's alternatives."""

    loc: Loc
    value: Schema
    owner: Schema
    alternatives: Sequence[Schema]


@cache
def schema_of(model: type[BaseModel]) -> Schema:
    """Its JSON Schema, which takes pydantic longer than all else that is done for a mistake."""
    return model.model_json_schema(by_alias=True)


def refusals(error: ValidationError, model: type[BaseModel]) -> Iterator[Refusal]:
    """The mistakes in `error`, except those that only follow from another one."""
    schema = schema_of(model)
    for details in error.errors():
        if not _follows(details):
            place = _place(schema, details["loc"], is_missing=details["type"] == "missing")
            kind = _kind(details, place)
            yield Refusal(kind, place.loc, WORDS.get(kind, A_WRONG_VALUE).format_map(_values(details, place)))


def _follows(details: ErrorDetails) -> bool:
    """Whether an error follows from another: a wrong field is no default, a wrong item makes a list too short."""
    kind = details["type"]
    return kind == "default_factory_not_called" or (kind == "too_short" and bool(details["input"]))


def sentence(words: str) -> str:
    return words if words.endswith((".", "?")) else f"{words}."


def _place(schema: Schema, loc: Loc, *, is_missing: bool) -> _Place:
    value = owner = schema
    plain: list[str | int] = []
    alternatives: list[Schema] = []
    for part in loc:
        if "oneOf" in value:
            # Pydantic says which model of several read the item; the file has no such level.
            alternatives = [meant(one, schema) for one in value["oneOf"]]
            value = schema["$defs"][part]
            continue
        if is_missing and isinstance(part, str) and part not in value["properties"]:
            part = to_camel(part)  # a default is refused under the name that the field has in Python
        plain.append(part)
        if isinstance(part, str):
            owner = value
        value = meant(value.get("items", {}) if isinstance(part, int) else value["properties"].get(part, {}), schema)
    return _Place(tuple(plain), value, owner, alternatives)


def meant(value: Schema, schema: Schema) -> Schema:
    """The usual form of a value, without null and words such as ALL that are allowed beside it."""
    if "$ref" in value:
        return {**schema["$defs"][value["$ref"].rsplit("/", 1)[-1]], **value}
    forms = [one for one in value.get("anyOf", ()) if one.get("type") != "null" and "const" not in one]
    usual = next((one for one in forms if one.get("type") == "array"), forms[0] if forms else None)
    return {**meant(usual, schema), **value} if usual else value


def _kind(details: ErrorDetails, place: _Place) -> str:
    """The kind of error: pydantic's, or one that says more."""
    kind, value = details["type"], details["input"]
    if kind == "extra_forbidden" and _owner_of_key(place):
        return "of_another_kind"
    if kind in ("extra_forbidden", "missing", "value_error"):
        return kind
    if value is None and place.loc and isinstance(place.loc[-1], str):
        return "nothing"
    if kind in WORDS:
        return kind
    if isinstance(value, (list, tuple, dict)):
        return "container"
    return "secret" if place.value.get("writeOnly") else kind


def _owner_of_key(place: _Place) -> Schema | None:
    """The alternative that does have the unknown key."""
    others = [one for one in place.alternatives if place.loc[-1] in one["properties"] and len(place.loc) == 3]
    return others[0] if others else None


def _values(details: ErrorDetails, place: _Place) -> dict[str, Any]:
    """The values that the words are filled with."""
    key = str(place.loc[-1]) if place.loc else ""
    value, is_item = details["input"], not place.loc or isinstance(place.loc[-1], int)
    others = (_owner_of_key(place) or {}).get("properties", {})
    field, of_kind = next(((name, one["const"]) for name, one in others.items() if "const" in one), ("", ""))
    kind = "a text" if isinstance(value, str) and not is_item and "properties" in place.value else a_kind_of(value)
    properties = place.value.get("properties", {"": {}})
    first = next(iter(place.value.get("required", properties)))
    advice = _advice(place.value, value)
    return {
        "advice": advice,
        "at_least": advice.replace("a list of", "at least one of"),
        "example": _example(place.value),
        "field": field,
        "has": "names" if is_item else "has",
        "has_a_kind": f"is {kind}" if is_item else f"has {kind} as {key}",
        "key": key,
        "kind": kind,
        "known": known_names(key, place.owner.get("properties", ())),
        "noun": place.value.get("title", "value") if is_item else key,
        "other": of_kind,
        "pair": f"{first}: {_example(properties[first])}",
        "value": value if isinstance(value, (str, int, float)) else str(value),
        **details.get("ctx", {}),
    }


def _advice(value: Schema, given: Any) -> str:
    """The advice of the field, or what its type allows."""
    choices = value.get("enum") or [value[name] for name in ("const",) if name in value]
    if "errorMessage" in value:
        return value["errorMessage"]
    if len(choices) > MOST_CHOICES:
        return known_names(str(given), choices)
    if choices:
        return f"write {' or '.join(choices)}"
    if value.get("type") == "integer":
        return f"write a whole number from {value['minimum']} to {value['maximum']}, such as {_example(value)}"
    return "write true or false"


def a_kind_of(value: Any) -> str:
    kinds = {list: "a list", tuple: "a list", dict: "a mapping", type(None): "nothing"}
    return kinds.get(type(value), f"the value {value!r}")


def _example(value: Schema) -> str:
    """The value as YAML."""
    return json.dumps(value.get("examples", [""])[0]).replace('"', "")
