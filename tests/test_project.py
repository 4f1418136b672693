"""The way to one's own Organization: a folder that `init` makes, `.env`, and the UI over it."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner, Result
from processes import PROJECT

from m3ter_dagster.cli import main
from m3ter_dagster.config import ConfigError, read_env_file

FILES = {"exports.yaml", "dagster.yaml", "workspace.yaml", ".env.example", "exports.schema.json"}
ENV_FILE = """\
M3TER_API_KEY=of-the-file
M3TER_API_SECRET='a "secret"'
M3TER_ORG_ID=org-1   # the Organization
M3TER_BUCKET=acme
DAGSTER_HOME=
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty one, in which the command runs without this machine's settings."""
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ):
        for name in [name for name in os.environ if name.startswith(("M3TER_", "DAGSTER_"))]:
            del os.environ[name]
        yield tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, catch_exceptions=False)


def test_a_new_folder_has_all_that_exports_need_once_the_variables_are_set(folder: Path) -> None:
    made = run("init")
    assert made.exit_code == 0
    assert {one.name for one in folder.iterdir()} == FILES
    assert made.stdout.count("written: ") == len(FILES)
    missing = run("check")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("Error: exports.yaml:7: destination 'warehouse' uses ${M3TER_BUCKET}; set the ")
    (folder / ".env").write_text(ENV_FILE)
    right = run("check")
    assert (right.exit_code, right.stdout.splitlines()[1:]) == (
        0,
        [
            f"{folder / 'exports.yaml'}: 1 destinations, 0 schedules",
            "environment: Organization org-1 at https://api.m3ter.com",
        ],
    ), right.output


def test_what_is_written_is_what_this_project_uses(folder: Path) -> None:
    run("init")
    for name in ("dagster.yaml", "workspace.yaml", ".env.example"):
        assert (folder / name).read_text() == (PROJECT / name).read_text()
    assert (folder / "exports.schema.json").read_text() == (PROJECT / "docs" / "exports.schema.json").read_text()
    first, *rest = (folder / "exports.yaml").read_text().splitlines()
    assert first == "# yaml-language-server: $schema=exports.schema.json"
    assert rest == (PROJECT / "exports.yaml").read_text().splitlines()[1:]


def test_every_example_in_exports_yaml_is_right(folder: Path) -> None:
    """Each line that is commented out is taken when a person takes the # away."""
    run("init")
    text = (folder / "exports.yaml").read_text()
    (folder / "exports.yaml").write_text(re.sub(r"^( *)# (?=[a-zA-Z]+:( |$)| )", r"\1", text, flags=re.MULTILINE))
    more = {"EXTERNAL_ID": "external", "WEBHOOK_URL": "https://hooks.example.com/1"}
    more |= {f"PRODUCTION_{name}": "of-production" for name in ("ORG_ID", "API_KEY", "API_SECRET")}
    (folder / ".env").write_text(ENV_FILE + "".join(f"M3TER_{name}={value}\n" for name, value in more.items()))
    checked = run("check")
    assert checked.exit_code == 0, checked.output
    assert "3 destinations, 2 schedules" in checked.stdout


def test_init_overwrites_nothing(folder: Path) -> None:
    (folder / "acme").mkdir()
    (folder / "acme" / "exports.yaml").write_text("destinations: []  # mine\n")
    made = run("init", "acme")
    assert (folder / "acme" / "exports.yaml").read_text() == "destinations: []  # mine\n"
    assert "there already, kept:  acme/exports.yaml\n" in made.stdout
    assert "written:              acme/dagster.yaml\n" in made.stdout
    assert "\ncd acme\n" in made.stdout
    assert run("init", "acme").stdout.count("there already, kept") == len(FILES)


def test_init_where_nothing_can_be_written(folder: Path) -> None:
    (folder / "file").touch()
    made = run("init", "file/acme")
    assert (made.exit_code, made.stdout) == (2, "")
    assert made.stderr == "Error: file/acme: Not a directory; name a folder that you may write to.\n"


# .env


def test_the_environment_comes_before_the_file(folder: Path) -> None:
    (folder / ".env").write_text(ENV_FILE)
    environ = {"M3TER_API_KEY": "of-the-environment"}
    read_env_file(environ)
    assert environ == {
        "M3TER_API_KEY": "of-the-environment",
        "M3TER_API_SECRET": 'a "secret"',
        "M3TER_ORG_ID": "org-1",
        "M3TER_BUCKET": "acme",
        "DAGSTER_HOME": "",
    }


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / ".env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigError, match=r"^\.env: cannot be read: .*; save it as UTF-8, readable for you\.$"):
        read_env_file({})
    assert run("schema").exit_code == 2


@pytest.mark.parametrize("command", [["sandbox", "--", "/nonexistent"], ["demo", "--accounts", "-1"]])
def test_the_sandbox_does_not_see_the_file(folder: Path, command: list[str]) -> None:
    (folder / ".env").write_text(ENV_FILE)
    run(*command)
    assert "M3TER_API_KEY" not in os.environ


# The home


def test_check_warns_of_a_home_that_is_not_named(folder: Path) -> None:
    run("init")
    (folder / ".env").write_text(ENV_FILE)
    assert run("check").stderr.startswith("Warning: DAGSTER_HOME is not set. These commands keep Dagster's records in ")
    assert run("check", "--without-environment").stderr == ""


def test_check_warns_of_a_home_in_the_folder_for_temporary_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    (folder / ".env").write_text(ENV_FILE)
    monkeypatch.setenv("DAGSTER_HOME", str(folder / "home"))
    assert run("check").stderr.startswith(f"Warning: DAGSTER_HOME is {folder / 'home'}, in the folder for temporary ")
    monkeypatch.setenv("DAGSTER_HOME", "/var/lib/dagster")
    assert run("check").stderr == ""


# The UI


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What takes the place of the process, which a shell has started in the background."""
    found: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *call: found.append((Path.cwd(), *call)))
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield found
    signal.signal(signal.SIGINT, before)


def test_the_ui_keeps_its_records_in_the_folder(folder: Path, started: list[Any], free_port: int) -> None:
    run("init")
    (folder / ".env").write_text(ENV_FILE)
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}  # mine\n")
    shown = run("ui", "--port", str(free_port))
    assert shown.stdout == (
        f"Dagster's UI: http://127.0.0.1:{free_port} (its records: {folder / '.dagster'}; Ctrl-C ends it)\n"
    )
    ((where, _, command, environment),) = started
    assert where == folder / ".dagster"
    assert command[3:8] == ["-m", "dagster", "dev", "--workspace", str(PROJECT / "workspace.yaml")]
    assert (folder / ".dagster" / "dagster.yaml").read_text() == "telemetry: {enabled: false}  # mine\n"
    assert environment["DAGSTER_HOME"] == str(folder / ".dagster")
    assert environment["M3TER_EXPORTS"] == str(folder / "exports.yaml")
    assert environment["M3TER_ORG_ID"] == "org-1"
    assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL, "else SIGTERM would not end it"


def test_a_ui_without_an_exports_yaml_does_not_start(folder: Path, started: list[Any]) -> None:
    refused = run("ui")
    assert (refused.exit_code, started) == (2, [])
    assert f"there is no {folder / 'exports.yaml'}; write one" in refused.stderr
    assert "`m3ter-dagster init` writes one" in refused.stderr


def test_a_ui_goes_on_with_the_exports_yaml_that_was_right(folder: Path, started: list[Any], free_port: int) -> None:
    """After a restart of the machine nobody may be there to correct the file, and schedules are due."""
    run("init")
    (folder / ".env").write_text(ENV_FILE)
    assert run("ui", "--port", str(free_port)).stderr == ""
    os.chdir(folder)
    (folder / "exports.yaml").write_text("destinations: []\n")
    again = run("ui", "--port", str(free_port))
    assert (again.exit_code, len(started)) == (0, 2)
    assert "exports.yaml:1: " in again.stderr


def test_a_port_that_is_taken_is_told(folder: Path, started: list[Any]) -> None:
    run("init")
    (folder / ".env").write_text(ENV_FILE)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        refused = run("ui", "--port", str(port))
    assert (refused.exit_code, started) == (2, [])
    assert refused.stderr == f"Error: port {port} cannot be used: Address already in use; choose another with --port.\n"


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
