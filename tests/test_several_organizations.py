"""Several Organizations in one exports.yaml: each exported by itself, from Dagster and from a terminal."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner, Result
from dagster._core.scheduler.instigation import InstigatorStatus
from many_exports import set_began
from receiver import Receiver
from toggles import switch

from m3ter_dagster.cli import main
from m3ter_dagster.config import ConfigError, Exports, UsageSchedule, load_exports, load_settings, parse_exports
from m3ter_dagster.definitions import build_definitions, definitions
from m3ter_dagster.history.jobs import read_export_jobs
from m3ter_dagster.history.log import MANIFEST, deliveries_of, previous_export
from m3ter_dagster.names import Names
from m3ter_dagster.runs import usage_run
from m3ter_dagster.translation import DagsterM3terTranslator, M3terAsset
from m3ter_sandbox import SandboxApi

EXPORTS = """\
destinations:
  - {code: folder, destinationType: LOCAL, path: "${FOLDER}"}
organizations:
  - code: production
    orgId: org-prod
    apiKey: ${PRODUCTION_KEY}
    apiSecretFile: ${PRODUCTION_SECRET_FILE}
    baseUrl: ${PRODUCTION_URL}
    requestsPerSecond: 50
  - code: sandbox
    orgId: org-sand
    apiKey: ${SANDBOX_KEY}
    apiSecret: ${SANDBOX_SECRET}
    baseUrl: ${SANDBOX_URL}
schedules:
  - code: nightly
    operationalDataTypes: [ACCOUNTS]
    organizations: [production, sandbox]
    destinations: [folder]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T10:00:00Z
  - code: pricing
    operationalDataTypes: [PRODUCTS]
    organizations: [sandbox]
    destinations: [folder]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T10:00:00Z
notifications: {webhookUrl: "${WEBHOOK}"}
keepHistory: 90d
"""
ACCOUNTS = {"production": ("acme", "globex"), "sandbox": ("test",)}
DUE = datetime(2024, 6, 6, 10, tzinfo=UTC)
CREATED = "2026-01-01T00:00:00.000Z"


def record(id: str) -> dict[str, Any]:
    return {"id": id, "version": 1, "name": f"{id} Ltd", "dtCreated": CREATED}


@dataclass
class House:
    """What one exports.yaml exports of two Organizations."""

    folder: Path
    apis: dict[str, SandboxApi]
    instance: dg.DagsterInstance
    receiver: Receiver

    @property
    def exports_yaml(self) -> Path:
        return self.folder / "exports.yaml"

    def run(self, *arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(main, arguments, input=input)

    def export(self, job: str, **how: Any) -> dg.ExecuteInProcessResult:
        return definitions().resolve_job_def(job).execute_in_process(instance=self.instance, **how)

    def files(self, code: str, export_id: str) -> dict[str, Path]:
        there = (self.folder / "files").glob(f"orgId={self.apis[code].organization_id}/**/{export_id}_*")
        return {file.name.removeprefix(f"{export_id}_"): file for file in there}

    def accounts(self, code: str, export_id: str) -> list[dict[str, str]]:
        """The rows by id, each with the cells that are not empty."""
        with self.files(code, export_id)["account.csv"].open(newline="") as file:
            rows = [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(file)]
        return sorted(rows, key=lambda row: ("acme", "globex", "test", "new").index(row["id"]))


@pytest.fixture
def house(instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    (tmp_path / "files").mkdir()
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver())

        def api(code: str, org_id: str) -> SandboxApi:
            records = [("account", record(one)) for one in ACCOUNTS[code]]
            access = {"key": f"key-of-{code}", "secret": f"secret-of-{code}"}
            return stack.enter_context(SandboxApi(records, organization_id=org_id, **access))

        apis = {"production": api("production", "org-prod"), "sandbox": api("sandbox", "org-sand")}
        for code, one in apis.items():
            monkeypatch.setenv(f"{code.upper()}_KEY", one.key)
            monkeypatch.setenv(f"{code.upper()}_SECRET", one.secret)
            monkeypatch.setenv(f"{code.upper()}_URL", one.base_url)
        secret = tmp_path / "secret"
        secret.write_text(f"{apis['production'].secret}\n")
        monkeypatch.setenv("PRODUCTION_SECRET_FILE", str(secret))
        monkeypatch.setenv("FOLDER", str(tmp_path / "files"))
        monkeypatch.setenv("WEBHOOK", receiver.url)
        # That of the environment is none of these.
        monkeypatch.setenv("M3TER_API_SECRET", "another")
        (tmp_path / "exports.yaml").write_text(EXPORTS)
        monkeypatch.chdir(tmp_path)
        yield House(tmp_path, apis, instance, receiver)


@pytest.mark.usefixtures("house")
def test_each_has_what_one_alone_has() -> None:
    found = definitions().resolve_all_job_defs(), definitions().resolve_all_asset_keys()
    jobs = {job.name for job in found[0]}
    assert {f"{code}__{job}" for code in ACCOUNTS for job in ("export", "export_nightly", "prune_history")} <= jobs
    assert "sandbox__export_pricing" in jobs
    assert "production__export_pricing" not in jobs
    assert {key.path[0] for key in found[1]} == {"production", "sandbox"}
    repository = definitions().get_repository_def()
    assert {one.name for one in repository.schedule_defs} == {
        *("production__nightly", "production__prune_history"),
        *("sandbox__nightly", "sandbox__pricing", "sandbox__prune_history"),
    }
    # There is one exports.yaml, so there is one alarm of it.
    each = ("due_exports", "failed_exports", "late_exports", "missing_manifests", "stuck_exports")
    assert sorted(one.name for one in repository.sensor_defs) == sorted(
        ["broken_configuration", *(f"{code}__{name}" for code in ACCOUNTS for name in each)]
    )
    dg.Definitions.validate_loadable(definitions())


@pytest.mark.usefixtures("house")
def test_what_has_not_changed_is_built_once_without_access_for_the_environment_s_own_organization(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert definitions() is definitions()
    monkeypatch.setenv("SANDBOX_KEY", "another")
    changed = definitions()
    monkeypatch.setenv("M3TER_LEAST_FREE_MB", "1")
    assert definitions() is not changed


def test_both_are_exported_by_jobs_and_by_run_requests(house: House) -> None:
    by_hand = {code: house.export(f"{code}__export", asset_selection=assets(code)).run_id for code in ACCOUNTS}
    house.apis["production"].records.insert("account", record("new"))
    scheduled: dict[str, list[str]] = {code: [] for code in ACCOUNTS}
    for code in (*ACCOUNTS, *ACCOUNTS):
        request = due_request(house, code)
        done = house.export(request.job_name, run_config=request.run_config, tags=request.tags)
        scheduled[code].append(done.run_id)

    for code, accounts in ACCOUNTS.items():
        org_id, names = house.apis[code].organization_id, Names((code,))
        new = ["new"] if code == "production" else []
        cells = [{**record(one), "version": "1", "deleted": "false"} for one in (*accounts, *new)]
        first, second = scheduled[code]
        assert house.accounts(code, by_hand[code]) == cells[: len(accounts)]
        assert house.accounts(code, second) == cells
        manifest = json.loads(house.files(code, second)["manifest.json"].read_text())
        assert [one["m3ter:type"] for one in manifest["resources"]] == ["account"]
        assert all(f"orgId={org_id}/" in one["path"] for one in manifest["resources"])

        # Each is compared with its own exports by the same schedule.
        assert "notCompared" in dict(deliveries_of(house.instance, first, names=names)["account"].difference)
        found = dict(deliveries_of(house.instance, second, names=names)["account"].difference)
        assert (found["previous"], found["added"], found["removed"]) == (first, 0, 0)
        before = previous_export(house.instance, org_id=org_id, schedule="nightly", export_id="x", names=names)
        assert before
        assert before.export == second
        jobs = read_export_jobs(house.instance, org_id=org_id, limit=9, names=names)
        assert [job.id for job in jobs] == [second, first, by_hand[code]]

        # Each is asked for its own alone, at its own pace.
        asked = house.apis[code].requests
        assert {one.path.split("/")[2] for one in asked if one.path != "/oauth/token"} == {org_id}
        assert {one.status for one in asked} == {200}
    assert len(list((house.folder / "dagster" / "m3ter-pace").iterdir())) == 2
    assert len(list((house.folder / "files").iterdir())) == 2


def assets(code: str, *names: str) -> list[dg.AssetKey]:
    return [dg.AssetKey([code, name]) for name in (*(names or ("account",)), MANIFEST)]


def due_request(house: House, code: str) -> Any:
    """What the schedule launches, as the daemon does it."""
    schedule = definitions().resolve_schedule_def(f"{code}__nightly")
    with dg.build_schedule_context(house.instance, DUE) as context:
        skipped = schedule.evaluate_tick(context)
    assert "makes up" in str(skipped.skip_message)
    sensor = definitions().resolve_sensor_def(f"{code}__due_exports")
    with dg.build_sensor_context(house.instance, definitions=definitions()) as context:
        requests = sensor.evaluate_tick(context).run_requests
    names = {"production": ["nightly"], "sandbox": ["nightly", "pricing"]}[code]
    assert [one.job_name for one in requests] == [f"{code}__export_{name}" for name in names]
    assert requests[0].tags["m3ter/schedule"] == f"{code}/nightly"
    return requests[0]


@pytest.mark.usefixtures("house")
def test_each_has_its_own_access_and_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3TER_API_KEY_FILE", "/nowhere")
    exports = load_exports()
    settings = load_settings(organizations=exports.organizations)
    found = [settings.of(one.code).connection() for one in exports.organizations]
    assert [one.requests_per_second for one in found] == [50, 40]
    assert [one.api_secret.get_secret_value() for one in found] == ["secret-of-production", "secret-of-sandbox"]
    assert "secret-of" not in f"{settings} {exports!r} {exports}"


def test_a_wrong_credential_of_one_stops_nothing_of_the_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_SECRET", "a-wrong-one")
    job = definitions().resolve_implicit_global_asset_job_def()
    selection = [*assets("production"), *assets("sandbox")]
    both = job.execute_in_process(instance=house.instance, asset_selection=selection, raise_on_error=False)
    assert not both.success
    assert {event.step_key for event in both.get_step_failure_events()} == {"sandbox__account"}
    assert house.files("production", both.run_id).keys() >= {"account.csv", "manifest.json"}
    assert house.files("sandbox", both.run_id) == {}

    # A file that is not there is missing when it is needed, too.
    (house.folder / "secret").unlink()
    monkeypatch.setenv("SANDBOX_SECRET", house.apis["sandbox"].secret)
    assert house.export("sandbox__export", asset_selection=assets("sandbox")).success
    refused = house.run("check", "--organization", "production")
    assert refused.exit_code == 2
    assert refused.stderr.strip() == (
        f"Error: exports.yaml: organization 'production' has the apiSecretFile '{house.folder / 'secret'}', which "
        "cannot be read: No such file or directory."
    )


def test_a_broken_file_stops_neither_and_is_told_once(house: House) -> None:
    definitions()
    house.exports_yaml.write_text(EXPORTS.replace("ACCOUNTS", "ACCOUNT_"))
    found = definitions()
    for code in ACCOUNTS:
        schedule = found.resolve_schedule_def(f"{code}__nightly")
        assert str(schedule.description).startswith("exports.yaml cannot be loaded since")
    sensors = [one for one in found.get_repository_def().sensor_defs if one.name.endswith("broken_configuration")]
    for sensor in sensors:
        with dg.build_sensor_context(house.instance) as context:
            sensor.evaluate_tick(context)
    (told,) = house.receiver.texts
    assert "names the operational data type 'ACCOUNT_'" in told


@pytest.mark.parametrize("command", ["export", "check", "jobs", "plan", "prune", "pull", "schedules", "schedule list"])
def test_a_command_says_which_organizations_there_are(house: House, command: str) -> None:
    asked = house.run(*command.split())
    assert asked.exit_code == 2
    assert asked.stderr.splitlines()[-1] == (
        "Error: exports.yaml has several organizations; name one: --organization production or sandbox."
    )
    unknown = house.run(*command.split(), "--organization", "staging")
    assert unknown.exit_code == 2
    assert unknown.stderr.splitlines()[-1] == (
        "Error: --organization: there is no organization 'staging'; known are production, sandbox."
    )


def test_a_terminal_exports_one_and_resumes_it(house: House) -> None:
    house.apis["sandbox"].records.insert("account", {**record("bad"), "version": "x"})
    one = ("--organization", "sandbox")
    failed = house.run("export", *one, "--schedule", "nightly", "--json")
    assert failed.exit_code == 1
    told = json.loads(failed.stdout)
    assert told["entities"]["account"]["status"] == "failed"
    house.apis["sandbox"].records.delete("account", "bad")

    other = house.run("export", "--organization", "production", "--resume", told["runId"])
    assert other.exit_code == 2
    assert "exports the Organization org-sand, and not org-prod" in other.stderr
    resumed = house.run("export", *one, "--resume", told["runId"], "--json")
    assert resumed.exit_code == 0, resumed.output
    again = json.loads(resumed.stdout)
    assert [(name, found["status"]) for name, found in again["entities"].items()] == [("account", "delivered")]
    (delivered,) = again["manifests"]
    assert "/orgId=org-sand/" in delivered["uri"]
    assert [one["id"] for one in house.accounts("sandbox", told["runId"])] == ["test"]

    by_hand = house.run("export", "--organization", "production", "--entities", "account", "--json")
    assert by_hand.exit_code == 0, by_hand.output
    shown = json.loads(by_hand.stdout)
    assert (shown["entities"]["account"]["rows"], len(shown["manifests"])) == (2, 1)
    assert shown["entities"]["account"]["checks"]["schema"]["passed"]

    jobs = json.loads(house.run("jobs", *one, "--json").stdout)
    assert [(job["id"], job["schedule"], job["rows"]) for job in jobs] == [(told["runId"], "nightly", 1)]
    (listed,) = json.loads(house.run("jobs", "--organization", "production", shown["runId"], "--json").stdout)
    assert listed["rows"] == 2
    switch(house.instance, InstigatorStatus.STOPPED, "sandbox__pricing")
    schedules = json.loads(house.run("schedules", *one, "--json").stdout)
    assert [(found["schedule"], found["isOn"], bool(found["lastExport"])) for found in schedules] == [
        ("nightly", True, True),
        ("pricing", False, False),
    ]
    planned = json.loads(house.run("plan", "--organization", "production", "--entities", "account", "--json").stdout)
    assert (planned["entities"][0]["rows"], planned["requestsPerSecond"]) == (2, 50)
    assert "/orgId=org-prod/" in planned["objects"][0]
    set_began(house.instance, told["runId"], datetime(2026, 1, 1, tzinfo=UTC))
    assert json.loads(house.run("prune", *one, "--json").stdout) == {"exports": [], "needed": 1, "removed": None}


def test_check_and_pull_are_about_one(house: House) -> None:
    checked = house.run("check", "--connect", "--organization", "production", "--json")
    assert checked.exit_code == 0, checked.output
    assert json.loads(checked.stdout)["orgId"] == "org-prod"
    assert not house.apis["sandbox"].requests
    assert "secret-of" not in checked.output
    assert house.run("check", "--without-environment").exit_code == 0
    house.exports_yaml.write_text("")  # as in `pull > exports.yaml`
    assert house.run("pull").stderr.startswith("Error: M3TER_API_KEY is not set")
    assert "is empty" in house.run("pull", "--organization", "sandbox").stderr


def test_the_only_one_need_not_be_named(house: House) -> None:
    text = EXPORTS.replace("    organizations: [production, sandbox]\n", "").replace(
        "    organizations: [sandbox]\n", ""
    )
    start, end = text.index("  - code: sandbox"), text.index("schedules:")
    house.exports_yaml.write_text(text[:start] + text[end:])
    exported = house.run("export", "--schedule", "nightly", "--json")
    assert exported.exit_code == 0, exported.output
    assert house.accounts("production", json.loads(exported.stdout)["runId"])


def test_a_schedule_is_added_for_an_organization(house: House) -> None:
    options = ("--operational-data-types", "ALL", "--schedule-type", "DAY", "--period", "1", "--destinations", "folder")
    nobody = house.run("schedule", "add", "all", "--yes", *options)
    assert "nobody answers; give --organizations." in nobody.stderr
    answered = house.run("schedule", "add", "all", "--yes", *options, input="2\n")
    assert answered.exit_code == 0, answered.output
    assert load_exports().schedules[-1].organizations == ("sandbox",)
    wrong = house.run("schedule", "edit", "all", "--yes", "--organizations", "sandbox,staging")
    assert "names the organization 'staging'; known are production, sandbox." in wrong.stderr


def test_an_export_from_before_there_were_organizations_is_not_resumed(house: House) -> None:
    settings = load_settings(organizations=load_exports().organizations).of("sandbox")
    house.apis["sandbox"].records.insert("account", {**record("bad"), "version": "x"})
    before = build_definitions(load_exports().model_copy(update={"organizations": (), "schedules": ()}), settings)
    job, selection = before.resolve_job_def("export"), [dg.AssetKey("account")]
    failed = job.execute_in_process(instance=house.instance, asset_selection=selection, raise_on_error=False)
    found = house.run("export", "--organization", "sandbox", "--resume", failed.run_id)
    assert found.exit_code == 2
    assert "organizations were written into it, or taken out, since then. Export again." in found.stderr


@pytest.mark.usefixtures("house")
def test_a_translator_gives_the_assets_of_each_their_keys() -> None:
    class InWarehouse(DagsterM3terTranslator):
        def get_asset_spec(self, asset: M3terAsset) -> dg.AssetSpec:
            spec = super().get_asset_spec(asset)
            return spec.replace_attributes(key=spec.key.with_prefix("warehouse"))

    exports = load_exports()
    settings = load_settings(organizations=exports.organizations)
    found = build_definitions(exports, settings, translator=InWarehouse())
    dg.Definitions.validate_loadable(found)
    job = found.resolve_job_def("sandbox__export_nightly")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == {
        "warehouse/sandbox/account",
        "warehouse/sandbox/export_manifest",
    }


def test_a_run_of_measurements_has_the_names_of_its_organization() -> None:
    usage = {"code": "usage", "sourceType": "USAGE", "timePeriod": "YESTERDAY", "destinations": ["folder"]}
    schedule = UsageSchedule.model_validate(
        {**usage, "scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z"}
    )
    run = usage_run(schedule, {}, Names(("sandbox",)))
    assert (run.job, list(run.ops)) == ("sandbox__export_usage", ["sandbox__usage_raw"])


def parsed(text: str) -> Exports:
    known = ("FOLDER", "PRODUCTION_KEY", "PRODUCTION_SECRET_FILE", "SANDBOX_KEY", "SANDBOX_SECRET")
    urls = {"PRODUCTION_URL": "https://a.example.com", "SANDBOX_URL": "https://b.example.com"}
    values = {name: f"/value-of-{name.lower()}" for name in known}
    return parse_exports(text, environ={**values, **urls, "WEBHOOK": "https://hooks.example.com/x"})


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "    organizations: [production, sandbox]\n",
            "",
            "exports.yaml:16: schedule 'nightly' has no 'organizations'; write which it exports, such as "
            "organizations: [production, sandbox].",
        ),
        (
            "[production, sandbox]",
            "[production, staging]",
            "exports.yaml:18: schedule 'nightly' names the organization 'staging'; known are production, sandbox.",
        ),
        (
            "[production, sandbox]",
            "[sandbox, sandbox]",
            "exports.yaml:18: schedule 'nightly' names the organization 'sandbox' twice; name it once.",
        ),
        (
            "code: sandbox",
            "code: production",
            "exports.yaml:10: organization 'production' has the code of an earlier organization; write another code.",
        ),
        (
            "org-sand",
            "org-prod",
            "exports.yaml:11: organization 'sandbox' has the orgId of an earlier organization; write another orgId.",
        ),
        (
            "code: sandbox",
            "code: sand-box",
            "exports.yaml:10: organization 'sand-box' has the code 'sand-box'; write letters and digits, with a single "
            "_ between them, at most 40 characters.",
        ),
        (
            "    apiSecret: ${SANDBOX_SECRET}\n",
            "",
            "exports.yaml:10: organization 'sandbox' has no 'apiSecret'; write it, such as apiSecret: "
            "${M3TER_PRODUCTION_API_SECRET}.",
        ),
        (
            "apiKey: ${SANDBOX_KEY}",
            "apiKey: ${SANDBOX_KEY}\n    apiKeyFile: /run/key",
            "exports.yaml:12: organization 'sandbox' has an apiKey and an apiKeyFile; keep one of them.",
        ),
        (
            "apiSecret: ${SANDBOX_SECRET}",
            'apiSecret: " "',
            "exports.yaml:13: organization 'sandbox' has an invalid apiSecret; write ${NAME}, and the value into the "
            "environment's variable NAME.",
        ),
        (
            "baseUrl: ${SANDBOX_URL}",
            "baseUrl: http://m3ter.example.com",
            "exports.yaml:14: organization 'sandbox' has the baseUrl 'http://m3ter.example.com'; write https://, since "
            "over http:// anyone on the way could read the secret (it is for this machine alone).",
        ),
        (
            "requestsPerSecond: 50",
            "requestsPerSecond: 51",
            "exports.yaml:9: organization 'production' has the requestsPerSecond '51'; write a number above 0 and at "
            "most 50, which is what m3ter answers per Organization.",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line(before: str, after: str, says: str) -> None:
    assert before in EXPORTS
    with pytest.raises(ConfigError) as error:
        parsed(EXPORTS.replace(before, after))
    found = [one for one in error.value.mistakes if "'sandbox'; known are" not in one]
    assert says in found
    assert "value-of" not in str(error.value)


def test_a_schedule_names_an_organization_that_there_is() -> None:
    text = EXPORTS[: EXPORTS.index("organizations:")] + EXPORTS[EXPORTS.index("schedules:") :]
    with pytest.raises(ConfigError, match="names organizations, and the file lists none; list them, or leave it out"):
        parsed(text)


def test_settings_that_were_read_without_the_organizations_say_so() -> None:
    with pytest.raises(ConfigError, match="read without the organization 'production'"):
        load_settings({}).of("production").connection()
