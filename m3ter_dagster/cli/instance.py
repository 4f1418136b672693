"""The Dagster instance that the commands share: its home, with this project's settings, and what is read from it."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from m3ter_dagster.cli.terminal import Unusable, configured
from m3ter_dagster.config import dagster_home, shipped

if TYPE_CHECKING:
    from dagster import DagsterInstance

SETTINGS = "dagster.yaml"


def prepared_home(*, looks_back: bool = False) -> Path:
    """DAGSTER_HOME, or .dagster in the current folder. Without settings it gets those of the folder, or this project's.

    Settings that are there stay, for a person may have changed them. For what only `looks_back`, a home that the
    environment names must exist.
    """
    home = configured(lambda: dagster_home(must_exist=looks_back))
    settings = next((one for one in (Path(SETTINGS), shipped(SETTINGS)) if one.is_file()), None)
    try:
        home.mkdir(parents=True, exist_ok=True)
        if settings and not (home / SETTINGS).exists():
            shutil.copy(settings, home / SETTINGS)
    except OSError as error:
        words = f"{home}: {error.strerror or error}; set it to a folder in which Dagster can keep its records."
        raise Unusable(f"DAGSTER_HOME: {words}") from None
    return home


@contextmanager
def open_instance(*, looks_back: bool = False, compute_logs: bool = False) -> Generator[DagsterInstance]:
    """The instance of the home; if its records cannot be kept or read, the command ends and says why."""
    from m3ter_dagster.dagster_internals import RecordsFailed, open_instance_for_a_terminal, reason_of

    home = prepared_home(looks_back=looks_back)
    try:
        with open_instance_for_a_terminal(home, compute_logs=compute_logs) as instance:
            yield instance
    except RecordsFailed as error:
        words = f"{reason_of(error)}; look for room on its disk and for its owner, then run the command again."
        raise click.ClickException(f"Dagster's records in {home} cannot be kept or read: {words}") from None
