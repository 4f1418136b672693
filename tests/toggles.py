"""The toggle of a schedule, as a click in the UI leaves it."""

from __future__ import annotations

import dagster as dg
from dagster._core.definitions.selector import InstigatorSelector
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin


def switch(instance: dg.DagsterInstance, status: InstigatorStatus, name: str = "finance") -> None:
    """What a click on the schedule's toggle stores."""
    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="m"), location_name="here")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    state = InstigatorState(origin, InstigatorType.SCHEDULE, status, ScheduleInstigatorData("0 0 * * *"))
    selector = InstigatorSelector(location_name="here", repository_name="__repository__", name=name)
    known = instance.get_instigator_state(origin.get_id(), selector.get_id())
    (instance.update_instigator_state if known else instance.add_instigator_state)(state)
