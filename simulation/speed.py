"""What Dagster and botocore do again and again is done once, which alters nothing of what they record or send."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest.mock import patch

import botocore.session
import sqlalchemy
from alembic.script import ScriptDirectory
from botocore.loaders import create_loader
from dagster._core.storage.runs import SqlRunStorage
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules import SqlScheduleStorage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage

_ENGINES: dict[str, sqlalchemy.Engine] = {}


@contextmanager
def quick_records() -> Generator[None]:
    """Connections stay open with their compiled statements, and nobody asks whether new tables are complete."""
    with (
        patch.object(botocore.session, "create_loader", cache(create_loader)),
        patch.object(ScriptDirectory, "from_config", cache(ScriptDirectory.from_config)),
        patch.object(sqlite_run_storage, "create_engine", _engine),
        patch.object(sqlite_schedule_storage, "create_engine", _engine),
        patch.object(SqlRunStorage, "has_built_index", _yes),
        patch.object(SqlScheduleStorage, "has_built_index", _yes),
        patch.object(SqlScheduleStorage, "_has_instigators_table", _yes),
    ):
        yield
    for engine in _ENGINES.values():
        engine.dispose()
    _ENGINES.clear()


def forget_connections() -> None:
    """For a fork, which must not use those that it has inherited."""
    for engine in _ENGINES.values():
        engine.dispose(close=False)


def _engine(address: str, **_: Any) -> sqlalchemy.Engine:
    if address not in _ENGINES:
        _ENGINES[address] = sqlalchemy.create_engine(address, connect_args={"check_same_thread": False})
    return _ENGINES[address]


def _yes(*_: Any) -> bool:
    return True
