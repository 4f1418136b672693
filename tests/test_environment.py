"""The environment and exports.yaml are read at the edge: by commands, and by the definitions that Dagster loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from processes import plain_environment

import m3ter_dagster
from m3ter_dagster.config import dagster_home
from m3ter_sandbox import Sandbox

PRODUCT = Path(m3ter_dagster.__file__).parent
VARIABLES = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
"""Of the module os."""
LOADERS = {
    *("load_exports", "load_exports_or_last_good", "load_settings", "load_m3ter_settings", "read_env_file"),
    *("exports_path", "dagster_home", "home_warning", "absolute_paths"),
}
NOTING = """
import os, sys, traceback

exports, port = os.environ["M3TER_EXPORTS"], int(sys.argv.pop(1))

def note(event, args):
    if event == "open" and str(args[0]) == exports:
        names = [frame.name for frame in traceback.extract_stack()]
        (loader,) = [place for place, name in enumerate(names) if name.startswith("load_exports")]
        print("exports.yaml", names[loader - 1], file=sys.stderr)
    elif event == "socket.connect" and args[1][1:2] == (port,):
        print("m3ter", file=sys.stderr)

sys.addaudithook(note)
from m3ter_dagster.cli import main
main()
"""
"""The command line, which says whenever exports.yaml is opened, by whom, and whenever m3ter is asked."""
POLARS = """
import sys
import dagster._cli  # what a code server, a run and a step begin with
assert "polars" not in sys.modules
import m3ter_dagster, polars
"""


def test_environment_variables_are_read_in_one_module_and_set_by_the_demo_and_for_polars() -> None:
    assert files_with(VARIABLES) == {"config/environment.py", "cli/sandbox.py", "__init__.py"}


@pytest.mark.parametrize(("set_by_a_person", "pools"), [("", 1), ("dirty_decay_ms:500,narenas:3,", 3)])
def test_polars_has_one_pool_of_memory_unless_a_person_says_otherwise(set_by_a_person: str, pools: int) -> None:
    """Its jemalloc says itself, when the process ends, what it has made of its variable."""
    environment = {**plain_environment(), "_RJEM_MALLOC_CONF": f"{set_by_a_person}stats_print:true"}
    command = [sys.executable, "-c", POLARS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=90)
    assert f"  opt.narenas: {pools}\n" in done.stderr


def test_only_commands_and_the_definitions_load_the_configuration() -> None:
    outside = {file for file in files_with(LOADERS) if not file.startswith(("cli/", "config/"))}
    assert outside == {"component.py", "definitions.py"}


def files_with(names: set[str]) -> set[str]:
    found = ((file, ast.parse(file.read_text(encoding="utf-8"))) for file in PRODUCT.rglob("*.py"))
    return {file.relative_to(PRODUCT).as_posix() for file, module in found if names & set(used(module))}


def used(module: ast.Module) -> Iterator[str]:
    """Every name that is read from a module or imported, and every global."""
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            is_of_os = isinstance(node.value, ast.Name) and node.value.id == "os"
            yield from [node.attr] if is_of_os or node.attr in LOADERS else []
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def test_dagster_s_home_is_beside_exports_yaml_unless_the_environment_names_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dagster itself refuses one that is not absolute, and looks for it in the environment."""
    monkeypatch.chdir(tmp_path)
    for named, home in (
        (None, tmp_path / ".dagster"),
        (" ", tmp_path / ".dagster"),
        ("homes/first", tmp_path / "homes" / "first"),
        ("/var/dagster", Path("/var/dagster")),
    ):
        environ = {} if named is None else {"DAGSTER_HOME": named}
        assert dagster_home(environ) == home
        assert environ == {"DAGSTER_HOME": str(home)}


@pytest.mark.slow
def test_a_run_reads_exports_yaml_before_it_asks_m3ter_and_nothing_but_its_definitions_does(tmp_path: Path) -> None:
    with Sandbox(1, folder=tmp_path, requests_per_second=None) as sandbox:
        environment = {**plain_environment(), **sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}
        port = urlsplit(sandbox.api.base_url).port
        command = [sys.executable, "-c", NOTING, str(port), "export", "--entities", "product"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr
    notes = [line for line in done.stderr.splitlines() if line.startswith(("exports.yaml", "m3ter"))]
    before, after = notes[: notes.index("m3ter")], notes[notes.index("m3ter") :]
    assert before[:1] == ["exports.yaml configured"]
    assert set(before[1:]) == {"exports.yaml definitions"}, "Dagster builds them for the run and for its subset"
    assert set(after) == {"m3ter"}
