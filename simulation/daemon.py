"""Dagster's daemon in this process: its real iterations, one after the other, whenever it is told to look."""

from __future__ import annotations

import logging
import warnings
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext, redirect_stderr
from datetime import UTC, datetime
from io import StringIO
from typing import Any
from unittest.mock import patch

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.remote_representation.external import RemoteRepository, RemoteSchedule
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon
from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration
from dagster._scheduler.scheduler import ScheduleIterationTimes, launch_scheduled_runs

LOCATION = "m3ter_dagster"
LOG = logging.getLogger("simulation.daemon")
LOG.setLevel(logging.CRITICAL)


class Daemon:
    """Schedules, sensors, run monitoring, run retries and the queue over the project's own definitions.

    What is only in a daemon's memory is lost when it is made anew.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        with _new_code():
            self._workspace = _workspace(instance, "m3ter_dagster.definitions")
            self._while_restarted = _workspace(instance, "no_code_server_answers")
        self._times: dict[str, ScheduleIterationTimes] = {}
        self._queue = QueuedRunCoordinatorDaemon(interval_seconds=5)
        self._retries = EventLogConsumerDaemon()
        self._queue._logger = self._retries._logger = LOG

    @property
    def has_loaded(self) -> bool:
        return not self._workspace.has_code_location_error(LOCATION)

    def reload(self) -> None:
        """What a daemon does each minute, with a new process for the code: exports.yaml may have been edited."""
        with _new_code():
            self._workspace.refresh_workspace()

    def close(self) -> None:
        self._workspace.__exit__(None, None, None)
        self._while_restarted.__exit__(None, None, None)

    def look(self, *, is_restarted: bool = False) -> None:
        """`is_restarted`: the code server, once the sensors have looked; then nothing can be launched."""
        launching = self._while_restarted if is_restarted else self._workspace
        shared = patch.object(dg.DagsterInstance, "from_ref", lambda _: nullcontext(self._instance))
        # Each sensor would open the databases anew, and says on the terminal what it does.
        with shared, redirect_stderr(StringIO()):
            _exhaust(launch_scheduled_runs(self._workspace, LOG, datetime.now(UTC), self._times))
            _exhaust(execute_sensor_iteration(self._workspace, LOG, None, None))
            _exhaust(execute_run_monitoring_iteration(self._workspace, LOG))
            _exhaust(self._retries.run_iteration(launching))
            _exhaust(self._queue.run_iteration(launching))

    def descriptions(self) -> dict[str, str]:
        """What Dagster's UI says of each schedule."""
        return {one.name: one.description or "" for one in self._repository.get_schedules()}

    def jobs(self) -> set[str]:
        """The names of the jobs that there are now."""
        return {one.name for one in self._repository.get_all_jobs()}

    @property
    def _repository(self) -> RemoteRepository:
        location = self._workspace.create_request_context().get_code_location(LOCATION)
        (repository,) = location.get_repositories().values()
        return repository

    def switch(self, schedule: str, *, on: bool) -> None:
        """What a click on the schedule's toggle does in Dagster's UI."""
        toggle(self._instance, self._repository.get_schedule(schedule), on=on)

    def reexecute(self, run: dg.DagsterRun) -> None:
        """What "re-execute from failure" does in Dagster's UI."""
        context = self._workspace.create_request_context()
        location = context.get_code_location(LOCATION)
        (repository,) = location.get_repositories().values()
        again = self._instance.create_reexecuted_run(
            request_context=context,
            parent_run=run,
            code_location=location,
            remote_job=repository.get_full_job(run.job_name),
            strategy=ReexecutionStrategy.FROM_FAILURE,
            use_parent_run_tags=True,
        )
        self._instance.submit_run(again.run_id, context)


def toggle(instance: dg.DagsterInstance, schedule: RemoteSchedule, *, on: bool) -> None:
    """What a click in Dagster's UI, and `dagster schedule start` and `stop`, do."""
    if on:
        instance.start_schedule(schedule)
    else:
        instance.stop_schedule(schedule.get_remote_origin_id(), schedule.selector_id, schedule)


def _workspace(instance: dg.DagsterInstance, module: str) -> WorkspaceProcessContext:
    target = LoadableTargetOrigin(module_name=module, attribute="definitions")
    origin = InProcessCodeLocationOrigin(target, location_name=LOCATION)  # ty: ignore[abstract-class-instantiation]
    return WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin))


@contextmanager
def _new_code() -> Generator[None]:
    """The code is loaded as by a new process, which says on the terminal what is wrong with exports.yaml."""
    ReconstructableJob.get_definition.cache_clear()
    ReconstructableJob.get_repository_definition.cache_clear()
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        yield


def _exhaust(iteration: Iterable[Any]) -> None:
    deque(iteration, maxlen=0)
