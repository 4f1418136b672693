"""Commands, statements, units and messages that docs/ shows are those of the program, and run or say why not."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import dagster as dg
import polars as pl
import pytest
import yaml
from postgres import postgres_programs

import m3ter_dagster
from m3ter_dagster.cli import main
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.schema import frame_schema
from m3ter_dagster.model.entities import entities

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
RUN = {
    "m3ter-dagster": "below",
    "openssl": "test_signatures.py",
    "celery": "test_executors.py",
    "frictionless validate": "test_export.py",
    "systemd-analyze verify": "below",
}
NOT_RUN = {
    "pip install": "asks a package index",
    "python3 -m venv": "is what this runs in",
    "git": "needs a repository elsewhere",
    "useradd": "needs root",
    "install -d": "needs root",
    "cp": "copies what `init` writes",
    "cd": "moves",
    "export": "sets variables",
    "systemctl": "needs systemd",
    "gcloud": "needs an account at Google",
    "curl": "was run by hand on the day that the page says",
    "dagster instance migrate": "was run by hand on the day that the page says",
}
"""Programs that are shown and that no test starts, and why."""
NOT_RUN_WAREHOUSES = ("Snowflake", "BigQuery", "Redshift", "Databricks and Spark")
PRODUCT = entities()["product"]


def blocks(page: str, *languages: str) -> list[str]:
    return re.findall(rf"^ *```(?:{'|'.join(languages)})\n(.*?)^ *```", PAGES[page], re.MULTILINE | re.DOTALL)


def own_commands() -> Iterator[tuple[str, str]]:
    """All that is shown of m3ter-dagster, in blocks and in sentences."""
    for page, text in PAGES.items():
        code = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
        inline = re.findall(r"`(m3ter-dagster [^`]+)`", code)
        lines = [line for block in blocks(page, "sh", "console", "") for line in block.splitlines()]
        shown = [line.partition("#")[0] for line in lines if re.match(r" *(\$ )?(\S+/)?m3ter-dagster ", line)]
        yield from ((page, one.replace("\\|", "|")) for one in (*inline, *shown))


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_options_are_those_of_the_program(page: str) -> None:
    for where, shown in own_commands():
        if where != page:
            continue
        command: click.Command = main
        words = re.split(r"[\s\[\]]+", shown.partition("m3ter-dagster ")[2].partition(" && ")[0].strip())
        while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z][a-z|-]*", words[0]):
            first, *others = words.pop(0).split("|")
            assert {first, *others} <= command.commands.keys(), shown
            command = command.commands[first]
        known = {option for one in command.params for option in one.opts} | {"--help", "--version"}
        given = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", " ".join(words)))
        assert given <= known, shown


def shell_commands() -> Iterator[str]:
    for page in PAGES:
        typed = [line for block in blocks(page, "sh") for line in block.splitlines()]
        typed += re.findall(r"^\$ (.*)$", "\n".join(blocks(page, "console")), re.MULTILINE)
        for line in typed:
            if not re.match(r"[A-Z0-9_]+=", line):
                yield from (re.sub(r"^\S*/bin/", "", one.strip()) for one in line.partition("  #")[0].split(" && "))


@pytest.mark.parametrize("command", sorted(set(shell_commands())))
def test_each_command_runs_in_a_test_or_says_why_not(command: str) -> None:
    assert any(command.startswith(one) for one in (*RUN, *NOT_RUN)), command


def test_what_runs_no_test_is_still_shown() -> None:
    shown = set(shell_commands())
    assert [one for one in (*RUN, *NOT_RUN) if not any(command.startswith(one) for command in shown)] == []


def test_statements_that_were_not_run_say_so() -> None:
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGES["loading.md"], re.MULTILINE | re.DOTALL))
    for name in NOT_RUN_WAREHOUSES:
        assert sections[name].strip().startswith("Not run."), name
    columns = re.findall(r'"(\w+)"', blocks("loading.md", "sql")[-2])
    assert columns == [column.name for column in PRODUCT.columns]


def test_the_statements_of_postgresql_load_a_file(postgres: Any, tmp_path: Path) -> None:
    values = {"id": ["a", "b"], "version": [1, None], "name": ["", None], "customFields": ['{"x": 1.50}', None]}
    cells = {name: values.get(name, [None, None]) for name in frame_schema(PRODUCT)}
    Csv().write([pl.LazyFrame(cells, schema=frame_schema(PRODUCT))], PRODUCT, tmp_path / "product.csv")
    statement = next(one for one in blocks("loading.md", "sql") if one.startswith("CREATE TABLE product"))
    connection = ["-h", postgres.info.host, "-U", postgres.info.user, postgres.info.dbname]
    command = [postgres_programs() / "psql", *connection, "--no-psqlrc", "-v", "ON_ERROR_STOP=1"]
    subprocess.run(command, input=statement, cwd=tmp_path, text=True, check=True, capture_output=True)
    with postgres.cursor() as cursor:
        cursor.execute('SELECT "id", "version", "name", "customFields"::text FROM product ORDER BY "id"')
        assert cursor.fetchall() == [("a", 1, "", '{"x": 1.50}'), ("b", None, None, None)]


def test_the_records_are_kept_in_postgresql(postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of dagster.yaml, beside those that this project has; the address as the page writes it."""
    (lines,) = [one for one in blocks("deploying.md", "yaml") if "postgres_url" in one]
    text = (ROOT / "dagster.yaml").read_text(encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text(f"{text}\n{lines}", encoding="utf-8")
    (scheme,) = re.findall(r"DAGSTER_POSTGRES_URL=(\S+?://)", PAGES["deploying.md"])
    info = postgres.info
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", f"{scheme}{info.user}@/{info.dbname}?host={info.host}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.create_run_for_job(dg.GraphDefinition("empty").to_job())
        instance.report_engine_event("noted", run)
        assert [one.message for one in instance.all_logs(run.run_id)] == ["noted"]
    assert not list(tmp_path.rglob("*.db"))
    with postgres.cursor() as cursor:
        cursor.execute("SELECT run_id FROM runs")
        assert cursor.fetchall() == [(run.run_id,)]


def units() -> dict[str, str]:
    return {re.findall(r"# (\S+)", one)[0]: one for one in blocks("deploying.md", "ini")}


def test_the_units_are_right_for_systemd(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("there is no systemd-analyze")
    for name, text in units().items():
        (tmp_path / name).write_text(re.sub(r"ExecStart=\S+", f"ExecStart={shutil.which('true')}", text))
    files = [str(tmp_path / name) for name in units()]
    done = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False)
    about_them = [line for line in done.stderr.splitlines() if "m3ter-" in line]
    assert (done.returncode, about_them) == (0, []), done.stderr


def test_the_units_and_the_workspace_name_one_code_server() -> None:
    assert [*units()] == ["m3ter-code.service", "m3ter-daemon.service", "m3ter-ui.service"]
    (server,) = [
        one["grpc_server"]
        for block in blocks("deploying.md", "yaml")
        for one in yaml.safe_load(block).get("load_from", [])
    ]
    start = f"-m m3ter_dagster.definitions -h {server['host']} -p {server['port']} --location-name"
    assert f"code-server start {start} {server['location_name']}\n" in units()["m3ter-code.service"]


def messages() -> list[str]:
    """The first column of the tables of messages."""
    return re.findall(r"^\| `(.+?)` \|", PAGES["troubleshooting.md"], re.MULTILINE)


@cache
def literals() -> str:
    """All texts of the product, with ... for what is put into them."""
    found = []
    for file in Path(m3ter_dagster.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (one.value if isinstance(one, ast.Constant) else "..." for one in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(re.sub(r"\{[^}]*\}", "...", node.value))
    return "\n".join(found)


@pytest.mark.parametrize("message", messages())
def test_each_message_of_the_table_is_one_of_the_program(message: str) -> None:
    parts = [one.strip(" :,;'") for one in re.split(r"(?:\$\{)?\.\.\.\}?", message)]
    assert sum(map(len, parts)) > 15, "what is left is too little to find it by"
    assert [one for one in parts if one not in literals()] == []


def test_the_table_has_the_main_messages() -> None:
    assert len(messages()) > 45
