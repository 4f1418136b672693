"""The daily job that removes old exports from Dagster's records, if exports.yaml says how long to keep them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from m3ter_dagster.config import Destination
from m3ter_dagster.config.names import PRUNE_HISTORY
from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.history.pruning import old_exports, remove
from m3ter_dagster.names import DEFAULT, Names

CRON = "30 3 * * *"


def prune_history(
    keep: timedelta, destinations: Sequence[Destination], org_id: str | None = None, names: Names = DEFAULT
) -> dg.ScheduleDefinition:
    """The schedule, and with it the job. The run fails, so that it is noticed, where a destination keeps its files."""
    what = f"Removes exports that began more than {keep.days} days ago from Dagster's records, and their keys files."

    @dg.op(name=names.own("remove_old_exports"), description=what, out=dg.Out(dg.Nothing))
    def remove_old_exports(context: dg.OpExecutionContext) -> dg.Output[None]:
        old = old_exports(context.instance, datetime.now(UTC) - keep, org_id=org_id, names=names)
        removed = remove(context.instance, old.exports, Destinations({one.code: one for one in destinations}))
        for words in removed.left:
            context.log.warning(words)
        if removed.stay:
            words = " ".join([f"{removed.stay} old exports stay:", *removed.left])
            raise dg.Failure(words, allow_retries=False)
        found = {"exports": removed.exports, "runs": removed.runs, "keys_files": removed.keys, "needed": old.needed}
        return dg.Output(None, metadata=found)

    @dg.job(name=names.own(PRUNE_HISTORY), description=what, executor_def=dg.in_process_executor)
    def job() -> None:
        remove_old_exports()

    return dg.ScheduleDefinition(
        name=names.own(PRUNE_HISTORY),
        job=job,
        cron_schedule=CRON,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{what} Every day at 03:30 UTC.",
    )
