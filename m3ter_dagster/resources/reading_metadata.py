"""How an entity was read, on its materialisation: for people, and for the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from m3ter_dagster.resources.reading import Reading

_FROM, _UNTIL = "read from", "read until"
_DUPLICATES = "rows dropped as older copies"
_UNKNOWN = "API fields not in the schema"
_EMPTY = "documented fields without any value"


def reading_metadata(reading: Reading) -> dict[str, Any]:
    return {
        "requests": reading.requests,
        "seconds to read": round(reading.seconds, 3),
        _FROM: dg.MetadataValue.timestamp(reading.started),
        _UNTIL: dg.MetadataValue.timestamp(reading.finished),
        _DUPLICATES: reading.duplicates,
        _UNKNOWN: dg.MetadataValue.json(dict(reading.unknown_fields)),
        _EMPTY: dg.MetadataValue.json(list(reading.empty_columns)),
    }


def recorded_reading(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    """What `reading_metadata` recorded, as the manifest has it."""
    return {
        "from": _iso(metadata[_FROM]),
        "until": _iso(metadata[_UNTIL]),
        "duplicatesDropped": metadata[_DUPLICATES].value,
        "unknownFields": metadata[_UNKNOWN].value,
        "emptyFields": metadata[_EMPTY].value,
    }


def _iso(timestamp: dg.MetadataValue[Any]) -> str:
    return datetime.fromtimestamp(float(str(timestamp.value)), UTC).isoformat()
