"""What Dagster retries from failure, decided by real runs and carried out by the function of Dagster's daemon."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest
import werkzeug.exceptions as http
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from unreachable import unreachable_workspace

from m3ter_dagster.definitions import definitions
from m3ter_dagster.history.jobs import last_export
from m3ter_dagster.history.log import DUE_TAG, EXPORT_TAG, ROOT_TAG, SCHEDULE_TAG, root_id
from m3ter_dagster.history.retries import (
    MAX_RETRIES_TAG,
    MOST_REQUESTS,
    MOST_RETRIES,
    NOT_RETRIED,
    RETRIED_ONCE,
    will_be_retried,
)
from m3ter_dagster.resources import io_manager
from m3ter_dagster.runs import job_named, resume
from m3ter_sandbox import SampleOrganization, SandboxApi, SandboxS3

SETTINGS = Path(__file__).parents[1] / "dagster.yaml"
IN_THIS_PROCESS = """
run_launcher:
  module: dagster._core.launcher.sync_in_memory_run_launcher
  class: SyncInMemoryRunLauncher
"""
ORIGIN = InProcessCodeLocationOrigin(
    LoadableTargetOrigin(module_name="m3ter_dagster.definitions"), location_name="m3ter_dagster"
)
BUCKET = "retried-exports"
DUE = "2024-06-06T10:00:00+00:00"
TAGS = {SCHEDULE_TAG: "finance", DUE_TAG: DUE}
OUTAGE, FORBIDDEN = http.ServiceUnavailable(), http.Forbidden()
QUEUED, FAILURE, SUCCESS = dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
NO_LOGIN, NO_LOGIN_NOW = "", "[default]\ncredential_process = false\n"
"""AWS config without credentials, and with some that cannot be fetched now, which botocore tries once."""
pytestmark = [
    pytest.mark.usefixtures("no_aws_settings", "no_proxy"),
    # Dagster reads it itself when it loads a code location in this process.
    pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars` is deprecated"),
]


@dataclass
class Service:
    """The project as Dagster's daemon runs it, all in this process."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext
    s3: SandboxS3
    answers: dict[str, http.HTTPException]
    """What m3ter answers instead of the lists at these paths."""

    def export(self, **tags: str) -> dg.DagsterRun:
        """A run of the schedule, launched and ended."""
        return self.launch(self.requested(**tags).run_id)

    def requested(self, **tags: str) -> dg.DagsterRun:
        """A run of the schedule that is not launched yet."""
        location = self.workspace.create_request_context().get_code_location("m3ter_dagster")
        job = location.get_repository("__repository__").get_full_job("export_finance")
        return self.instance.create_run_for_job(
            definitions().resolve_job_def("export_finance"),
            tags=TAGS | RETRIED_ONCE | tags,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
        )

    def launch(self, run_id: str) -> dg.DagsterRun:
        self.instance.launch_run(run_id, self.workspace.create_request_context())
        return self.run(run_id)

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found
        return found

    def retry(self, workspace: WorkspaceProcessContext | None = None) -> dg.DagsterRun | None:
        """The run that the daemon launches when it looks at all that failed, as it waits in the queue."""
        failed, log = self.instance.get_run_records(dg.RunsFilter(statuses=[FAILURE])), logging.getLogger(__name__)
        for _ in consume_new_runs_for_automatic_reexecution(workspace or self.workspace, failed, log):
            pass
        (waiting,) = self.instance.get_runs(dg.RunsFilter(statuses=[QUEUED])) or (None,)
        return waiting

    def dequeued(self) -> list[str]:
        limits = self.instance.get_concurrency_config()
        daemon = QueuedRunCoordinatorDaemon(interval_seconds=5)
        return [run.run_id for run in daemon._get_runs_to_dequeue(self.instance, limits, None)]

    def look(self) -> None:
        """Of the sensor that asks for retries."""
        with dg.build_sensor_context(self.instance, definitions=definitions()) as context:
            definitions().resolve_sensor_def("stuck_exports").evaluate_tick(context)

    def delivered(self) -> set[str]:
        return {key.rsplit("/", 1)[1] for key in self.s3.objects(BUCKET)}


@pytest.fixture(scope="module")
def only_service(tmp_path_factory: pytest.TempPathFactory, s3: SandboxS3) -> Iterator[Service]:
    """One for all tests: Dagster loads a module's definitions once in a process."""
    home = tmp_path_factory.mktemp("home")
    s3.client().create_bucket(Bucket=BUCKET)
    (home / "dagster.yaml").write_text(SETTINGS.read_text() + IN_THIS_PROCESS)
    (home / "exports.yaml").write_text(exports_yaml(s3.endpoint_url))
    answers: dict[str, http.HTTPException] = {}

    def answer(path: str, query: str) -> None:  # noqa: ARG001
        if path in answers:
            raise answers[path]

    with pytest.MonkeyPatch.context() as monkeypatch:
        api = SandboxApi(SampleOrganization(2).records(), requests_per_second=None)
        api.before_answer = answer
        own = {"M3TER_EXPORTS": str(home / "exports.yaml"), "M3TER_PATIENCE_SECONDS": "0"}
        for name, value in {**api.environment, **own}.items():
            monkeypatch.setenv(name, value)
        with (
            api,
            dg.DagsterInstance.from_config(str(home)) as instance,
            WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(ORIGIN)) as workspace,
        ):
            yield Service(instance, workspace, s3, answers)


@pytest.fixture
def service(only_service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """All is well, and nothing was exported."""
    for name, value in only_service.s3.environment.items():
        monkeypatch.setenv(name, value)
    only_service.answers.clear()
    only_service.instance.wipe()
    return only_service


@pytest.fixture
def down(service: Service) -> Iterator[WorkspaceProcessContext]:
    """What the daemon sees while the code server is restarted."""
    with unreachable_workspace(service.instance) as workspace:
        yield workspace


def exports_yaml(endpoint: str) -> str:
    finance = {"code": "finance", "operationalDataTypes": ["ACCOUNTS", "PRODUCTS"], "destinations": ["warehouse"]}
    cadence = {"scheduleType": "DAY", "period": 1, "dtCreated": DUE}
    destination = {"code": "warehouse", "bucketName": BUCKET, "endpointUrl": endpoint}
    return json.dumps({"destinations": [destination], "schedules": [finance | cadence]})


def test_an_export_that_an_outage_ended_is_completed_by_a_retry(service: Service) -> None:
    service.answers["/products"] = OUTAGE
    failed = service.export()
    assert (failed.status, will_be_retried(failed)) == (FAILURE, True)
    retry = service.retry()
    assert retry
    assert retry.step_keys_to_execute == ["product", "export_manifest"]
    assert {name: retry.tags[name] for name in TAGS} == TAGS
    # It cannot be launched a second time before it says so itself.
    assert (retry.tags[ROOT_TAG], retry.tags[MAX_RETRIES_TAG]) == (failed.run_id, "1")
    assert service.dequeued() == [retry.run_id]
    waiting = last_export(service.instance, "finance")
    assert waiting
    assert (waiting.id, waiting.status, waiting.delivered) == (failed.run_id, "PENDING", ("account",))
    service.answers.clear()
    assert service.launch(retry.run_id).status == SUCCESS
    assert {f"{failed.run_id}_{type}" for type in ("account.csv", "product.csv", "manifest.json")} < service.delivered()
    complete = last_export(service.instance, "finance")
    assert complete
    assert (complete.id, complete.status, complete.failed) == (failed.run_id, "SUCCEEDED", ())
    assert service.retry() is None


def test_an_outage_that_lasts_is_retried_three_times(service: Service) -> None:
    service.answers["/products"] = OUTAGE
    service.export()
    for number in range(1, MOST_RETRIES + 1):
        retry = service.retry()
        assert retry
        assert retry.tags["dagster/retry_number"] == str(number)
        ended = service.launch(retry.run_id)
        assert will_be_retried(ended) == (number < MOST_RETRIES)
    assert service.retry() is None
    last = last_export(service.instance, "finance")
    assert last
    assert (last.status, last.failed) == ("FAILED", ("product",))


def test_what_a_person_must_correct_is_not_retried(service: Service) -> None:
    service.answers["/products"] = FORBIDDEN
    failed = service.export()
    assert (failed.status, will_be_retried(failed)) == (FAILURE, False)
    assert service.retry() is None


def test_a_retry_in_which_only_what_a_person_must_correct_is_left_is_the_last(service: Service) -> None:
    service.answers |= {"/products": FORBIDDEN, "/accounts": OUTAGE}
    service.export()
    del service.answers["/accounts"]
    retry = service.retry()
    assert retry
    ended = service.launch(retry.run_id)
    assert (ended.status, will_be_retried(ended)) == (FAILURE, False)


@pytest.mark.parametrize(("login", "is_retried"), [(NO_LOGIN_NOW, True), (NO_LOGIN, False)], ids=["passes", "stays"])
def test_a_store_that_does_not_take_a_file_is_tried_again_unless_it_never_will(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, login: str, *, is_retried: bool
) -> None:
    monkeypatch.setattr(io_manager, "RETRY_AFTER_SECONDS", 0)
    (tmp_path / "aws").write_text(login)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "aws"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    failed = service.export()
    assert (failed.status, will_be_retried(failed)) == (FAILURE, is_retried)
    assert bool(service.retry()) == is_retried


def test_a_run_whose_process_died_is_retried(service: Service) -> None:
    """Who ends it does not matter: the sensor stuck_exports, Dagster's monitoring or the server that started it."""
    dead = dead_run(service)
    service.instance.report_run_failed(dead, "died")
    assert will_be_retried(service.run(dead.run_id))


def test_so_is_one_whose_process_died_before_it_began(service: Service) -> None:
    run = service.requested()
    service.instance.report_run_failed(run, "not started within ten minutes")
    retry = service.retry()
    assert retry
    assert service.launch(retry.run_id).status == SUCCESS
    assert {key.split("_")[0] for key in service.delivered()} >= {run.run_id}


def test_a_dead_run_that_a_person_completes_in_a_terminal_is_not_retried_beside_that(service: Service) -> None:
    dead = dead_run(service)
    service.answers.clear()
    assert resume(service.instance, dead.run_id, abandoned=True, changed=lambda *_: None).is_complete
    assert (service.run(dead.run_id).status, service.retry()) == (FAILURE, None)


def test_a_retry_for_which_the_code_server_was_down_is_launched_once_it_is_back(
    service: Service, down: WorkspaceProcessContext
) -> None:
    service.answers["/products"] = OUTAGE
    failed = service.export()
    assert service.retry(down) is None
    assert not will_be_retried(service.run(failed.run_id))
    service.look()
    retry = service.retry()
    assert retry
    assert (retry.parent_run_id, retry.step_keys_to_execute) == (failed.run_id, ["product", "export_manifest"])
    service.look()
    assert service.retry() == retry
    service.answers.clear()
    assert service.launch(retry.run_id).status == SUCCESS
    service.look()
    assert service.retry() is None


def test_unless_a_person_has_re_executed_the_export_meanwhile(service: Service, down: WorkspaceProcessContext) -> None:
    service.answers["/products"] = OUTAGE
    failed = service.export()
    assert service.retry(down) is None
    again = dg.DagsterRun(job_name=failed.job_name, status=SUCCESS, tags={ROOT_TAG: failed.run_id})
    service.instance.add_run(again)
    service.look()
    assert not will_be_retried(service.run(failed.run_id))


def test_so_is_one_after_a_retry_that_could_not_be_taken_from_the_queue(
    service: Service, down: WorkspaceProcessContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.answers["/products"] = OUTAGE
    service.export()
    first = service.retry()
    assert first
    launcher = DefaultRunLauncher()
    launcher.register_instance(service.instance)
    with monkeypatch.context() as as_usual:
        as_usual.setattr(service.instance, "_run_launcher", launcher)
        for _ in QueuedRunCoordinatorDaemon(interval_seconds=5).run_iteration(down):
            pass
    assert (service.run(first.run_id).status, service.retry()) == (FAILURE, None)
    service.look()
    second = service.retry()
    assert second
    assert second.parent_run_id == first.run_id


def test_a_retry_that_cannot_be_launched_is_asked_for_some_times_and_then_told(
    service: Service, down: WorkspaceProcessContext
) -> None:
    service.answers["/products"] = OUTAGE
    failed = service.export()
    for _ in range(MOST_REQUESTS + 3):
        assert service.retry(down) is None
        service.look()
    events = [entry.dagster_event for entry in service.instance.all_logs(failed.run_id)]
    said = [event.message for event in events if event and event.event_type == dg.DagsterEventType.RUN_FAILURE]
    assert (len(said), said[-1]) == (1 + MOST_REQUESTS + 1, NOT_RETRIED.format(failed.run_id))
    assert service.retry() is None


def dead_run(service: Service) -> dg.DagsterRun:
    """One of the daemon that has delivered nothing."""
    service.answers["/products"] = FORBIDDEN
    failed = service.export()
    return service.instance.add_run(
        failed._replace(run_id=f"{failed.run_id[:-4]}dead", status=dg.DagsterRunStatus.STARTED, tags=kept(failed))
    )


def kept(run: dg.DagsterRun) -> dict[str, str]:
    """The tags that a run has until it ends."""
    names = (*TAGS, MAX_RETRIES_TAG, "dagster/retry_on_asset_or_op_failure")
    return {name: run.tags[name] for name in names}


def test_what_dagster_does_not_know_as_a_re_execution_is_retried_as_part_of_its_export(service: Service) -> None:
    """As a manifest that was made afterwards."""
    root = service.export()
    service.answers["/products"] = OUTAGE
    failed = service.export(**{ROOT_TAG: root.run_id, EXPORT_TAG: root.run_id})
    assert (failed.status, will_be_retried(failed), failed.tags[MAX_RETRIES_TAG]) == (FAILURE, True, "1")
    retry = service.retry()
    assert retry
    assert root_id(retry) == root.run_id


def test_a_run_of_a_terminal_is_not_retried(service: Service) -> None:
    service.answers["/products"] = OUTAGE
    with dg.execute_job(job_named("export_finance"), service.instance) as result:
        failed = service.run(result.run_id)
    assert failed.status == FAILURE
    assert MAX_RETRIES_TAG not in failed.tags
    assert service.retry() is None
