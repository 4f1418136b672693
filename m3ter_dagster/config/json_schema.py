"""JSON Schema of exports.yaml, for editors. `m3ter-dagster schema > docs/exports.schema.json`."""

from __future__ import annotations

from typing import Any

from m3ter_dagster.config.models import Exports

_VARIABLE = {
    "description": "A value of the environment.",
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}",
}
_ABOUT = ("description", "examples", "default")


def exports_json_schema() -> dict[str, Any]:
    """The JSON Schema for editors; the project itself checks more."""
    schema = Exports.model_json_schema(by_alias=True)
    for model in (schema, *schema["$defs"].values()):
        model["properties"] = {name: _field(field) for name, field in model["properties"].items()}
    schema["$defs"]["Variable"] = _VARIABLE
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _field(field: dict[str, Any]) -> dict[str, Any]:
    """Without null, which stands for a field that is left out, and without the title that only repeats its name."""
    about = {key: field[key] for key in _ABOUT if field.get(key) is not None}
    value = field["anyOf"][0] if {"type": "null"} in field.get("anyOf", ()) else field
    return about | _or_variable({key: part for key, part in value.items() if key not in ("title", *_ABOUT)})


def _or_variable(value: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that may also be written as `${NAME}`, wherever a single text is allowed."""
    if "$ref" in value or "oneOf" in value:
        return value
    if "anyOf" in value:
        return {"anyOf": [one if "const" in one else _or_variable(one) for one in value["anyOf"]]}
    if value.get("type") == "array":
        return value | {"items": _or_variable(value["items"])}
    return {"anyOf": [value, {"$ref": "#/$defs/Variable"}]}
