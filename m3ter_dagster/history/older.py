"""Records as the previous version kept them, spread over captions for people. They are only read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from m3ter_dagster.config.usage import RAW_BY_DAY

_OBJECTS, _SUMMARY, _ROWS = "objects", "m3ter/manifest", "dagster/row_count"
_FROM, _UNTIL, _SECONDS = "read from", "read until", "seconds to write and deliver"
_PLACE = re.compile(rf"/orgId=([^/]+)/.*/({RAW_BY_DAY}|[^/_]+)_[^/]*$")
"""The Organization and the export in an object's address: the ids of runs have no underscore."""


def record_in(asset: str, metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any] | None:
    """The record that these captions amount to, in the words of `history/record.py`."""
    table = metadata.get(_OBJECTS)
    if not isinstance(table, dg.TableMetadataValue) or not ({_SUMMARY, _FROM} & metadata.keys()):
        return None
    objects = [dict(row.data) for row in table.records]
    place = _PLACE.search(str(objects[0]["uri"]))
    about = {"asset": asset, "orgId": place[1] if place else "", "objects": objects}
    if _SUMMARY in metadata:
        summary, previous = metadata[_SUMMARY].value, metadata["compared with export"].value
        return {
            **about,
            "kind": "manifest",
            "export": summary["id"],
            "schedule": summary["schedule"],
            "entities": summary["entities"],
            "previous": None if previous == "none" else previous,
        }
    comparison = metadata["m3ter/comparison"].value if "m3ter/comparison" in metadata else {}
    schema = metadata.get("m3ter/table_schema")
    return {
        **about,
        "kind": "rows",
        "export": place[2] if place else "",
        "rows": metadata[_ROWS].value,
        "reading": _reading(metadata),
        "secondsToDeliver": metadata[_SECONDS].value,
        **comparison,
        **({"tableSchema": schema.value} if schema else {}),
    }


def _reading(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    captions = {
        "duplicatesDropped": "rows dropped as older copies",
        "unknownFields": "API fields not in the schema",
        "emptyFields": "documented fields without any value",
        "requests": "requests",
        "job": "m3ter's export job",
        "window": "m3ter/window",
        "sums": "m3ter/sums",
    }
    found = {name: metadata[caption].value for name, caption in captions.items() if caption in metadata}
    if found.get("job", "").startswith("none: "):  # there can be nothing in the window
        del found["job"]
    return {"started": _moment(metadata[_FROM]), "finished": _moment(metadata[_UNTIL]), **found}


def _moment(timestamp: dg.MetadataValue[Any]) -> str:
    return datetime.fromtimestamp(timestamp.value, UTC).isoformat()
