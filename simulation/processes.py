"""The processes of runs, forked from this one as Dagster starts them: each can die as a machine does."""

from __future__ import annotations

import gc
import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
import time_machine
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._grpc.impl import core_execute_run
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from m3ter_dagster.dagster_internals import open_instance_for_a_terminal
from m3ter_dagster.m3ter import pace
from m3ter_dagster.m3ter.http import Http
from m3ter_dagster.runs import job_named, resume
from simulation.speed import forget_connections

HURRY = 50
"""How many times faster than in life processes wait."""
LONGEST_SECONDS = 90
"""A process that takes longer stands still."""


class Launcher(RunLauncher, ConfigurableClass):
    """Keeps the runs that the daemon launches until `take` hands them out."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._launched: list[str] = []
        super().__init__()

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Launcher:
        return cls(inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Refuses, as Dagster's own launcher does, while the run's code location is not loaded."""
        run = context.dagster_run
        assert context.workspace
        assert run.remote_job_origin
        context.workspace.get_code_location(run.remote_job_origin.location_name)
        self._launched.append(context.dagster_run.run_id)

    def take(self) -> list[str]:
        launched, self._launched = self._launched, []
        return launched

    def terminate(self, run_id: str) -> bool:  # noqa: ARG002
        """No process lives longer than the step in which it was started."""
        return False


class StandsStill(Exception):
    """A process did not end."""


Work = Callable[[dg.DagsterInstance], Any]


def executed(run_id: str) -> Work:
    """What the process of a run does that the daemon has launched."""

    def work(instance: dg.DagsterInstance) -> None:
        run = instance.get_run_by_id(run_id)
        assert run
        for _ in core_execute_run(job_named(run.job_name), run, instance, inject_env_vars=False):
            pass

    return work


def resumed(run_id: str) -> Work:
    """What `m3ter-dagster export --resume` does."""
    return lambda instance: resume(instance, run_id, abandoned=False, changed=lambda *_: None)


def start(
    work: Work, home: Path, clock: time_machine.Traveller, *, dies_at_event: int | dg.DagsterEventType | None, log: Path
) -> int:
    """The id of a new process. A fork has the definitions and all that was imported, but none of polars' threads, so
    this process must never have used polars."""
    sys.stdout.flush()
    gc.freeze()
    process = os.fork()
    if process:
        gc.unfreeze()  # else what is garbage by then would stay, a gigabyte in a hundred stories
        return process
    try:
        with log.open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        gc.disable()
        _hurry(clock)
        forget_connections()
        with open_instance_for_a_terminal(home) as instance:
            if dies_at_event:
                _die_at_event(instance, dies_at_event)
            work(instance)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(0)


def ended(process: int) -> bool:
    """Whether the process died when it has ended; StandsStill if it does not end."""
    latest = time.monotonic() + LONGEST_SECONDS
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.WIFSIGNALED(status)
        if time.monotonic() > latest:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            raise StandsStill(f"a process did not end within {LONGEST_SECONDS} seconds")
        time.sleep(0.005)


def _hurry(clock: time_machine.Traveller) -> None:
    """Waits are short, and the clock says that they were not; monotonic clocks stay as they are."""
    sleep, wait = time.sleep, Http.wait

    def short_sleep(seconds: float) -> None:
        sleep(seconds / HURRY)
        clock.shift(seconds)

    patch("time.sleep", short_sleep).start()
    patch.object(Http, "wait", lambda self, seconds: wait(self, seconds / HURRY)).start()
    patch.object(pace, "_MARGIN", pace._MARGIN / HURRY).start()


def _die_at_event(instance: dg.DagsterInstance, which: int | dg.DagsterEventType) -> None:
    storage = instance.event_log_storage
    store, numbers = storage.store_event, itertools.count(1)

    def counted(event: Any) -> None:
        type = event.dagster_event.event_type if event.dagster_event else None
        if which in (next(numbers), type):
            os.kill(os.getpid(), signal.SIGKILL)
        store(event)

    patch.object(storage, "store_event", counted).start()
