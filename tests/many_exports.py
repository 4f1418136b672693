"""A DAGSTER_HOME of years in seconds: copies of a run in Dagster's database, each with an id of its own."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.runs.schema import RunsTable, RunTagsTable


def copies_of(
    instance: dg.DagsterInstance, run_id: str, begun: Iterable[datetime], *, seconds: float | None = 60
) -> list[str]:
    """The ids of copies of this run that began at these times; None: and never ended."""
    runs: Any = instance.run_storage
    events: Any = instance.event_log_storage
    copies: list[dict[str, Any]] = []
    for moment in begun:
        stored = moment.astimezone(UTC).replace(tzinfo=None)
        started, ended = moment.timestamp(), None if seconds is None else moment.timestamp() + seconds
        copies.append({"new": str(uuid.uuid4()), "stored": stored, "started": started, "ended": ended})
    at = {"create_timestamp": "stored", "update_timestamp": "stored", "start_time": "started", "end_time": "ended"}
    with runs.connect() as run_rows, events.index_connection() as event_rows:  # a transaction of all, not of each
        _copy(run_rows, RunsTable, run_id, copies, **at)
        _copy(run_rows, RunTagsTable, run_id, copies)
        _copy(event_rows, SqlEventLogStorageTable, run_id, copies, timestamp="stored")
        _copy(event_rows, AssetCheckExecutionsTable, run_id, copies)
    found = [one["new"] for one in copies]
    if isinstance(events, SqliteEventLogStorage):
        for id in found:
            _copy_log(Path(events.path_for_shard(run_id)), run_id, id)
    return found


def set_began(instance: dg.DagsterInstance, run_id: str, moment: datetime) -> None:
    runs: Any = instance.run_storage
    created = moment.astimezone(UTC).replace(tzinfo=None)
    with runs.connect() as connection:
        of_run = RunsTable.c.run_id == run_id
        connection.execute(sqlalchemy.update(RunsTable).where(of_run).values(create_timestamp=created))


def _copy(
    connection: Any, table: sqlalchemy.Table, old: str, copies: Sequence[Mapping[str, Any]], **values: str
) -> None:
    """The rows of the run, once for each of the copies, with those `values` of it in these columns."""
    columns = [column for column in table.columns if column.name != "id"]
    new = sqlalchemy.bindparam("new", type_=sqlalchemy.String)
    copied = [
        sqlalchemy.bindparam(values[column.name], type_=column.type).label(column.name)
        if column.name in values
        else sqlalchemy.func.replace(column, old, new).label(column.name)
        if isinstance(column.type, sqlalchemy.String)
        else column
        for column in columns
    ]
    rows = sqlalchemy.select(*copied).where(table.c.run_id == old).order_by(table.c.id)
    connection.execute(table.insert().from_select([column.name for column in columns], rows), copies)


def _copy_log(file: Path, old: str, new: str) -> None:
    """SQLite keeps the log of each run in a file."""
    copy = file.with_stem(new)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("UPDATE event_logs SET run_id = ?, event = replace(event, ?, ?)", (new, old, new))
        target.commit()
