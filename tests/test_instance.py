from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

SETTINGS = Path(__file__).parents[1] / "dagster.yaml"


@pytest.mark.parametrize(("hours", "status"), [(23, dg.DagsterRunStatus.STARTED), (25, dg.DagsterRunStatus.FAILURE)])
def test_a_run_that_died_with_its_machine_keeps_its_place_for_a_day_at_most(
    tmp_path: Path, hours: int, status: dg.DagsterRunStatus
) -> None:
    """Nobody is left to say that it has failed, and one run at a time is allowed of a schedule."""
    shutil.copy(SETTINGS, tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.add_run(dg.DagsterRun(job_name="export"))
        started = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job_name="export")
        then = datetime.now(UTC) - timedelta(hours=hours)
        instance.report_dagster_event(started, run.run_id, timestamp=then.timestamp())
        with WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as workspace:
            assert list(execute_run_monitoring_iteration(workspace, logging.getLogger(__name__))) == [None]
        found = instance.get_run_by_id(run.run_id)
        assert found
        assert found.status == status


@pytest.mark.parametrize(
    "place", ["m3ter_dagster", "."], ids=["inside the installed package", "beside it in a checkout"]
)
def test_a_new_home_gets_this_project_s_settings_and_keeps_what_a_person_changes(tmp_path: Path, place: str) -> None:
    shutil.copytree(SETTINGS.parent / "m3ter_dagster", tmp_path / "m3ter_dagster")
    shutil.copy(SETTINGS, tmp_path / place)
    opening = "from m3ter_dagster.cli.export import open_instance; open_instance()"
    environment = {"PYTHONPATH": str(tmp_path), "DAGSTER_HOME": "home"}
    command = [sys.executable, "-c", opening]
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    settings = tmp_path / "home" / "dagster.yaml"
    assert settings.read_text() == SETTINGS.read_text()
    changed = f"{settings.read_text()}\n# ours\n"
    settings.write_text(changed)
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert settings.read_text() == changed
