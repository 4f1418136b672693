"""Export jobs as Dagster's records tell them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from test_record import METERS, WHOLE, changed

from m3ter_dagster.history.jobs import ExportJob, last_export, read_export_jobs, runs_of_others
from m3ter_dagster.history.log import DUE_TAG, MANIFEST, ORGANIZATION_TAG, SCHEDULE_TAG
from m3ter_dagster.history.record import Part, as_metadata

FINANCE = {SCHEDULE_TAG: "finance", DUE_TAG: "2024-06-06T10:00:00+00:00"}
ENTITIES = ("account", "bill")
OTHER = "report"
"""Someone's own asset, which exports nothing."""


def asset(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name)
    def delivered(context: dg.AssetExecutionContext) -> None:
        if name in context.run.tags.get("fails", "").split(","):
            raise dg.Failure("not today")

    return delivered


DEFINITIONS = dg.Definitions(
    assets=[asset(name) for name in (*ENTITIES, OTHER)],
    jobs=[dg.define_asset_job("export")],
    executor=dg.in_process_executor,
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def plan(
    instance: dg.DagsterInstance, *names: str, root: str | None = None, fails: str = "", tags: Any = None
) -> dg.DagsterRun:
    """A run of these assets, or their re-execution in the export of `root`, that has not begun."""
    group = {"dagster/root_run_id": root, "dagster/parent_run_id": root} if root else {}
    return instance.create_run_for_job(
        job_of(*names),
        root_run_id=root,
        parent_run_id=root,
        tags={**(tags or {}), **group, "fails": fails},
        asset_selection=frozenset(dg.AssetKey(name) for name in names),
    )


def run(instance: dg.DagsterInstance, *names: str, **options: Any) -> str:
    planned = plan(instance, *names, **options)
    execute_run(InMemoryJob(job_of(*names)), planned, instance, raise_on_error=False)
    return planned.run_id


def whole_export(instance: dg.DagsterInstance, *, rows: int) -> str:
    """The id of an export of meters, whose manifest says that there are so many."""

    @dg.asset
    def meter(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=as_metadata(changed(METERS, export=context.run.run_id)))

    @dg.asset(name=MANIFEST, deps=[meter])
    def manifest(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        whole = changed(WHOLE, export=context.run.run_id, entities={"meter": Part(rows)})
        return dg.MaterializeResult(metadata=as_metadata(whole))

    return dg.materialize([meter, manifest], instance=instance).run_id


def job_of(*names: str) -> dg.JobDefinition:
    return DEFINITIONS.resolve_job_def("export").get_subset(asset_selection={dg.AssetKey(name) for name in names})


def jobs(instance: dg.DagsterInstance, **filters: Any) -> list[ExportJob]:
    return read_export_jobs(instance, **{"limit": 100, **filters})


def test_an_export_of_a_schedule(instance: dg.DagsterInstance) -> None:
    id = run(instance, *ENTITIES, tags=FINANCE)
    (job,) = jobs(instance)
    assert (job.id, job.schedule, job.status) == (id, "finance", "SUCCEEDED")
    assert job.due == datetime(2024, 6, 6, 10, tzinfo=UTC)
    assert (job.delivered, job.failed) == (ENTITIES, ())
    assert job.started
    assert job.finished
    assert job.started <= job.finished <= datetime.now(UTC)
    assert last_export(instance, "finance") == job
    assert last_export(instance, "nightly") is None


def test_an_export_that_a_person_starts_has_neither_schedule_nor_due_time(instance: dg.DagsterInstance) -> None:
    run(instance, "bill")
    (job,) = jobs(instance)
    assert (job.schedule, job.due, job.delivered) == (None, None, ("bill",))


def test_a_run_that_exports_nothing_is_no_export_job(instance: dg.DagsterInstance) -> None:
    run(instance, OTHER)
    run(instance, OTHER, "bill")
    assert [job.delivered for job in jobs(instance)] == [("bill",)]


def test_what_is_planned_is_pending_and_owes_nothing_yet(instance: dg.DagsterInstance) -> None:
    plan(instance, *ENTITIES)
    (job,) = jobs(instance)
    assert (job.status, job.delivered, job.failed, job.started, job.finished) == ("PENDING", (), (), None, None)


def test_what_is_cancelled_owes_everything(instance: dg.DagsterInstance) -> None:
    instance.report_run_canceled(plan(instance, *ENTITIES))
    (job,) = jobs(instance)
    assert (job.status, job.delivered, job.failed) == ("FAILED", (), ENTITIES)


def test_an_export_that_is_being_completed_is_pending_again(instance: dg.DagsterInstance) -> None:
    id = run(instance, *ENTITIES, fails="bill")
    assert [(job.status, job.delivered, job.failed) for job in jobs(instance)] == [("FAILED", ("account",), ("bill",))]
    plan(instance, "bill", root=id)
    assert [(job.status, job.delivered, job.failed) for job in jobs(instance)] == [("PENDING", ("account",), ())]


def test_what_any_run_delivered_is_delivered(instance: dg.DagsterInstance) -> None:
    id = run(instance, *ENTITIES, fails="bill")
    run(instance, "bill", root=id)
    (job,) = jobs(instance)
    assert (job.id, job.status, job.delivered, job.failed) == (id, "SUCCEEDED", ENTITIES, ())


def test_a_last_run_of_something_else_does_not_make_an_export_whole(instance: dg.DagsterInstance) -> None:
    id = run(instance, *ENTITIES, fails="bill")
    run(instance, "account", root=id)
    (job,) = jobs(instance)
    assert (job.status, job.delivered, job.failed) == ("FAILED", ("account",), ("bill",))


def test_an_export_whose_first_run_was_deleted_is_still_one(instance: dg.DagsterInstance) -> None:
    id = run(instance, *ENTITIES, fails="bill")
    run(instance, "bill", root=id)
    run(instance, "bill", root=id)
    instance.delete_run(id)
    assert [(job.id, job.delivered) for job in jobs(instance)] == [(id, ("bill",))]


def test_the_export_that_ran_last_is_first(instance: dg.DagsterInstance) -> None:
    first, second = run(instance, *ENTITIES, fails="bill"), run(instance, "account", tags=FINANCE)
    assert [job.id for job in jobs(instance)] == [second, first]
    run(instance, "bill", root=first)
    assert [job.id for job in jobs(instance)] == [first, second]
    assert [job.id for job in jobs(instance, limit=1)] == [first]
    assert [job.id for job in jobs(instance, schedule="finance")] == [second]
    assert jobs(instance, status="FAILED") == []


def test_exports_of_another_organization_are_passed_over_and_counted(instance: dg.DagsterInstance) -> None:
    older = run(instance, "bill", tags=FINANCE)
    mine, _ = (run(instance, "bill", tags=FINANCE | {ORGANIZATION_TAG: one}) for one in ("org-1", "org-2"))
    assert [job.id for job in jobs(instance, org_id="org-1")] == [mine, older]
    found = last_export(instance, "finance", "org-1")
    assert found
    assert found.id == mine
    assert [runs_of_others(instance, one) for one in ("org-1", "org-2", "org-3", None)] == [1, 1, 2, 0]


def test_a_long_history_is_read_to_its_end(instance: dg.DagsterInstance) -> None:
    oldest = run(instance, "bill")
    for _ in range(60):
        plan(instance, "account")
    assert [job.id for job in jobs(instance, status="SUCCEEDED")] == [oldest]


def test_the_error_is_the_first_failure_of_the_last_run_that_failed(instance: dg.DagsterInstance) -> None:
    first = run(instance, *ENTITIES, fails="account,bill")
    assert [job.error for job in jobs(instance)] == ["account: not today"]
    run(instance, "bill", root=first, fails="bill")
    assert [job.error for job in jobs(instance)] == ["bill: not today"]
    run(instance, *ENTITIES, root=first)
    assert [(job.status, job.error) for job in jobs(instance)] == [("SUCCEEDED", "")]


def test_an_export_that_was_canceled_says_so(instance: dg.DagsterInstance) -> None:
    instance.report_run_canceled(plan(instance, "bill"), "Nobody needs it.")
    assert [(job.error, job.destinations) for job in jobs(instance)] == [("Nobody needs it.", ())]
