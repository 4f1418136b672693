"""Steps in processes of their own, of this machine and of Celery's workers: an export is the same as in one process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Event
from typing import Any

import dagster as dg
import pytest
from broker import redis_server, start_worker
from dagster_celery.app import app as celery
from processes import end, plain_environment, poll, start_command

from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.executors import executor_named
from m3ter_dagster.history.heartbeat import SILENCE
from m3ter_dagster.history.log import root_id
from m3ter_dagster.model.entities import operational_entities
from m3ter_dagster.stuck_exports import stuck_exports
from m3ter_sandbox import SampleOrganization, SandboxApi

FEW = ("account", "meter", "product")
NEEDED_TWICE = {"accounts", "balances", "bills", "pricings"}
"""Lists that two steps need."""
PATIENCE = 180
METER = {"id": "later", "version": 1, "name": "Later", "code": "later"}
EXPORTS = "destinations: [{{code: folder, destinationType: LOCAL, path: {folder}}}]\n"


@dataclass(frozen=True)
class Project:
    """An Organization, exports.yaml and Dagster's home, and the exports of a terminal."""

    api: SandboxApi
    folder: Path
    environment: Mapping[str, str]

    @contextmanager
    def export(self, *arguments: str, executor: str) -> Generator[ForkServerProcess]:
        environment = {**plain_environment(), **self.environment, "M3TER_EXECUTOR": executor}
        log = self.folder / f"{executor}.log"
        process = start_command(["export", *arguments], folder=self.folder, environment=environment, log=log)
        try:
            yield process
        finally:
            process.kill()
            process.join()
            print(log.read_text())

    def exported(self, *arguments: str, executor: str) -> dict[str, bytes]:
        """The files of an export that nobody disturbs, by entity."""
        with self.export(*arguments, executor=executor) as process:
            process.join(PATIENCE)
            assert process.exitcode == 0
        return self.delivered(root_id(self.last_run()))

    def delivered(self, export_id: str) -> dict[str, bytes]:
        files = (self.folder / "files").rglob(f"{export_id}_*")
        found = {file.stem.removeprefix(f"{export_id}_"): file.read_bytes() for file in files}
        return {name: content for name, content in found.items() if not name.endswith("_keys")}

    @contextmanager
    def held(self, path: str) -> Generator[None]:
        """From when the list at this path is asked for until the end, no list is answered."""
        asked, released = Event(), Event()

        def hold(asked_for: str, _: str) -> None:
            if asked_for == path:
                asked.set()
                released.wait()

        self.api.before_answer = hold
        try:
            assert asked.wait(PATIENCE)
            yield
        finally:
            self.api.before_answer = None
            released.set()

    def failures(self, run_id: str) -> str:
        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            events = [entry.dagster_event for entry in instance.all_logs(run_id)]
        return "\n".join(f"{one.message} {one.event_specific_data}" for one in events if one and one.is_failure)

    def look_for_stuck_exports(self) -> None:
        """Two looks of the sensor, a quarter of an hour later."""
        ours = build_definitions(load_exports(self.environment), load_settings(self.environment))
        sensor = stuck_exports([], operational_entities(), clock=lambda: datetime.now(UTC) + SILENCE)
        cursor = None
        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            for _ in range(2):
                with dg.build_sensor_context(instance, cursor, definitions=ours) as context:
                    found: Any = sensor.evaluate_tick(context)
                cursor = found.cursor

    def is_ended_as_stuck(self) -> bool:
        self.look_for_stuck_exports()
        return self.last_run().status == dg.DagsterRunStatus.FAILURE

    def last_run(self) -> dg.DagsterRun:
        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            return instance.get_runs(limit=1)[0]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("project")
    (folder / "exports.yaml").write_text(EXPORTS.format(folder=folder / "files"))
    for one in ("files", "home"):
        (folder / one).mkdir()
    (folder / "home" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with SandboxApi(SampleOrganization(accounts=60).records()) as api:
        settings = {"M3TER_EXPORTS": str(folder / "exports.yaml"), "DAGSTER_HOME": str(folder / "home")}
        yield Project(api, folder, {**api.environment, "M3TER_REQUESTS_PER_SECOND": "40", **settings})


@pytest.fixture(scope="module")
def workers(project: Project) -> Iterator[Mapping[str, subprocess.Popen[bytes]]]:
    """Two by name, of four processes each. Exports of the project find them."""
    with ExitStack() as stack:
        broker = stack.enter_context(redis_server())
        addresses = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": broker}
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        for variable, address in addresses.items():
            patched.setenv(variable, address)
        started = {}
        for name in ("one", "other"):
            environment = {**project.environment, **addresses}
            started[name] = start_worker(name, environment=environment, log=project.folder / f"{name}.log")
            stack.callback(end, started[name])
        poll(lambda: len(celery.control.ping()) == len(started), "the workers", PATIENCE)
        yield started


def task_of(step: str) -> tuple[str, dict[str, Any]]:
    """The worker that executes the step, by name, and the task."""
    (found,) = [
        (worker.partition("@")[0], task)
        for worker, tasks in (celery.control.inspect().active() or {}).items()
        for task in tasks
        if step in task["kwargs"]["execute_step_args_packed"]["step_keys_to_execute"]
    ]
    return found


def test_processes_of_steps_are_forked_unless_a_run_says_otherwise() -> None:
    processes = executor_named("multiprocess")
    (start_method,) = processes.apply_config_mapping({}).value["config"]["start_method"].items()
    assert start_method == ("forkserver", {"preload_modules": ["m3ter_dagster.definitions"]})
    config = processes.apply_config_mapping({"config": {"max_concurrent": 3, "start_method": {"spawn": {}}}}).value
    assert config["config"].items() >= {"max_concurrent": 3, "start_method": {"spawn": {}}}.items()


@pytest.mark.slow
def test_processes_of_steps_export_what_one_process_does(project: Project) -> None:
    expected, found = (
        project.exported("--entities", ",".join(FEW), executor=one) for one in ("in_process", "multiprocess")
    )
    assert {*found} == {*FEW, "manifest"}
    assert [name for name in FEW if found[name] != expected[name]] == []


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_workers_export_what_one_process_does_and_share_a_pace(project: Project) -> None:
    """The API refuses more than 50 requests in any second; those of a busy machine arrive bunched."""
    requests = project.api.requests
    requests.clear()
    expected = project.exported(executor="in_process")
    once = Counter((one.path, one.query) for one in requests)
    requests.clear()
    found = project.exported(executor="celery")
    assert {*found} == {*operational_entities(), "manifest"}
    assert [name for name in operational_entities() if found[name] != expected[name]] == []
    assert {one.status for one in requests} == {200}
    again = Counter((one.path, one.query) for one in requests if "/organizations/" in one.path) - once
    assert {path.rsplit("/", 1)[-1] for path, _ in again} == NEEDED_TWICE
    assert {*again.values()} == {1}


@pytest.mark.slow
@pytest.mark.usefixtures("workers")
def test_a_step_whose_process_is_killed_fails_the_run_by_name_and_is_completed(project: Project) -> None:
    with project.export("--entities", ",".join(FEW), executor="celery") as process:
        with project.held("/meters"):
            _, task = task_of("meter")
            os.kill(task["worker_pid"], signal.SIGKILL)
        process.join(PATIENCE)
        assert process.exitcode == 1
    run = project.last_run()
    assert run.status == dg.DagsterRunStatus.FAILURE
    assert "[meter]: billiard.exceptions.WorkerLostError" in project.failures(run.run_id)
    assert {*project.delivered(run.run_id)} == {"account", "product"}
    completed = project.exported("--resume", run.run_id, executor="celery")
    assert {*completed} == {*FEW, "manifest"}

    # A broker gives the tasks that a dead worker had reserved to another one, after an hour.
    project.api.records.insert("meter", dict(METER))
    celery.send_task(task["name"], kwargs=task["kwargs"]).get(timeout=PATIENCE, propagate=False)
    assert project.delivered(run.run_id) == completed


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_is_ended_by_name_and_completed_by_the_other(
    project: Project, workers: Mapping[str, subprocess.Popen[bytes]]
) -> None:
    with project.export("--entities", ",".join(FEW), executor="celery"):
        with project.held("/meters"):
            worker, _ = task_of("meter")
            os.killpg(workers[worker].pid, signal.SIGKILL)
        run = project.last_run()
        # An event of another step in the moment of a look puts the end off.
        poll(project.is_ended_as_stuck, "the end of the run", PATIENCE)
    # The other steps may have ended or not.
    assert re.search(r"no event for 15 minutes while [a-z, ]*meter[a-z, ]* was under way", project.failures(run.run_id))
    assert {*project.exported("--resume", run.run_id, executor="celery")} == {*FEW, "manifest"}
