"""Export Schedules from the terminal, after exports that really ran: what they delivered, and what the commands say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from processes import PROJECT, plain_environment

from m3ter_dagster.cli import main
from m3ter_dagster.config import load_exports
from m3ter_dagster.definitions import definitions
from m3ter_dagster.history.jobs import ExportJob, last_export, read_export_jobs
from m3ter_dagster.history.log import runs_of
from m3ter_dagster.model.entities import operational_entities
from m3ter_dagster.schedules import export_request
from m3ter_sandbox import SampleOrganization, Sandbox, SandboxApi

SCHEDULES = """
schedules:
  - code: finance
    name: Finance
    operationalDataTypes: [ACCOUNTS, PRODUCTS]
    destinations: [warehouse]
    scheduleType: DAY
    period: 5
    dtCreated: 2024-06-01T10:00:00Z
  - code: cat.alog
    operationalDataTypes: [PRODUCTS, METERS]
    destinations: [archive]
    scheduleType: HOUR
    period: 3
    dtCreated: 2024-06-01T10:00:00Z
  - code: everywhere
    operationalDataTypes: [METERS]
    destinations: [warehouse, archive]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T23:30:00Z
  - code: everything
    operationalDataTypes: ALL
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T02:00:00Z
"""
BOTH = "warehouse, archive"
FINANCE_DUE = datetime(2024, 6, 6, 10, tzinfo=UTC)
CATALOG_DUE = datetime(2024, 6, 1, 19, tzinfo=UTC)
EVERYWHERE_DUE = datetime(2024, 6, 2, 23, 30, tzinfo=UTC)


@dataclass
class Exported:
    """The exports that ran, by schedule, and what the buckets then held."""

    environment: dict[str, str]
    instance: dg.DagsterInstance
    ids: dict[str, str] = field(default_factory=dict)
    after_failure: ExportJob | None = None
    objects: set[str] = field(default_factory=set)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=self.environment)

    def job(self, schedule: str) -> ExportJob:
        job = last_export(self.instance, schedule)
        assert job
        return job


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    home = tmp_path_factory.mktemp("dagster")
    shutil.copy(PROJECT / "dagster.yaml", home)
    with (
        Sandbox(accounts=2, folder=home, requests_per_second=None) as sandbox,
        SandboxApi(records_with_a_wrong_product(), requests_per_second=None) as wrong,
        pytest.MonkeyPatch.context() as monkeypatch,
        dg.DagsterInstance.from_config(str(home)) as instance,
    ):
        sandbox.exports.write_text(sandbox.exports.read_text() + SCHEDULES)
        environment = {**sandbox.environment, "DAGSTER_HOME": str(home), "M3TER_REQUESTS_PER_SECOND": "50"}
        for name in os.environ:
            if name.lower().endswith("_proxy"):
                monkeypatch.delenv(name)
        for name, value in {**environment, **wrong.environment}.items():
            monkeypatch.setenv(name, value)
        found = Exported(environment, instance)
        found.ids["finance"] = run_when_due("finance", FINANCE_DUE, instance)
        found.after_failure = found.job("finance")
        for name, value in sandbox.api.environment.items():
            monkeypatch.setenv(name, value)
        resumed = found.run("export", "--resume", found.ids["finance"])
        assert resumed.exit_code == 0, resumed.output
        found.ids["cat.alog"] = run_when_due("cat_alog", CATALOG_DUE, instance)
        found.ids["everywhere"] = run_when_due("everywhere", EVERYWHERE_DUE, instance)
        found.objects = {f"{bucket}/{key}" for bucket in sandbox.s3.buckets for key in sandbox.s3.objects(bucket)}
        yield found


def records_with_a_wrong_product() -> Iterator[tuple[str, dict[str, Any]]]:
    for entity, record in SampleOrganization(2).records():
        yield entity, {**record, "version": "newest"} if entity == "product" else record


def run_when_due(name: str, due: datetime, instance: dg.DagsterInstance) -> str:
    """The run that the schedule asks for at its due time."""
    (schedule,) = [one for one in load_exports().schedules if one.dagster_name == name]
    request = export_request(schedule, due)
    job = definitions().resolve_job_def(f"export_{name}")
    result = job.execute_in_process(
        instance=instance, run_config=request.run_config, tags=request.tags, raise_on_error=False
    )
    return result.run_id


def rows(result: Result) -> list[list[str]]:
    """The cells of a printed table, the header first."""
    assert result.exit_code == 0, result.output
    header, *lines = result.stdout.splitlines()
    starts = [found.start() for found in re.finditer(r"(?<!\S)\S+(?: \S+)*", header)]
    return [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in (header, *lines)]


def test_the_right_files_are_in_the_right_buckets_and_nothing_else(exported: Exported) -> None:
    organization = "orgId=5a7d0c0e-0000-4000-a000-000000000001"
    finance, catalog, everywhere = (exported.ids[code] for code in ("finance", "cat.alog", "everywhere"))
    warehouse, archive = f"sandbox-warehouse/m3ter/{organization}", f"sandbox-archive/{organization}"
    manifests = {
        f"{warehouse}/date=2024-06-06/hour=10/type=manifest/{finance}_",
        f"{archive}/type=manifest/date=2024-06-01/hour=19/{catalog}_",
        f"{warehouse}/date=2024-06-02/hour=23/type=manifest/{everywhere}_",
        f"{archive}/type=manifest/date=2024-06-02/hour=23/{everywhere}_",
    }
    beside_manifests = {
        one for one in exported.objects if one.endswith(".parquet") and one.startswith(tuple(manifests))
    }
    assert exported.objects - beside_manifests == {
        f"{warehouse}/date=2024-06-06/hour=10/type=account/{finance}_account.csv",
        f"{warehouse}/date=2024-06-06/hour=10/type=product/{finance}_product.csv",
        f"{archive}/type=product/date=2024-06-01/hour=19/{catalog}_product.csv",
        f"{archive}/type=meter/date=2024-06-01/hour=19/{catalog}_meter.csv",
        f"{warehouse}/date=2024-06-02/hour=23/type=meter/{everywhere}_meter.csv",
        f"{archive}/type=meter/date=2024-06-02/hour=23/{everywhere}_meter.csv",
    } | {f"{start}manifest.json" for start in manifests}


def test_an_export_that_failed_names_what_it_owes(exported: Exported) -> None:
    job = exported.after_failure
    assert job
    assert (job.status, job.delivered, job.failed) == ("FAILED", ("account",), ("product",))
    assert job.finished
    assert job.error.startswith("product is not exported because it breaks schemas/product.json: row ")


def test_a_run_that_completes_it_belongs_to_the_same_export(exported: Exported) -> None:
    job = exported.job("finance")
    assert (job.id, job.status) == (exported.ids["finance"], "SUCCEEDED")
    assert (job.delivered, job.failed) == (("account", "product"), ())
    assert job.due == FINANCE_DUE
    assert exported.after_failure
    assert job.started == exported.after_failure.started
    assert job.finished
    assert exported.after_failure.finished
    assert job.finished > exported.after_failure.finished


def test_jobs_lists_one_line_per_export_the_last_first(exported: Exported) -> None:
    header, *lines = rows(exported.run("jobs"))
    assert header == ["export", "schedule", "due or started (UTC)", "took", "status", "delivered", "rows", "to"]
    assert [[*line[:3], *line[4:]] for line in lines] == [
        [exported.ids["everywhere"][:8], "everywhere", "2024-06-02 23:30:00", "SUCCEEDED", "1", "10", BOTH],
        [exported.ids["cat.alog"][:8], "cat.alog", "2024-06-01 19:00:00", "SUCCEEDED", "2", "15", "archive"],
        [exported.ids["finance"][:8], "finance", "2024-06-06 10:00:00", "SUCCEEDED", "2", "7", "warehouse"],
    ]
    took = datetime.strptime(lines[-1][3], "%H:%M:%S").replace(tzinfo=UTC)
    seconds = exported.job("finance").seconds
    assert seconds
    assert 60 * took.minute + took.second == round(seconds)


def test_jobs_as_json_has_what_the_table_shows(exported: Exported) -> None:
    found = json.loads(exported.run("jobs", "--json").stdout)
    assert [one["id"] for one in found] == [exported.ids[code] for code in ("everywhere", "cat.alog", "finance")]
    assert [(one["rows"], one["destinations"]) for one in found] == [
        (10, ["warehouse", "archive"]),
        (15, ["archive"]),
        (7, ["warehouse"]),
    ]
    assert json.loads(exported.run("jobs", "--json", "--status", "FAILED").stdout) == []


def test_one_export_by_the_start_of_its_id_or_that_of_a_run_of_it(exported: Exported) -> None:
    id = exported.ids["finance"]
    resumed = next(one.dagster_run.run_id for one in runs_of(exported.instance, id) if one.dagster_run.run_id != id)
    for start in (id, id[:8], resumed[:8]):
        assert [line[0] for line in rows(exported.run("jobs", start))[1:]] == [id[:8]]
    unknown = exported.run("jobs", "nobody")
    assert (unknown.exit_code, unknown.stdout) == (2, "")
    assert unknown.stderr.endswith("Error: there is no run nobody; `m3ter-dagster jobs` lists the exports.\n")
    several = exported.run("export", "--resume", "")
    assert several.exit_code == 2
    assert re.search(r"Error: --resume: the ids of \d runs start with '' \(.*\); give more of it\.\n$", several.stderr)


def test_jobs_of_one_schedule_in_one_state(exported: Exported) -> None:
    assert [line[1] for line in rows(exported.run("jobs", "--schedule", "finance"))[1:]] == ["finance"]
    assert len(rows(exported.run("jobs", "--status", "succeeded"))) == 4
    assert len(rows(exported.run("jobs", "--limit", "2"))) == 3
    assert exported.run("jobs", "--status", "FAILED").stdout == "no such export jobs.\n"
    assert exported.run("jobs", "--schedule", "everything").stdout == "no such export jobs.\n"


def test_jobs_are_listed_by_the_million_and_no_more(exported: Exported) -> None:
    result = exported.run("jobs", "--limit", "9" * 20)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(f"'--limit': {'9' * 20} is not in the range 1<=x<=1000000.\n")


def test_jobs_of_an_unknown_schedule(exported: Exported) -> None:
    result = exported.run("jobs", "--schedule", "financ")
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "\nError: --schedule: there is no schedule 'financ'; known are cat.alog, everything, everywhere, finance.\n"
    )


def test_schedules_lists_them_with_their_last_export(exported: Exported) -> None:
    header, finance, catalog, _, everything = rows(exported.run("schedules"))
    assert header == ["schedule", "exports", "to", "how often", "state", "last export (UTC)", "next due (UTC)"]
    assert finance[:5] == ["finance", "account, product", "warehouse", "every 5 days since 2024-06-01 10:00 UTC", "on"]
    assert finance[5] == f"SUCCEEDED {exported.job('finance').finished:%Y-%m-%d %H:%M:%S}"
    assert catalog[3] == "every 3 hours since 2024-06-01 10:00 UTC"
    assert (everything[1], everything[5]) == ("ALL", "none yet")
    due = [datetime.fromisoformat(text).replace(tzinfo=UTC) for text in finance[6].split(", ")]
    assert [moment.time() for moment in due] == [FINANCE_DUE.time()] * 3
    assert all((moment - FINANCE_DUE).days % 5 == 0 for moment in due)
    assert due[0] > datetime.now(UTC)


def test_schedules_as_json_has_what_the_table_shows(exported: Exported) -> None:
    finance, *_, everything = json.loads(exported.run("schedules", "--json").stdout)
    assert (finance["schedule"], finance["exports"], finance["isOn"]) == ("finance", ["account", "product"], True)
    assert (finance["lastExport"]["id"], len(finance["nextDue"])) == (exported.ids["finance"], 3)
    assert (everything["lastExport"], len(everything["exports"])) == (None, len(operational_entities()))


def test_a_schedule_that_is_toggled_off_shows_it(exported: Exported) -> None:
    toggle = [sys.executable, "-m", "dagster", "schedule", "stop", "cat_alog", "--workspace", "workspace.yaml"]
    environment = {**plain_environment(), **exported.environment}
    subprocess.run(toggle, cwd=PROJECT, env=environment, check=True, capture_output=True)
    lines = {line[0]: line[4:] for line in rows(exported.run("schedules"))[1:]}
    assert (lines["cat.alog"][0], lines["cat.alog"][2]) == ("off", "none while off")
    assert lines["finance"][0] == "on"


def test_a_run_that_waits_is_pending(exported: Exported) -> None:
    job = definitions().resolve_job_def("export_everything")
    run = exported.instance.create_run_for_job(job, status=dg.DagsterRunStatus.NOT_STARTED, tags=dict(job.tags))
    (found,) = read_export_jobs(exported.instance, status="PENDING", limit=5)
    assert (found.id, found.schedule, found.due, found.started, found.failed) == (
        run.run_id,
        "everything",
        *[None] * 2,
        (),
    )
    exported.instance.report_run_canceled(run)
    (found,) = read_export_jobs(exported.instance, status="FAILED", limit=5)
    assert (found.id, found.delivered, len(found.failed)) == (run.run_id, (), len(operational_entities()))
    exported.instance.delete_run(run.run_id)


def test_export_runs_a_schedule_now(exported: Exported) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    result = exported.run("export", "--schedule", "everywhere")
    assert result.exit_code == 0, result.output
    job = exported.job("everywhere")
    assert job.id != exported.ids["everywhere"]
    assert (job.status, job.delivered) == ("SUCCEEDED", ("meter",))
    assert job.due
    assert job.due >= before
    run = exported.instance.get_run_by_id(job.id)
    assert run
    assert run.tags["m3ter/destinations"] == "warehouse,archive"
    assert f"hour={job.due:%H}/type=meter/{job.id}_meter.csv" in result.stdout
    assert f"type=meter/date={job.due:%Y-%m-%d}/hour={job.due:%H}/{job.id}_meter.csv" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--schedule", "nightly"],
            "--schedule: there is no schedule 'nightly'; known are cat.alog, everything, everywhere, finance.\n",
        ),
        (
            ["--schedule", "finance", "--entities", "BILLS"],
            "--schedule brings its own entities and destinations; leave out --entities and --destinations.\n",
        ),
        (
            ["--schedule", "finance", "--destinations", "archive"],
            "--schedule brings its own entities and destinations; leave out --entities and --destinations.\n",
        ),
    ],
)
def test_export_of_a_schedule_used_wrongly(exported: Exported, arguments: list[str], message: str) -> None:
    result = exported.run("export", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: main export [OPTIONS]\n")
    assert result.stderr.endswith(f"\nError: {message}")


def test_without_schedules_and_without_exports(tmp_path: Path) -> None:
    exports = tmp_path / "exports.yaml"
    exports.write_text("destinations:\n  - {code: warehouse, bucketName: acme-exports}\n")
    environment = {"M3TER_EXPORTS": str(exports), "DAGSTER_HOME": str(tmp_path)}
    runner = CliRunner()
    assert runner.invoke(main, ["schedules"], env=environment).stdout == "exports.yaml has no schedules.\n"
    assert runner.invoke(main, ["jobs"], env=environment).stdout == "no export jobs yet.\n"
    unknown = runner.invoke(main, ["export", "--schedule", "finance"], env=environment)
    assert unknown.exit_code == 2
    assert unknown.stderr.endswith(
        "\nError: --schedule: there is no schedule 'finance'; exports.yaml has no schedules.\n"
    )


def test_mistakes_in_exports_yaml_are_the_load_error_of_the_code_location(tmp_path: Path) -> None:
    """Dagster shows it on the location, in the words of the terminal."""
    exports = tmp_path / "exports.yaml"
    exports.write_text(
        "destinations:\n  - {code: warehouse, bucketName: acme-exports}\n" + SCHEDULES.replace("[archive]", "[archiv]")
    )
    environment = {**plain_environment(), "M3TER_EXPORTS": str(exports), "DAGSTER_HOME": str(tmp_path)}
    checked = CliRunner().invoke(main, ["check", "--without-environment"], env=environment)
    validated = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    mistakes = checked.stderr.removeprefix("Error: ").splitlines()
    assert mistakes[0] == (f"{exports}:14: schedule 'cat.alog' names the destination 'archiv'; known are warehouse.")
    assert validated.returncode != 0
    output = validated.stdout + validated.stderr
    assert [mistake for mistake in mistakes if mistake not in output] == []
