"""Files of changes: the rows of an entity that are not as the schedule's export before had them. Pure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from m3ter_dagster.model.entity import Column, Entity

CHANGE = "change"
ADDED, CHANGED, DELETED, REMOVED = "added", "changed", "deleted", "removed"
KINDS = {
    ADDED: "not among the rows of the export before",
    CHANGED: "among them, with other cells",
    DELETED: "has deleted = true, and had not before",
    REMOVED: "was among them, and is no more; its other cells are empty, or its last ones",
}
_DESCRIPTION = "What became of the row since the export before: " + "; ".join(
    f"{kind}: {words}" for kind, words in KINDS.items()
)


def changes_type(entity: str) -> str:
    """The type in the keys of an entity's files of changes."""
    return f"{entity}_changes"


def changes_table(entity: Entity) -> Entity:
    """The columns of an entity's file of changes: its own, of which only the key must be filled, and the change."""
    schema = json.loads(entity.table_schema)
    fields = [_optional(field, entity) for field in schema["fields"]]
    constraints = {"required": True, "enum": list(KINDS)}
    change = {"name": CHANGE, "type": "string", "description": _DESCRIPTION, "constraints": constraints}
    described = {
        "title": f"{entity.title}: changes",
        "description": f"What changed since the export before. {entity.description}",
        "fields": [*fields, change],
    }
    schema.pop("foreignKeys", None)
    return replace(
        entity,
        name=changes_type(entity.name),
        title=described["title"],
        description=described["description"],
        columns=(*entity.columns, Column(CHANGE, "string", _DESCRIPTION, required=True, non_empty=True)),
        foreign_keys=(),
        table_schema=json.dumps({**schema, **described}, ensure_ascii=False),
    )


def _optional(field: dict[str, Any], entity: Entity) -> dict[str, Any]:
    """The field, which may be empty unless it is the key: of a removed row nothing else may be known, or refers."""
    field.pop("m3ter:references", None)
    if field["name"] == entity.primary_key or "constraints" not in field:
        return field
    return {**field, "constraints": {name: one for name, one in field["constraints"].items() if name != "required"}}
