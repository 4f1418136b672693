"""Records as the version before this one kept them: spread over captions for people. Only read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg


def record_in(asset: str, metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any] | None:
    """The record that these captions amount to, in the words of `history/record.py`."""
    if "objects" not in metadata:
        return None
    objects = [dict(row.data) for row in metadata["objects"].value]
    place = re.search(r"/orgId=([^/]+)/.*/([^/]+?)_[^/]*$", objects[0]["uri"]) if objects else None
    about = {
        "asset": asset,
        "export": place[2] if place else "",
        "orgId": place[1] if place else "",
        "objects": objects,
    }
    if "m3ter/manifest" in metadata:
        summary = metadata["m3ter/manifest"].value
        parts = {name: {"rows": 0, **part} for name, part in summary["entities"].items()}
        return {
            **about,
            "kind": "manifest",
            "export": summary["id"],
            "schedule": summary["schedule"],
            "entities": parts,
        }
    comparison = metadata["m3ter/comparison"].value if "m3ter/comparison" in metadata else {}
    schema = metadata.get("m3ter/table_schema")
    return {
        **about,
        "kind": "rows",
        "rows": int(metadata["dagster/row_count"].value),
        "reading": _reading(metadata),
        "secondsToDeliver": float(metadata["seconds to write and deliver"].value),
        **comparison,
        **({"tableSchema": schema.value} if schema else {}),
    }


def _reading(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    captions = {
        "duplicatesDropped": "rows dropped as older copies",
        "unknownFields": "API fields not in the schema",
        "emptyFields": "documented fields without any value",
        "requests": "requests",
        "window": "m3ter/window",
        "sums": "m3ter/sums",
    }
    return {
        "started": _moment(metadata["read from"]),
        "finished": _moment(metadata["read until"]),
        **{name: metadata[caption].value for name, caption in captions.items() if caption in metadata},
    }


def _moment(timestamp: dg.MetadataValue[Any]) -> str:
    return datetime.fromtimestamp(float(timestamp.value), UTC).isoformat()
