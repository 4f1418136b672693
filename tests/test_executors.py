"""Steps in processes of their own, on this machine: an export is the same as in one process."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import dagster as dg
import pytest
from processes import plain_environment, start_command

from m3ter_dagster.executors import executor_named
from m3ter_dagster.history.log import root_id
from m3ter_sandbox import SampleOrganization, SandboxApi

FEW = ("account", "meter", "product")
PATIENCE = 180
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
    with SandboxApi(SampleOrganization(accounts=5).records()) as api:
        settings = {"M3TER_EXPORTS": str(folder / "exports.yaml"), "DAGSTER_HOME": str(folder / "home")}
        yield Project(api, folder, {**api.environment, "M3TER_REQUESTS_PER_SECOND": "50", **settings})


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
