"""A DAGSTER_HOME of years in seconds: copies of a run in Dagster's database, each with an id of its own."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable
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
    found = []
    with runs.connect() as run_rows, events.index_connection() as event_rows:  # a transaction of all, not of each
        for moment in begun:
            id = str(uuid.uuid4())
            stored = moment.astimezone(UTC).replace(tzinfo=None)
            times = {"create_timestamp": stored, "update_timestamp": stored}
            end = None if seconds is None else moment.timestamp() + seconds
            _copy(run_rows, RunsTable, run_id, id, start_time=moment.timestamp(), end_time=end, **times)
            _copy(run_rows, RunTagsTable, run_id, id)
            _copy(event_rows, SqlEventLogStorageTable, run_id, id, timestamp=stored)
            _copy(event_rows, AssetCheckExecutionsTable, run_id, id)
            if isinstance(events, SqliteEventLogStorage):
                _copy_log(Path(events.path_for_shard(run_id)), run_id, id)
            found.append(id)
    return found


def set_began(instance: dg.DagsterInstance, run_id: str, moment: datetime) -> None:
    runs: Any = instance.run_storage
    created = moment.astimezone(UTC).replace(tzinfo=None)
    with runs.connect() as connection:
        of_run = RunsTable.c.run_id == run_id
        connection.execute(sqlalchemy.update(RunsTable).where(of_run).values(create_timestamp=created))


def _copy(connection: Any, table: sqlalchemy.Table, old: str, new: str, **values: Any) -> None:
    columns = [column for column in table.columns if column.name != "id"]
    copied = [
        sqlalchemy.literal(values[column.name], column.type).label(column.name)
        if column.name in values
        else sqlalchemy.func.replace(column, old, new).label(column.name)
        if isinstance(column.type, sqlalchemy.String)
        else column
        for column in columns
    ]
    rows = sqlalchemy.select(*copied).where(table.c.run_id == old).order_by(table.c.id)
    connection.execute(table.insert().from_select([column.name for column in columns], rows))


def _copy_log(file: Path, old: str, new: str) -> None:
    """SQLite keeps the log of each run in a file."""
    copy = file.with_stem(new)
    with closing(sqlite3.connect(file)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute("UPDATE event_logs SET run_id = ?, event = replace(event, ?, ?)", (new, old, new))
        target.commit()
