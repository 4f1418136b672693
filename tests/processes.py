"""Programs that the tests start: each in a session of its own, ended with everything that it has started."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO, TypeVar

from m3ter_dagster.cli import run

PROJECT = Path(__file__).parents[1]
PROGRAM = str(Path(sys.executable).with_name("m3ter-dagster"))
SECONDS_TO_END = 60
"""Longer than a code server lives on without its dagster dev, which is 45."""
LOOK_EVERY = 0.5

# A SIGINT that a shell ignores for its background jobs stays ignored, and Dagster would then not end on SIGTERM.
WITH_DEFAULT_SIGNALS = """\
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""
FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ["m3ter_dagster.cli", "m3ter_dagster.definitions", "m3ter_dagster.runs"]
FORKS.set_forkserver_preload(PRELOADED)
Found = TypeVar("Found")


def start(*command: str, environment: Mapping[str, str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
    """The command in the project's folder, with no more of this machine's environment than is harmless."""
    return subprocess.Popen(
        [sys.executable, "-c", WITH_DEFAULT_SIGNALS, *command],
        cwd=PROJECT,
        env={**plain_environment(), **environment},
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def start_command(
    arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], log: Path
) -> ForkServerProcess:
    """`m3ter-dagster arguments…`, forked from a process that has imported everything; else each would for a second."""
    process = FORKS.Process(target=_run_command, args=(arguments, folder, environment, log))
    process.start()
    return process


def _run_command(arguments: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    sys.argv = ["m3ter-dagster", *arguments]
    run()


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM takes everything down; what it leaves behind is ended by its id, and is an error."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
        poll(lambda: not _session(process), f"the processes to end: {_session(process)}", SECONDS_TO_END)
    finally:
        for pid in _session(process):
            os.kill(pid, signal.SIGKILL)
        process.wait()


def poll(look: Callable[[], Found | None], what: str, seconds: float) -> Found:
    """What `look` finds, as soon as it finds it."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {seconds:.0f} seconds for {what}"
        time.sleep(LOOK_EVERY)


def plain_environment() -> dict[str, str]:
    """This machine's, without what would lead an export elsewhere."""
    others = ("AWS_", "DAGSTER_", "M3TER_")
    kept = (name for name in os.environ if not name.startswith(others) and not name.lower().endswith("_proxy"))
    return {name: os.environ[name] for name in kept}


def python_path(folder: Path) -> str:
    """For programs that are to find what is in this folder first; what startup/ does for all is done for them, too."""
    return os.pathsep.join((str(folder), os.environ["PYTHONPATH"]))


def _session(process: subprocess.Popen[bytes]) -> dict[int, str]:
    """The command lines of its session by process id; those that ended and wait for a parent are none."""
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(session) == process.pid and state not in "ZX":
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
    return found
