"""Compares an entity with the previous export of the same schedule, by a small file of hashes beside the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from m3ter_dagster.delivery.destinations import PARQUET, Delivered, Destinations, FetchFailed, UnknownDestination
from m3ter_dagster.frames.difference import NotComparable, difference, write_keys
from m3ter_dagster.model import manifest
from m3ter_dagster.model.entities import Entity
from m3ter_dagster.model.exports import Export


@dataclass(frozen=True)
class Previous:
    """An entity in the export that this one is compared with."""

    export: str
    keys: Sequence[Mapping[str, Any]]
    """Its files of hashes, each with `destination` and `uri`."""


@dataclass(frozen=True)
class Compared:
    difference: Mapping[str, Any]
    """The numbers of added, removed and changed rows, or `notCompared` with the reason."""
    keys: Sequence[Delivered]
    """The file in each destination that the next export compares itself with."""


def compare(
    rows: pl.LazyFrame,
    entity: Entity,
    *,
    previous: Previous | None,
    destinations: Destinations,
    export: Export,
    to: Sequence[str],
    folder: Path,
) -> Compared:
    """Deliver the keys of the `rows` (`frames.difference`), and say how they differ. Only delivery can fail."""
    current = folder / f"{entity.name}-keys.parquet"
    write_keys(rows, entity, current)
    name = f"{entity.name}_keys"
    keys = destinations.deliver(current, export, manifest.TYPE, to=to, kind=PARQUET, name=name)
    found = _difference(current, entity, previous, destinations, folder)
    current.unlink()
    return Compared(found, keys)


def _difference(
    current: Path, entity: Entity, previous: Previous | None, destinations: Destinations, folder: Path
) -> Mapping[str, Any]:
    if previous is None:
        return {"notCompared": "there is no previous export of this entity by the same schedule"}
    before = folder / f"{entity.name}-previous-keys.parquet"
    try:
        destinations.fetch_any(previous.keys, before)
        return {"previous": previous.export, **asdict(difference(before, current))}
    except NotComparable as reason:
        return {"notCompared": f"{reason} (previous export: {previous.export})"}
    except (FetchFailed, UnknownDestination, pl.exceptions.PolarsError, OSError) as error:
        return {"notCompared": f"the previous export {previous.export} cannot be used: {error}"}
    finally:
        before.unlink(missing_ok=True)
