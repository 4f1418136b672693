"""The toggle of a schedule, as a click in the UI leaves it."""

from __future__ import annotations

from datetime import datetime

import dagster as dg
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorData,
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin


def switch(
    instance: dg.DagsterInstance, status: InstigatorStatus, name: str = "finance", *, at: datetime | None = None
) -> None:
    """What a click on the schedule's toggle stores, `at` that moment."""
    state = state_of(status, name, data=ScheduleInstigatorData("0 0 * * *", at.timestamp() if at else None))
    known = instance.get_instigator_state(state.instigator_origin_id, state.selector_id)
    (instance.update_instigator_state if known else instance.add_instigator_state)(state)


def state_of(
    status: InstigatorStatus,
    name: str = "finance",
    type: InstigatorType = InstigatorType.SCHEDULE,
    data: InstigatorData | None = None,
) -> InstigatorState:
    """The state of a schedule or sensor of one code location."""
    location = ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="m"), location_name="here")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    return InstigatorState(origin, type, status, data)
