"""Dagster resources: the Organization, the IO manager."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from m3ter_dagster.config import Exports, Settings
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.resources.io_manager import io_manager_for
from m3ter_dagster.resources.organization import Organization

ORGANIZATION = "organization"
IO_MANAGER = "csv_io_manager"
"""The key of the IO manager. It must stay, since the config of past runs has it too."""


def export_resources(
    exports: Exports, settings: Settings, *, destinations: Sequence[str] | None = None, names: Names = DEFAULT
) -> Mapping[str, Any]:
    """The resources of the assets, by key. `destinations` are for runs that name none; default: as in exports.yaml."""
    codes = list(exports.default_destinations if destinations is None else destinations)
    return {
        names.own(ORGANIZATION): Organization(settings=settings),
        names.own(IO_MANAGER): io_manager_for(exports)(
            destinations=codes, exports=exports, settings=settings, names=names
        ),
    }
