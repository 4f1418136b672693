"""The wheel: all that exports need and nothing of development, at work in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest
from hatchling import build
from packaging.requirements import Requirement
from processes import PROJECT, plain_environment, python_path

from m3ter_dagster.model.entities import entities
from m3ter_sandbox import Sandbox

# What pip and the entry point do, without an installation of all that the wheel needs.
PROGRAM = """\
import sys
from importlib.metadata import entry_points
sys.argv[0] = "m3ter-dagster"
(program,) = entry_points(group="console_scripts", name="m3ter-dagster")
program.load()()
"""
OF_THE_SANDBOX = {"flask", "moto"}
EXTRAS = {"celery", "dev", "gcs", "kubernetes", "postgres", "sandbox", "signing", "telemetry"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(PROJECT)
        name = build.build_wheel(str(folder))
    with zipfile.ZipFile(folder / name) as wheel:
        yield wheel


@pytest.fixture(scope="module")
def about(wheel: zipfile.ZipFile) -> Message:
    (name,) = [one for one in wheel.namelist() if one.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_it_has_what_git_has_of_the_two_packages_and_what_they_read(wheel: zipfile.ZipFile) -> None:
    command = ["git", "ls-files", "m3ter_dagster", "m3ter_sandbox", "schemas"]
    listed = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    packaged = {re.sub("^schemas/", "m3ter_dagster/schemas/", name) for name in listed}
    settings = {f"m3ter_dagster/{name}" for name in (".env.example", "dagster.yaml", "exports.yaml", "workspace.yaml")}
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == packaged | settings
    assert {"m3ter_dagster/py.typed", "m3ter_dagster/schemas/bill.json"} < found


def test_only_its_extras_need_what_is_for_the_sandbox_databases_and_development(about: Message) -> None:
    needed = [Requirement(one) for one in about.get_all("Requires-Dist", [])]
    always = {one.name for one in needed if one.marker is None}
    assert {"dagster", "dagster-webserver", "polars"} < always
    assert not {*OF_THE_SANDBOX, "dagster-postgres", "dagster-k8s", "dagster-celery", "pytest", "ruff"} & always
    assert {one.name for one in needed if one.marker and one.marker.evaluate({"extra": "sandbox"})} == OF_THE_SANDBOX
    assert set(about.get_all("Provides-Extra", [])) == EXTRAS


def test_it_says_for_which_versions_of_python_it_is(about: Message) -> None:
    assert about["Requires-Python"] == ">=3.11"
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(about.get_all("Classifier", [])))
    assert named == ["3.11", "3.12", "3.13"]


@pytest.mark.slow
def test_in_an_empty_folder_it_makes_the_files_of_an_organization_and_exports(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    installed, acme = tmp_path / "installed", tmp_path / "acme"
    wheel.extractall(installed)
    with Sandbox(2, folder=tmp_path / "sandbox", requests_per_second=None) as sandbox:
        paths = {"PYTHONPATH": python_path(installed), "DAGSTER_HOME": str(tmp_path / "home")}

        def run(*command: str, folder: Path) -> str:
            program = [sys.executable, "-c", PROGRAM, *command]
            variables = {**plain_environment(), **sandbox.environment, **paths}
            done = subprocess.run(
                program, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=90
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        run("init", "acme", folder=tmp_path)
        names = {"exports.yaml", "dagster.yaml", "workspace.yaml", ".env.example", "exports.schema.json"}
        assert {one.name for one in acme.iterdir()} == names
        assert f"schemas/: {len(entities())} entities" in run("check", folder=acme)
        assert "2 of 2 entities delivered" in run("export", "--entities", "product,meter", folder=acme)
    assert (tmp_path / "home" / "dagster.yaml").read_text() == (acme / "dagster.yaml").read_text()
