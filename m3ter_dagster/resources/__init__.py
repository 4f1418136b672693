"""Dagster resources: the Organization, the IO manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m3ter_dagster.config import Exports, Settings
from m3ter_dagster.resources.io_manager import ExportIOManager
from m3ter_dagster.resources.organization import Organization

IO_MANAGER = "csv_io_manager"
"""The key of the IO manager, also in the config of the runs of years: it stays."""


def export_resources(
    exports: Exports, settings: Settings, *, destinations: Sequence[str] | None = None
) -> Mapping[str, Any]:
    """What the assets need, by key. A run that names no destinations delivers to these, or else to the default ones."""
    codes = list(exports.default_destinations if destinations is None else destinations)
    return {
        "organization": Organization(settings=settings),
        IO_MANAGER: ExportIOManager(destinations=codes, exports=exports, settings=settings),
    }
