from __future__ import annotations

import fcntl
import logging
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from processes import plain_environment, python_path

from m3ter_dagster.cli import main
from m3ter_dagster.dagster_internals import OPENING, open_instance_for_a_terminal
from m3ter_sandbox import Sandbox

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


OPENED_TWICE = """
import shutil
from m3ter_dagster.cli.instance import open_instance
with open_instance():
    shutil.copy("home/dagster.yaml", "first.yaml")
with open("home/dagster.yaml", "a") as settings:
    settings.write("\\n# ours\\n")
with open_instance():
    pass
"""


@pytest.mark.parametrize(
    "place", ["m3ter_dagster", "."], ids=["inside the installed package", "beside it in a checkout"]
)
def test_a_new_home_gets_this_project_s_settings_and_keeps_what_a_person_changes(tmp_path: Path, place: str) -> None:
    shutil.copytree(SETTINGS.parent / "m3ter_dagster", tmp_path / "m3ter_dagster")
    shutil.copy(SETTINGS, tmp_path / place)
    environment = {"PYTHONPATH": python_path(tmp_path), "DAGSTER_HOME": "home"}
    subprocess.run([sys.executable, "-c", OPENED_TWICE], cwd=tmp_path, env=environment, check=True, timeout=60)
    assert (tmp_path / "first.yaml").read_text() == SETTINGS.read_text()
    assert (tmp_path / "home" / "dagster.yaml").read_text() == f"{SETTINGS.read_text()}\n# ours\n"


def test_a_home_that_cannot_be_a_folder_is_wrong_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / (home := "a_file")).touch()
    ended = CliRunner().invoke(main, ["jobs"], env={"DAGSTER_HOME": home})
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"Error: DAGSTER_HOME: {tmp_path / home}: ")
    assert ended.stderr.endswith("; set it to a folder in which Dagster can keep its records.\n")


@pytest.mark.parametrize("command", ["jobs", "prune"])
def test_what_looks_back_makes_no_home(tmp_path: Path, command: str) -> None:
    home = tmp_path / "misspelt"
    environment = {
        "DAGSTER_HOME": str(home),
        "M3TER_EXPORTS": str(SETTINGS.with_name("exports.yaml")),
        "M3TER_BUCKET": "acme",
    }
    ended = CliRunner().invoke(main, [command], env=environment)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr == (
        f"Error: the environment has the DAGSTER_HOME {str(home)!r}, which does not exist: correct its name.\n"
    )
    assert not home.exists()


def test_a_new_home_is_opened_by_one_process_after_the_other(tmp_path: Path) -> None:
    """Two that made its databases at once made them unusable."""
    opened = threading.Event()

    def open_it() -> None:
        with open_instance_for_a_terminal(tmp_path):
            opened.set()

    with (tmp_path / OPENING).open("w") as lock, ThreadPoolExecutor(1) as other:
        fcntl.flock(lock, fcntl.LOCK_EX)
        opening = other.submit(open_it)
        assert not opened.wait(0.5)
        assert not (tmp_path / "history").exists()
        fcntl.flock(lock, fcntl.LOCK_UN)
        opening.result(60)
    assert opened.is_set()


LIMITED = """
import resource, signal, sys
from m3ter_dagster.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
main(sys.argv[2:])
"""
"""The command line, with files that can hold so many bytes and no more."""


def test_a_home_without_room_is_told_in_a_sentence(tmp_path: Path) -> None:
    with Sandbox(0, folder=tmp_path, requests_per_second=None) as sandbox:
        environment = {**sandbox.environment, "DAGSTER_HOME": "home"}
        (tmp_path / "home").mkdir()
        full = [run_limited(tmp_path, environment, 50_000, "jobs")]
        assert not list((tmp_path / "home").glob("history/runs/*-*.db"))
        full.append(run_limited(tmp_path, environment, 180_000, "export", "--entities", "product"))
        assert list((tmp_path / "home").glob("history/runs/*-*.db")), "a run had begun"
    for ended in full:
        assert ended.returncode == 1, ended.stderr
        assert ended.stderr.startswith(f"Error: Dagster's records in {tmp_path / 'home'} cannot be kept or read: ")
        assert len(ended.stderr.splitlines()) == 1


def run_limited(
    folder: Path, environment: dict[str, str], bytes_per_file: int, *command: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(bytes_per_file), *command],
        cwd=folder,
        env={**plain_environment(), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
