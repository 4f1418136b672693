"""One export and the names of its objects, as m3ter's Data Export lays them out in a bucket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

PartitionOrder = Literal["TIME_FIRST", "TYPE_FIRST"]


class DueWithoutZone(ValueError):
    """An export's due time that could be any of 24 hours."""

    def __init__(self, due: datetime) -> None:
        super().__init__(f"an export is due at {due.isoformat()}, which has no time zone; give an aware time.")


@dataclass(frozen=True)
class Export:
    """Everything delivered under one id: every entity of one run, and of the runs that complete it."""

    id: str
    org_id: str
    due: datetime

    def __post_init__(self) -> None:
        if self.due.utcoffset() is None:
            raise DueWithoutZone(self.due)


def probe_key(org_id: str, prefix: str) -> str:
    """The key of what is written to see whether exports of the Organization can be."""
    root = [prefix.strip("/")] if prefix.strip("/") else []
    return "/".join([*root, f"orgId={org_id}", "m3ter-dagster-connection-check.txt"])


def object_key(
    export: Export,
    type: str,
    *,
    prefix: str,
    partition_order: PartitionOrder,
    suffix: str,
    name: str | None = None,
) -> str:
    """The key of one file of the export, named after its type unless it has a `name` of its own.

    Without a prefix it starts at the bucket's root.
    """
    due = export.due.astimezone(UTC)
    time = [f"date={due:%Y-%m-%d}", f"hour={due:%H}"]
    kind = [f"type={type}"]
    partitions = kind + time if partition_order == "TYPE_FIRST" else time + kind
    root = [prefix.strip("/")] if prefix.strip("/") else []
    return "/".join([*root, f"orgId={export.org_id}", *partitions, f"{export.id}_{name or type}.{suffix}"])
