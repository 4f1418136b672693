"""m3ter-dagster init and ui: a folder with all that an Organization's exports need, and Dagster's UI over it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import click

from m3ter_dagster.cli.instance import SETTINGS, prepared_home
from m3ter_dagster.cli.terminal import Unusable, configured
from m3ter_dagster.config import absolute_paths, load_exports_or_last_good, new_exports_yaml, shipped, write_new

HOST, PORT = "127.0.0.1", 3000
NEXT_STEPS = """\
Next:
  1. Copy .env.example to .env and fill it in: the access key, the Organization, the bucket. (Keep .env out of git.)
  2. Name your destinations and schedules in exports.yaml.
  3. m3ter-dagster check --connect    whether m3ter and every destination can be used
  4. m3ter-dagster export             everything once, now; or
     m3ter-dagster ui                 Dagster's UI, with the schedules
"""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(folder: Path) -> None:
    """Write what exports need into FOLDER: a commented exports.yaml, settings of Dagster, an example of .env.

    Files that are there already stay as they are.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in _files().items():
            what = "written:            " if write_new(folder / name, text) else "there already, kept:"
            click.echo(f"{what}  {folder / name}")
    except OSError as error:
        raise Unusable(f"{folder}: {error.strerror or error}; name a folder that you may write to.") from None
    if folder.resolve() != Path.cwd():
        click.echo(f"\ncd {folder}")
    click.echo(f"\n{NEXT_STEPS}", nl=False)


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), default=PORT, show_default=True, help="The port of the UI.")
def ui(port: int) -> None:
    """Start Dagster's UI and its daemon, which runs the schedules, until Ctrl-C.

    Dagster's records are kept in .dagster in the current folder, or in DAGSTER_HOME.
    """
    home = prepared_home()
    _, unloadable = configured(load_exports_or_last_good)
    if unloadable:
        click.echo(str(unloadable), err=True)
    try:
        socket.create_server((HOST, port)).close()
    except OSError as error:
        raise Unusable(
            f"port {port} cannot be used: {os.strerror(error.errno or 0)}; choose another with --port."
        ) from None
    print(f"Dagster's UI: http://{HOST}:{port} (its records: {home}; Ctrl-C ends it)", flush=True)
    environment = absolute_paths()
    # In its own folder Dagster would take a .env for more than the environment, and so a sandbox for the real m3ter.
    os.chdir(home)
    python = [sys.executable, "-W", "ignore:Function `dev_command` is superseded", "-m"]
    workspace = str(shipped("workspace.yaml").absolute())
    command = ["dagster", "dev", "--workspace", workspace, "-h", HOST, "-p", str(port)]
    # Shells start a program in the background (`nohup ... &`) so that it ignores Ctrl-C, and Dagster would then ignore
    # SIGTERM as well.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.execve(sys.executable, [*python, *command], environment)  # noqa: S606 (the words are ours)


def _files() -> dict[str, str]:
    """The text of each file of a new folder, by name."""
    others = (SETTINGS, "workspace.yaml", ".env.example")
    return {**new_exports_yaml(), **{name: shipped(name).read_text(encoding="utf-8") for name in others}}
