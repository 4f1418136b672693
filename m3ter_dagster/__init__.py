"""m3ter's Operational Data Export as a Dagster project."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from m3ter_dagster.component import M3terExportComponent
    from m3ter_dagster.translation import DagsterM3terTranslator, M3terAsset

__all__ = ["DagsterM3terTranslator", "M3terAsset", "M3terExportComponent"]

# Read when polars is loaded, which for an export is after this package. By default its jemalloc has four pools for each
# core, which keep what threads have freed: a twelfth more memory, and no less CPU time (docs/deploying.md). What a
# person, or a process before this one, has set stays.
if "narenas" not in (_conf := os.environ.get("_RJEM_MALLOC_CONF", "")):
    os.environ["_RJEM_MALLOC_CONF"] = f"narenas:1,{_conf}".rstrip(",")

# Else Google's client asks, for the spans of traces, for the bucket of a delivery too: in a thread that nothing ends,
# for two minutes, and with a permission (storage.buckets.get) that a delivery does not need.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: commands that need no Dagster start without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from m3ter_dagster import component

    return getattr(component, name)


def __dir__() -> list[str]:
    """`dg` looks for components here."""
    return [*globals(), *__all__]
