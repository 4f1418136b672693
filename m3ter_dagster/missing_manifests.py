"""The sensor that gives each export its manifest that was started without one, as the button Materialize does."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from m3ter_dagster.config.names import MISSING_MANIFESTS
from m3ter_dagster.dagster_internals import is_of_location
from m3ter_dagster.history.log import EXPORT_TAG, MANIFEST, ROOT_TAG, USAGE_MANIFEST, is_of, is_whole, root_id, unlisted
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.resources import IO_MANAGER

FIRST_LOOK = timedelta(days=1)
"""So far back looks the first, when the sensor is new; each later one from where the one before was."""
_OVERLAP = timedelta(minutes=5)
"""Runs write when they ended by the clocks of several processes. A run key launches nothing twice."""


def missing_manifests(
    destinations: Collection[str], org_id: str | None = None, names: Names = DEFAULT
) -> dg.SensorDefinition:
    """The sensor. An export that went to a destination that is none of these any more gets no manifest."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        instance, now = context.instance, datetime.now(UTC)
        since = datetime.fromisoformat(context.cursor) - _OVERLAP if context.cursor else now - FIRST_LOOK
        ended = instance.get_run_records(
            dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS], updated_after=since),
            order_by="update_timestamp",
            ascending=True,
        )
        found = [record.dagster_run for record in ended if is_of_location(context, record.dagster_run)]
        runs = [run for run in found if is_of(run, org_id)]
        last = {root_id(run): run for run in runs}
        requests = [request for run in last.values() for request in _requests(instance, run, set(destinations), names)]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "every export has its manifest.",
            cursor=now.isoformat(),
        )

    return dg.SensorDefinition(
        name=names.own(MISSING_MANIFESTS),
        evaluation_fn=evaluate,
        asset_selection=dg.AssetSelection.assets(names.key(MANIFEST), names.key(USAGE_MANIFEST)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes the manifest of each export that was started without it, by the button Materialize on some "
        "entities, and is whole.",
    )


def _requests(
    instance: dg.DagsterInstance, run: dg.DagsterRun, known: Set[str], names: Names
) -> Iterator[dg.RunRequest]:
    """A run of the same export, to the same destinations, that only makes the manifest."""
    export_id, tags = root_id(run), {name: value for name, value in run.tags.items() if name.startswith("m3ter/")}
    resources: Any = run.run_config.get("resources", {})
    key = names.own(IO_MANAGER)
    delivering = {name: config for name, config in resources.items() if name == key}
    codes = delivering.get(key, {}).get("config", {}).get("destinations", [])
    if not set(codes) <= known:  # Dagster would refuse the request, and with it all others of this look
        return
    for manifest in unlisted(instance, run, names):
        if is_whole(instance, export_id, manifest, names):
            yield dg.RunRequest(
                run_key=f"{run.run_id}:{manifest}",
                run_config={"resources": delivering},
                # Dagster's own tags show the two runs together; it makes none of them a re-execution of the other.
                tags={**tags, EXPORT_TAG: export_id, ROOT_TAG: export_id, "dagster/parent_run_id": run.run_id},
                asset_selection=[names.key(manifest)],
            )
