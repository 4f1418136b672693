"""Exports of the schedule `nightly` in this process, and what commands say of them."""

from __future__ import annotations

import dagster as dg
from click.testing import CliRunner, Result

from m3ter_dagster.cli import main
from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.log import EXPORT_JOB, MANIFEST, SCHEDULE_TAG


def export(instance: dg.DagsterInstance, *names: str) -> str:
    job = build_definitions(load_exports(), load_settings()).resolve_job_def(EXPORT_JOB)
    keys = [dg.AssetKey(name) for name in (*names, MANIFEST)]
    done = job.execute_in_process(instance=instance, asset_selection=keys, tags={SCHEDULE_TAG: "nightly"})
    return done.run_id


def command(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def findings(result: Result) -> list[str]:
    return [line for line in result.stdout.splitlines() if line.startswith(("error: ", "warning: "))]
