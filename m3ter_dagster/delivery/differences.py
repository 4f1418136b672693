"""Compares an entity with the previous export of the same schedule, by a small file of keys beside the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from m3ter_dagster.delivery.destinations import PARQUET, Delivered, Destinations, FetchFailed, UnknownDestination
from m3ter_dagster.frames.changes import all_added, changes_since
from m3ter_dagster.frames.difference import IdsUnknown, NotComparable, difference, write_keys
from m3ter_dagster.frames.format import Format, RowsLost
from m3ter_dagster.model import manifest
from m3ter_dagster.model.changes import changes_table
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.model.exports import Export


@dataclass(frozen=True)
class Previous:
    """An entity in the export that this one is compared with."""

    export: str
    keys: Sequence[Mapping[str, Any]]
    """Its files of keys, each with `destination`, `uri` and `sha256`."""


@dataclass(frozen=True)
class Changes:
    """The file of changes as it was delivered."""

    previous: str | None
    """The export that they are changes of; None: all rows are there, as added ones."""
    rows: Mapping[str, int]
    """By kind (`model.changes`)."""
    objects: Sequence[Delivered]
    not_compared: str | None
    """Why `previous` is None, or why every row counts as changed."""


@dataclass(frozen=True)
class Compared:
    difference: Mapping[str, Any]
    """The numbers of added, removed and changed rows, or `notCompared` with the reason."""
    keys: Sequence[Delivered]
    """The file in each destination that the next export compares itself with."""
    changes: Changes | None = None


def compare(
    rows: pl.LazyFrame,
    entity: Entity,
    *,
    previous: Previous | None,
    destinations: Destinations,
    export: Export,
    to: Sequence[str],
    folder: Path,
    format: Format,
    parts: Sequence[pl.LazyFrame] | None = None,
) -> Compared:
    """Deliver the keys of the `rows` (`frames.difference`), and say how they differ. Only delivery can fail.

    With `parts`, the rows as they were delivered in this format, a file of their changes is delivered too. The previous
    file of keys is looked for in `folder`, and stays there.
    """
    with TemporaryDirectory(dir=folder) as name:
        current = Path(name) / f"{entity.name}-keys.parquet"
        write_keys(rows, entity, current, cells=format.cells)
        type = f"{entity.name}_keys"
        keys = destinations.deliver(current, export, manifest.TYPE, to=to, kind=PARQUET, name=type)
        found, before = _difference(current, previous, destinations, folder)
        if parts is None:
            return Compared(found, keys)
        if previous and before:
            changes = changes_since(before, current, parts, entity, Path(name) / "changes")
            since, why = previous.export, changes.not_compared
        else:
            changes = all_added(parts, current)
            since, why = None, found["notCompared"]
        table = changes_table(entity)
        file = Path(name) / f"{table.name}.{format.suffix}"
        written, expected = format.write(changes.parts, table, file), sum(changes.counts.values())
        if written != expected:
            raise RowsLost(format.name, table.name, expected=expected, found=written)
        objects = destinations.deliver(file, export, table.name, to=to, kind=format)
        return Compared(found, keys, Changes(since, changes.counts, objects, why))


def _difference(
    current: Path, previous: Previous | None, destinations: Destinations, folder: Path
) -> tuple[Mapping[str, Any], Path | None]:
    """How the two differ, and the previous file of keys if at least its ids can be compared."""
    if previous is None:
        return {"notCompared": "there is no previous export of this entity by the same schedule"}, None
    before: Path | None = None
    try:
        before = destinations.fetch_once(previous.keys, folder)
        return {"previous": previous.export, **asdict(difference(before, current))}, before
    except NotComparable as reason:
        found = {"notCompared": f"{reason} (previous export: {previous.export})"}
        return found, None if isinstance(reason, IdsUnknown) else before
    except (FetchFailed, UnknownDestination, pl.exceptions.PolarsError, OSError) as error:
        return {"notCompared": f"the previous export {previous.export} cannot be used: {error}"}, None
