"""The last delivered CSVs of an asset as one typed frame, for assets of a user's own."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import polars as pl

from m3ter_dagster.dagster_internals import materialized_partitions
from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.frames.csv import read_csv
from m3ter_dagster.history.delivery_metadata import delivered_objects
from m3ter_dagster.history.usage_metadata import recorded_table

ALLOW_MISSING = "allow_missing_partitions"
"""Dagster's own name for it, in the metadata of an input."""


class NotExported(LookupError):
    def __init__(self, asset: str, partition: str | None = None) -> None:
        of_day = f" of {partition}" if partition else ""
        super().__init__(
            f"{asset}{of_day} was never delivered, so there is no CSV to read; materialise {asset}{of_day} first."
        )


def last_delivery(context: dg.InputContext, destinations: Destinations, folder: Path) -> pl.LazyFrame:
    """Of a partitioned asset the partitions that are asked for, one below the other.

    NotExported where one was never delivered, unless the input's metadata has `allow_missing_partitions: true`.
    FetchFailed when no destination gives a CSV back. The frame is scanned from `folder`.
    """
    name = context.asset_key.path[-1]
    if not context.has_asset_partitions:
        return _read(context, None, destinations, folder)
    there = materialized_partitions(context.instance, context.asset_key)
    missing = [day for day in context.asset_partition_keys if day not in there]
    if missing and not context.definition_metadata.get(ALLOW_MISSING):
        raise NotExported(name, missing[0])
    days = [_read(context, day, destinations, folder) for day in context.asset_partition_keys if day in there]
    if not days:
        raise NotExported(name)
    return pl.concat(days, how="diagonal_relaxed")


def _read(context: dg.InputContext, partition: str | None, destinations: Destinations, folder: Path) -> pl.LazyFrame:
    name = context.asset_key.path[-1]
    chosen = dg.AssetRecordsFilter(context.asset_key, asset_partitions=[partition] if partition else None)
    found = [one.asset_materialization for one in context.instance.fetch_materializations(chosen, limit=1).records]
    if not found or not found[0]:
        raise NotExported(name, partition)
    file = folder / f"{name}-{partition or 'last'}-input.csv"
    destinations.fetch_any(delivered_objects(found[0].metadata), file)
    return read_csv(file, recorded_table(name, found[0].metadata))
