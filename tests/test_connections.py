"""`m3ter-dagster check --connect`: what works is shown beside what does not, and why."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from receiver import SECRET, Answer, Receiver
from stores import Store
from werkzeug.exceptions import Forbidden

from m3ter_dagster.cli import main
from m3ter_dagster.model.entities import operational_entities
from m3ter_sandbox import SampleOrganization, SandboxApi

pytestmark = pytest.mark.usefixtures("no_proxy")

SCHEDULE: dict[str, Any] = {
    "code": "nightly",
    "destinations": ["warehouse"],
    "scheduleType": "DAY",
    "period": 1,
    "dtCreated": "2024-06-01T02:00:00Z",
}
PRODUCTS = {**SCHEDULE, "operationalDataTypes": ["PRODUCTS", "ACCOUNT_PLANS"]}
USAGE = {**SCHEDULE, "sourceType": "USAGE", "timePeriod": "YESTERDAY"}


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    with SandboxApi(SampleOrganization(1).records(), requests_per_second=None) as api:
        yield api


@pytest.fixture
def written(tmp_path: Path, moto_store: Store, moto_bucket: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The exports.yaml, of which a test may write another."""
    monkeypatch.setenv("M3TER_EXPORTS", str(tmp_path / "exports.yaml"))
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return {"destinations": [destination(moto_store, moto_bucket)]}


def destination(store: Store, bucket: str, code: str = "warehouse", prefix: str = "m3ter") -> dict[str, Any]:
    return {"code": code, "bucketName": bucket, "prefix": prefix, "endpointUrl": store.endpoint}


def connect(api: SandboxApi, exports: dict[str, Any], *options: str, **environment: str) -> Result:
    Path(os.environ["M3TER_EXPORTS"]).write_text(json.dumps(exports))
    return CliRunner().invoke(main, ["check", "--connect", *options], env={**api.environment, **environment})


def table(result: Result) -> dict[str, tuple[str, str]]:
    """What is said of each connection."""
    results, *notes = result.stdout.partition("connection ")[2].split("\n\n")
    words = dict(note.split(": ", 1) for note in notes)
    lines = [re.split(r" {2,}", line.strip()) for line in results.splitlines()[1:]]
    return {what: (said, words.get(what, "").strip()) for what, said in lines}


def test_all_that_an_export_of_everything_needs(
    api: SandboxApi, written: dict[str, Any], moto_store: Store, moto_bucket: str
) -> None:
    result = connect(api, written)
    assert result.exit_code == 0, result.output
    found = table(result)
    assert found["m3ter, account"] == ("works", "")
    assert found["m3ter, pricing, pricing_band"] == ("works", "")
    assert len(found) == len({entity.listing for entity in operational_entities().values()}) + 1
    assert found["destination warehouse"] == ("works", "")
    assert moto_store.keys(moto_bucket) == []
    assert all("pageSize=1&" in f"{one.query}&" for one in api.requests if one.method == "GET")


def test_only_what_the_schedules_need_is_asked_for(api: SandboxApi, written: dict[str, Any]) -> None:
    result = connect(api, {**written, "schedules": [PRODUCTS]})
    assert list(table(result)) == ["m3ter, account_plan", "m3ter, product", "destination warehouse"]
    lists = {one.path.rsplit("/", 1)[1] for one in api.requests if one.method == "GET"}
    assert lists == {"accounts", "accountplans", "products"}


def test_a_list_without_a_parent_to_ask_for(written: dict[str, Any]) -> None:
    with SandboxApi([], requests_per_second=None) as api:
        result = connect(api, {**written, "schedules": [PRODUCTS]})
    assert result.exit_code == 0
    assert table(result)["m3ter, account_plan"] == ("not asked", "the Organization has no account to ask for.")


def test_a_list_that_is_refused_is_named_and_the_others_are_asked(api: SandboxApi, written: dict[str, Any]) -> None:
    def refuse(path: str, _: str) -> None:
        if path.endswith("/products"):
            raise Forbidden("The permission ProductRead is missing")

    api.before_answer = refuse
    result = connect(api, written)
    assert result.exit_code == 1
    said, words = table(result)["m3ter, product"]
    assert said == "FAILS"
    assert "status 403: The permission ProductRead is missing. Give the service user of M3TER_API_KEY" in words
    assert [one for one, (said, _) in table(result).items() if said == "FAILS"] == ["m3ter, product"]


def test_wrong_credentials_are_told_once(api: SandboxApi, written: dict[str, Any]) -> None:
    result = connect(api, written, M3TER_API_SECRET="wrong-one")
    assert (result.exit_code, list(table(result))) == (1, ["m3ter", "destination warehouse"])
    assert "m3ter gives no token for M3TER_API_KEY and M3TER_API_SECRET: check both" in table(result)["m3ter"][1]
    assert "wrong-one" not in result.output


def test_m3ter_s_export_service_is_asked_for_measurements(api: SandboxApi, written: dict[str, Any]) -> None:
    result = connect(api, {**written, "schedules": [USAGE]})
    assert result.exit_code == 1
    found = table(result)
    assert list(found) == ["m3ter, account", "m3ter, meter", "m3ter, its export service", "destination warehouse"]
    said, words = found["m3ter, its export service"]
    assert said == "FAILS"
    assert words.startswith("The Data Export service is not enabled for Organization ")


def test_a_destination_that_refuses_is_named_with_the_permission(
    api: SandboxApi, written: dict[str, Any], moto_store: Store, moto_bucket: str
) -> None:
    denied = destination(moto_store, moto_bucket, "archive", "denied")
    result = connect(api, {"destinations": [*written["destinations"], denied], "schedules": [PRODUCTS]})
    assert result.exit_code == 1
    found = table(result)
    assert found["destination warehouse"][0] == "works"
    assert found["destination archive"][0] == "FAILS"
    assert f"allow s3:PutObject on arn:aws:s3:::{moto_bucket}/denied/* to" in found["destination archive"][1]


def test_a_destination_that_may_not_be_read_is_named(
    api: SandboxApi, written: dict[str, Any], moto_store: Store, aws_key: Any
) -> None:
    aws_key(moto_store.writer)
    result = connect(api, {**written, "schedules": [PRODUCTS]})
    assert result.exit_code == 1
    assert "allow s3:GetObject on" in table(result)["destination warehouse"][1]


def test_a_bucket_that_forbids_deletion_will_do(
    api: SandboxApi, written: dict[str, Any], moto_store: Store, moto_bucket: str, aws_key: Any
) -> None:
    aws_key(moto_store.keeper)
    result = connect(api, {**written, "schedules": [PRODUCTS]})
    assert result.exit_code == 0
    said, words = table(result)["destination warehouse"]
    key = f"m3ter/orgId={api.organization_id}/m3ter-dagster-connection-check.txt"
    assert (said, moto_store.keys(moto_bucket)) == ("works", [key])
    assert words.startswith(f"s3://{moto_bucket}/{key} stays there, harmlessly. To have it removed, allow s3:Del")
    connect(api, {**written, "schedules": [PRODUCTS]})
    assert len(moto_store.keys(moto_bucket)) == 1, "it is the same object each time"


@pytest.mark.parametrize(("answer", "code", "said"), [(Answer(), 0, "works"), (Answer(404), 1, "FAILS")])
def test_the_webhook_is_tried_if_it_is_asked_for(
    api: SandboxApi, written: dict[str, Any], answer: Answer, code: int, said: str
) -> None:
    with Receiver(answer) as receiver:
        exports = {**written, "schedules": [PRODUCTS], "notifications": {"webhookUrl": receiver.url}}
        assert "webhook" not in table(connect(api, exports))
        assert not receiver.posts
        result = connect(api, exports, "--notify")
    assert (result.exit_code, table(result)["webhook"][0]) == (code, said)
    assert receiver.texts == ["m3ter-dagster check --notify: a test. Notifications of exports come here."]
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--connect", "--without-environment"], "--connect needs the environment; leave out --without-environment."),
        (["--notify"], "--notify sends a message through the webhook; give --connect with it."),
        (["--connect", "--notify"], "--notify: exports.yaml has no notifications."),
    ],
)
def test_wrong_use(api: SandboxApi, written: dict[str, Any], options: list[str], words: str) -> None:
    Path(os.environ["M3TER_EXPORTS"]).write_text(json.dumps(written))
    result = CliRunner().invoke(main, ["check", *options], env=api.environment)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: {words}")


def test_json_has_what_was_checked_and_tried(api: SandboxApi, written: dict[str, Any]) -> None:
    result = connect(api, {**written, "schedules": [PRODUCTS]}, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["destinations"], found["schedules"], found["signedBy"]) == (0, 1, 1, None)
    assert found["orgId"] == api.environment["M3TER_ORG_ID"]
    assert {one["what"]: one["result"] for one in found["connections"]}["destination warehouse"] == "works"
    written["destinations"][0]["bucketName"] = "no-such-bucket"
    result = connect(api, written, "--json")
    failed = [one for one in json.loads(result.stdout)["connections"] if one["result"] == "FAILS"]
    assert (result.exit_code, [one["what"] for one in failed]) == (1, ["destination warehouse"])
    assert "no-such-bucket" in failed[0]["words"]


def test_json_of_a_wrong_configuration_is_empty(api: SandboxApi, written: dict[str, Any]) -> None:
    Path(os.environ["M3TER_EXPORTS"]).write_text("destinations: []")
    result = CliRunner().invoke(main, ["check", "--json"], env=api.environment)
    assert (result.exit_code, result.stdout) == (2, "")
    Path(os.environ["M3TER_EXPORTS"]).write_text(json.dumps(written))
    result = CliRunner().invoke(main, ["check", "--without-environment", "--json"])
    found = json.loads(result.stdout)
    assert (result.exit_code, found["orgId"], found["connections"]) == (0, None, None)
