"""The Dagster instance of the environment, or one beside exports.yaml."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg

from m3ter_dagster.config import dagster_home
from m3ter_dagster.dagster_internals import open_instance_for_a_terminal


def open_instance() -> dg.DagsterInstance:
    """That of DAGSTER_HOME, which gets this project's dagster.yaml where it has none."""
    home = dagster_home()
    home.mkdir(parents=True, exist_ok=True)
    settings = Path(__file__).parents[2] / "dagster.yaml"
    if not (home / "dagster.yaml").exists() and settings.exists():
        shutil.copy(settings, home / "dagster.yaml")
    return open_instance_for_a_terminal(home)
