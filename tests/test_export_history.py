from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._record import copy

from m3ter_dagster.history.log import MANIFEST, ROOT_TAG, chosen_entities, planned_steps, runs_of
from m3ter_dagster.model.entities import entities

NAMES = ("account", "bill", MANIFEST)
NOTHING = dg.define_asset_job("nothing", executor_def=dg.in_process_executor)


@pytest.mark.parametrize("chosen", [NAMES, ("bill", MANIFEST)])
def test_the_steps_of_a_run_are_known_whether_or_not_it_names_them(
    instance: dg.DagsterInstance, chosen: tuple[str, ...]
) -> None:
    """A run that Dagster's daemon launches for a whole job names none."""
    job = dg.Definitions(assets=[asset(name) for name in NAMES], jobs=[dg.define_asset_job("export")])
    selection = [dg.AssetKey(name) for name in chosen]
    result = job.resolve_job_def("export").execute_in_process(instance=instance, asset_selection=selection)
    run = instance.get_run_by_id(result.run_id)
    assert run
    unnamed = without_steps(run)
    assert planned_steps(instance, run) == planned_steps(instance, unnamed) == set(chosen)
    assert chosen_entities(instance, unnamed) == [name for name in entities() if name in chosen]


def asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def nothing() -> None: ...

    return nothing


def without_steps(run: dg.DagsterRun) -> dg.DagsterRun:
    return copy(run, step_keys_to_execute=None)


def test_a_script_s_re_executions_belong_to_the_export_of_their_root(instance: dg.DagsterInstance) -> None:
    """Dagster's own Python API gives a re-execution no tags, only its parent."""
    job = dg.reconstructable(nothing_job)
    first = dg.execute_job(job, instance)
    again = dg.ReexecutionOptions(parent_run_id=first.run_id)
    second = dg.execute_job(job, instance, reexecution_options=again)
    third = dg.execute_job(job, instance, reexecution_options=dg.ReexecutionOptions(parent_run_id=second.run_id))
    found = runs_of(instance, first.run_id, third.dagster_run)
    assert [record.dagster_run.run_id for record in found] == [first.run_id, second.run_id, third.run_id]


def test_runs_come_in_the_order_in_which_they_were_made_whatever_the_clock_said(instance: dg.DagsterInstance) -> None:
    """A re-execution after the clock was set back must not pass for the root, whose entities the manifest owes."""
    root = dg.DagsterRun(job_name="export")
    tags = {ROOT_TAG: root.run_id}
    again = dg.DagsterRun(job_name="export", root_run_id=root.run_id, parent_run_id=root.run_id, tags=tags)
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    instance.run_storage.add_historical_run(root, noon)
    instance.run_storage.add_historical_run(again, noon - timedelta(hours=6))
    found = runs_of(instance, root.run_id)
    assert [record.dagster_run.run_id for record in found] == [root.run_id, again.run_id]


def nothing_job() -> dg.JobDefinition:
    return dg.Definitions(assets=[asset("bill")], jobs=[NOTHING]).resolve_job_def("nothing")
