"""The Dagster instance of the environment, or one beside exports.yaml."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import dagster as dg

from m3ter_dagster.dagster_internals import open_instance_for_a_terminal

DEFAULT_HOME = ".dagster"


def open_instance() -> dg.DagsterInstance:
    """DAGSTER_HOME; where it is not set, .dagster in the current folder, kept from run to run."""
    home = Path(os.environ.get("DAGSTER_HOME") or DEFAULT_HOME).absolute()
    home.mkdir(parents=True, exist_ok=True)
    settings = Path(__file__).parents[2] / "dagster.yaml"
    if not (home / "dagster.yaml").exists() and settings.exists():
        shutil.copy(settings, home / "dagster.yaml")
    os.environ["DAGSTER_HOME"] = str(home)
    return open_instance_for_a_terminal(home)
