"""Another Dagster project that takes the exports of this one into its own definitions, with Dagster's own executor."""

from __future__ import annotations

import os
import tempfile

import dagster as dg

from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.definitions import build_definitions

JOB = "everything"


@dg.asset
def our_own() -> None: ...


def foreign_definitions() -> dg.Definitions:
    exports = build_definitions(load_exports(), load_settings())
    return dg.Definitions(
        assets=[our_own, *(exports.assets or ())],
        asset_checks=exports.asset_checks,
        resources=exports.resources,
        jobs=[dg.define_asset_job(JOB)],
    )


def foreign_job(**environment: str) -> dg.JobDefinition:
    """In a process that was forked from one of before, the environment is that one's, unless it is handed over."""
    os.environ.update(environment)
    tempfile.tempdir = None
    return foreign_definitions().resolve_job_def(JOB)
