"""JSON Schema of exports.yaml, for editors. `m3ter-dagster schema > docs/exports.schema.json`."""

from __future__ import annotations

from typing import Any

from m3ter_dagster.config.models import ALL, Exports, data_types
from m3ter_dagster.model.entities import entities

_VARIABLE = {
    "description": "A value of the environment.",
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}",
}
_ABOUT = ("description", "examples", "default")


def exports_json_schema() -> dict[str, Any]:
    """What an editor may know of the file; the project itself checks more."""
    schema = Exports.model_json_schema(by_alias=True)
    for model in (schema, *schema["$defs"].values()):
        model["properties"] = {name: _field(field) for name, field in model["properties"].items()}
    schedule = schema["$defs"]["ExportSchedule"]["properties"]
    schedule["operationalDataTypes"] = _about(schedule["operationalDataTypes"]) | _data_types()
    usage = schema["$defs"]["UsageSchedule"]["properties"]
    for name in ("meterIds", "accountIds"):
        listed = {key: part for key, part in usage[name].items() if key not in _ABOUT}
        usage[name] = _about(usage[name]) | {"anyOf": [{"const": ALL}, listed]}
    schema["$defs"]["Variable"] = _VARIABLE
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema}


def _field(field: dict[str, Any]) -> dict[str, Any]:
    """The field with `${NAME}` allowed in it and without what only pydantic needs."""
    if field.get("type") == "array":
        kept = {key: value for key, value in field.items() if key != "title"}
        return kept | {"items": _or_variable(field["items"])}
    value = field["anyOf"][0] if "anyOf" in field else field
    bare = {key: part for key, part in value.items() if key not in ("title", *_ABOUT)}
    return _about(field) | _or_variable(bare)


def _about(field: dict[str, Any]) -> dict[str, Any]:
    return {key: field[key] for key in _ABOUT if field.get(key) is not None}


def _or_variable(value: dict[str, Any]) -> dict[str, Any]:
    return value if value.keys() & {"$ref", "oneOf"} else {"anyOf": [value, {"$ref": "#/$defs/Variable"}]}


def _data_types() -> dict[str, Any]:
    names = {"enum": [ALL, *data_types(), *entities()]}
    return {"anyOf": [{"const": ALL}, {"type": "array", "minItems": 1, "items": _or_variable(names)}]}
