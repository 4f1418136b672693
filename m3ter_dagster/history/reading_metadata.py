"""How an entity was read, on its materialisation: for people, and for the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from m3ter_dagster.reading.reading import Reading

FROM, UNTIL = "read from", "read until"
DUPLICATES = "rows dropped as older copies"
UNKNOWN = "API fields not in the schema"
WINDOW = "m3ter/window"
EMPTY = "documented fields without any value"


def reading_metadata(reading: Reading) -> dict[str, Any]:
    """Findings are there only where there are any."""
    findings = {UNKNOWN: dict(reading.unknown_fields), EMPTY: list(reading.empty_columns)}
    return {
        "requests": reading.requests,
        "seconds to read": round(reading.seconds, 3),
        FROM: dg.MetadataValue.timestamp(reading.started),
        UNTIL: dg.MetadataValue.timestamp(reading.finished),
        DUPLICATES: reading.duplicates,
        **{name: dg.MetadataValue.json(found) for name, found in findings.items() if found},
    }


def recorded_reading(metadata: Mapping[str, dg.MetadataValue[Any]]) -> dict[str, Any]:
    """What `reading_metadata` recorded, as the manifest has it."""
    return {
        "from": _iso(metadata[FROM]),
        "until": _iso(metadata[UNTIL]),
        "duplicatesDropped": metadata[DUPLICATES].value,
        "unknownFields": metadata[UNKNOWN].value if UNKNOWN in metadata else {},
        "emptyFields": metadata[EMPTY].value if EMPTY in metadata else [],
        **({"window": metadata[WINDOW].value} if WINDOW in metadata else {}),
    }


def _iso(timestamp: dg.MetadataValue[Any]) -> str:
    return datetime.fromtimestamp(float(str(timestamp.value)), UTC).isoformat()
