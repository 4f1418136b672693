"""Whole exports through faults: survived without a trace, or ended in a named failure that a resume completes."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from faults import (
    Exchange,
    Fault,
    Reply,
    after,
    altered,
    cut_off,
    hanging,
    instead,
    lost_reply,
    reset,
    reset_within_request,
    s3_error,
    slow,
    stalling,
)
from faulty_house import NAMES, House, Records, large_meters, open_house, small_organization
from processes import poll
from stores import Key, Store

from m3ter_dagster.dagster_internals import report_failed
from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.history.heartbeat import Heartbeat
from m3ter_dagster.history.log import EXPORT_JOB
from m3ter_dagster.history.log import MANIFEST as MANIFEST_ASSET
from m3ter_dagster.history.progress import RunResult
from m3ter_dagster.runs import NothingToResume, export_now, job_named, resume

Truth = dict[str, bytes]
"""The CSVs of an export without a fault, by type."""
MoveIn = Callable[..., House]
NewInstance = Callable[[Path], AbstractContextManager[dg.DagsterInstance]]
SOME = ("account_plan", "meter")
"""One that is asked for per account, and one of several pages."""
SECONDS_FOR_A_SIGN = 30
READ_TIMEOUT = "0.7"
"""Seconds: more than a slow answer pauses, less than one may hang."""


@pytest.fixture
def move_in(moto_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MoveIn]:
    """Opens a house that the environment names."""
    with ExitStack() as stack:

        def move_in(records: Records, **options: Any) -> House:
            house = stack.enter_context(open_house(moto_store, tmp_path, records, **options))
            house.move_in(monkeypatch)
            monkeypatch.setenv("M3TER_READ_TIMEOUT_SECONDS", READ_TIMEOUT)
            return house

        yield move_in


@pytest.fixture
def memory() -> Iterator[dg.DagsterInstance]:
    """For an export that nothing looks back at: a run costs a third."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(scope="module")
def truth(moto_store: Store, new_instance: NewInstance, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    with new_instance(folder := tmp_path_factory.mktemp("small")) as instance:
        return without_a_fault(moto_store, instance, folder, small_organization(), NAMES)


@pytest.fixture(scope="module")
def large_truth(moto_store: Store, new_instance: NewInstance, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    with new_instance(folder := tmp_path_factory.mktemp("large")) as instance:
        return without_a_fault(moto_store, instance, folder, large_meters(), ["meter"])


def without_a_fault(
    store: Store, instance: dg.DagsterInstance, folder: Path, records: Records, names: Sequence[str]
) -> Truth:
    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        open_house(store, folder, records, codes=["warehouse"]) as house,
    ):
        house.move_in(monkeypatch)
        assert run(house, instance, names).is_complete
        return {name: content for (_, name), content in house.delivered().items()}


def run(house: House, instance: dg.DagsterInstance, names: Sequence[str] = NAMES) -> RunResult:
    return export_now(instance, names, list(house.buckets), verbose=False, changed=lambda *_: None)


def only(truth: Truth, names: Sequence[str]) -> Truth:
    return {name: truth[name] for name in names}


def complete(result: RunResult, instance: dg.DagsterInstance) -> RunResult:
    return resume(instance, result.run_id, abandoned=False, changed=lambda *_: None)


def assert_whole(house: House, truth: Truth, export_id: str) -> None:
    """Every object of the export, nothing else, and nothing to find fault with."""
    assert house.delivered() == {(code, name): content for code in house.buckets for name, content in truth.items()}
    files = [f"{export_id}_{name}" for name in truth]
    expected = [*(f"{file}.csv" for file in files), *(f"{file}_keys.parquet" for file in files)]
    for bucket in house.buckets.values():
        found = [key.rsplit("/", 1)[-1] for where, key in house.places() if where == bucket]
        assert sorted(found) == sorted([*expected, f"{export_id}_manifest.json"])
    assert house.findings() == []
    assert house.open_uploads() == []


def assert_unfinished(house: House, expected: Mapping[tuple[str, str], bytes]) -> None:
    """The healthy entities are there, and nothing that says that the export is whole."""
    assert house.delivered() == dict(expected)
    assert house.manifests() == []
    assert house.open_uploads() == []


# Survived

SECOND_PAGE, TOKEN, OF_ONE_ACCOUNT = r"/meters\?.*nextToken", "/oauth/token", "/accountplans"
PRODUCTS, METERS = "/products", "/meters"
HTML = "<!doctype html><title>Just a moment</title>"

Plan = tuple[str, Sequence[Fault]]
"""The requests whose line this is found in, and what happens to the next of them."""

API_FAULTS: dict[str, list[Plan]] = {
    "it is asked too often": [
        (SECOND_PAGE, [instead(429, "{}", retry_after="1")]),
        (SECOND_PAGE, [instead(429), instead(429, "{}")]),
    ],
    "it is down": [
        (TOKEN, [instead(503)]),
        (OF_ONE_ACCOUNT, [instead(500, '{"message": "oops"}')] * 3),
        (SECOND_PAGE, [instead(502, HTML), instead(503, retry_after="0")]),
    ],
    "it hangs": [
        (TOKEN, [hanging]),
        (SECOND_PAGE, [hanging]),
        (SECOND_PAGE, [stalling]),
        (SECOND_PAGE, [slow]),
    ],
    "the connection ends": [
        (SECOND_PAGE, [reset]),
        (SECOND_PAGE, [altered(sent=0.5, resets=True)]),
        (OF_ONE_ACCOUNT, [altered(sent=0.5)]),
    ],
    "it answers with something else": [
        (TOKEN, [instead(200, HTML)]),
        (SECOND_PAGE, [cut_off]),
        (SECOND_PAGE, [instead(200, HTML, content_type="text/html")]),
        (OF_ONE_ACCOUNT, [instead(200)]),
    ],
}


@pytest.mark.parametrize("kind", API_FAULTS)
def test_faults_of_the_api_leave_no_trace(move_in: MoveIn, memory: dg.DagsterInstance, truth: Truth, kind: str) -> None:
    house = move_in(small_organization(), codes=["warehouse"])
    for where, faults in API_FAULTS[kind]:
        house.api.plan(where, *faults)
    result = run(house, memory, SOME)
    assert house.api.left == []
    assert result.is_complete, result
    assert_whole(house, only(truth, SOME), result.run_id)


def expire(house: House) -> None:
    house.clock.jump()


def revoke(house: House) -> None:
    house.server.revoke_tokens()


@pytest.mark.parametrize("loss", [expire, revoke])
@pytest.mark.parametrize("where", [SECOND_PAGE, OF_ONE_ACCOUNT])
def test_a_token_that_is_lost_in_mid_export_leaves_no_trace(
    move_in: MoveIn, memory: dg.DagsterInstance, truth: Truth, loss: Callable[[House], None], where: str
) -> None:
    """Once: two within the time of one request are a new token that is refused, which is believed."""
    house = move_in(small_organization(), codes=["warehouse"])
    house.api.plan(where, after(lambda: loss(house)))
    result = run(house, memory, SOME)
    assert house.api.left == []
    assert result.is_complete, result
    assert_whole(house, only(truth, SOME), result.run_id)


PUT, HEAD, MANIFEST = "^PUT .*_meter.csv", "^HEAD .*_meter.csv", "^PUT .*_manifest.json"
PUT_ANOTHER = "^PUT .*_account_plan.csv"

S3_FAULTS: dict[str, list[Plan]] = {
    "it is busy": [
        (PUT, [s3_error(503, "SlowDown")] * 2),
        (PUT_ANOTHER, [s3_error(500, "InternalError")]),
        (HEAD, [instead(503)]),
        (MANIFEST, [s3_error(503, "SlowDown")]),
    ],
    "the connection ends": [
        (PUT, [reset_within_request]),
        (HEAD, [reset]),
    ],
    "a reply is lost": [
        (PUT, [lost_reply]),
        (MANIFEST, [lost_reply]),
    ],
}


@pytest.mark.parametrize("kind", S3_FAULTS)
def test_faults_of_the_store_leave_no_trace(
    move_in: MoveIn, memory: dg.DagsterInstance, truth: Truth, kind: str
) -> None:
    house = move_in(small_organization(), codes=["warehouse"])
    for where, faults in S3_FAULTS[kind]:
        house.s3.plan(where, *faults)
    result = run(house, memory, SOME)
    assert house.s3.left == []
    assert result.is_complete, result
    assert_whole(house, only(truth, SOME), result.run_id)


BEGINNING, PART, END = r"^POST .*\?uploads", "^PUT .*partNumber=1", r"^POST .*\?uploadId="
ANOTHER_PART = "^PUT .*partNumber=2"

MULTIPART_FAULTS: dict[str, list[Plan]] = {
    "it is busy": [
        (PART, [s3_error(503, "SlowDown")] * 2),
        (END, [s3_error(503, "ServiceUnavailable")]),
    ],
    "a reply is lost": [
        (BEGINNING, [lost_reply]),
        (PART, [lost_reply]),
        (ANOTHER_PART, [reset_within_request]),
        (END, [lost_reply]),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MULTIPART_FAULTS)
def test_faults_of_an_upload_in_parts_leave_no_trace(
    move_in: MoveIn, memory: dg.DagsterInstance, large_truth: Truth, kind: str
) -> None:
    house = move_in(large_meters(), codes=["warehouse"])
    for where, faults in MULTIPART_FAULTS[kind]:
        house.s3.plan(where, *faults)
    result = run(house, memory, ["meter"])
    assert house.s3.left == []
    assert result.is_complete, result
    assert_whole(house, large_truth, result.run_id)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_ten_faults_in_one_export_leave_no_trace(
    move_in: MoveIn, memory: dg.DagsterInstance, truth: Truth, seed: int
) -> None:
    house = move_in(small_organization())
    choice = random.Random(seed)
    for where, faults in choice.sample(list(chain(*API_FAULTS.values())), 5):
        house.api.plan(where, faults[0])
    for where, faults in choice.sample(list(chain(*S3_FAULTS.values())), 4):
        house.s3.plan(where, faults[0])
    house.api.plan(OF_ONE_ACCOUNT, after(house.server.revoke_tokens))
    result = run(house, memory)
    assert (house.api.left, house.s3.left) == ([], [])
    assert result.is_complete, result
    assert_whole(house, truth, result.run_id)


# Fatal, and then removed


def everywhere(house: House, truth: Truth, *, without: Collection[str]) -> dict[tuple[str, str], bytes]:
    return {(code, name): content for code in house.buckets for name, content in truth.items() if name not in without}


PRODUCT_REFUSALS: list[tuple[Fault, str]] = [
    (instead(403, '{"message": "not yours"}'), "was refused with status 403: not yours. Give the service user"),
    (instead(404, '{"message": "no list"}'), "was refused with status 404: no list. Check M3TER_BASE_URL"),
]
METER_REFUSALS: list[tuple[Fault, str]] = [
    (instead(500), "failed 2 times, last because of status 500: no message. m3ter or the network between"),
    (hanging, "failed 2 times, last because of ReadTimeoutError: "),
]


@pytest.mark.parametrize(("product", "meter"), [*zip(PRODUCT_REFUSALS, METER_REFUSALS, strict=True)])
def test_lists_that_are_never_given_are_named_and_completed_later(
    move_in: MoveIn,
    instance: dg.DagsterInstance,
    truth: Truth,
    product: tuple[Fault, str],
    meter: tuple[Fault, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    house = move_in(small_organization())
    monkeypatch.setenv("M3TER_PATIENCE_SECONDS", "1")
    house.api.always(PRODUCTS, product[0])
    house.api.always(METERS, meter[0])
    failed = run(house, instance)
    assert not failed.is_complete
    assert {one.entity: one.status for one in failed.entities.values() if one.status != "delivered"} == {
        "product": "failed",
        "meter": "failed",
    }
    assert product[1] in failed.entities["product"].error
    assert meter[1] in failed.entities["meter"].error
    assert_unfinished(house, everywhere(house, truth, without=["product", "meter"]))
    house.heal()
    asked = len(house.api.lines)
    assert complete(failed, instance).is_complete
    lists = {line.split("?")[0].rsplit("/", 1)[-1] for line in house.api.lines[asked:]}
    assert lists == {"token", "products", "meters"}
    assert_whole(house, truth, failed.run_id)


def denied_prefix(store: Store, resource: str) -> tuple[Key, Callable[[], None]]:
    """A key that may do everything but put objects there, and what lifts the ban."""
    iam = store.client("iam")
    name = f"denied-{len(iam.list_users()['Users'])}"
    iam.create_user(UserName=name)
    for policy, effect, action, on in (("all", "Allow", "*", "*"), ("ban", "Deny", "s3:PutObject", resource)):
        statement = {"Effect": effect, "Action": action, "Resource": on}
        document = {"Version": "2012-10-17", "Statement": [statement]}
        iam.put_user_policy(UserName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
    made = iam.create_access_key(UserName=name)["AccessKey"]
    key = Key(made["AccessKeyId"], made["SecretAccessKey"])
    return key, lambda: iam.delete_user_policy(UserName=name, PolicyName="ban")


def test_a_prefix_that_one_destination_denies_is_named_and_completed_later(
    move_in: MoveIn, moto_store: Store, instance: dg.DagsterInstance, truth: Truth
) -> None:
    key, lift = denied_prefix(moto_store, "arn:aws:s3:::*/kept/*type=product/*")
    house = move_in(small_organization(), key=key, prefixes={"archive": "kept"})
    failed = run(house, instance)
    assert {one.entity for one in failed.entities.values() if one.status == "failed"} == {"product"}
    assert "destination 'archive', s3://" in failed.entities["product"].error
    assert "AccessDenied on PutObject: allow s3:PutObject on arn:aws:s3:::" in failed.entities["product"].error
    assert "It was delivered to: warehouse." in failed.entities["product"].error
    healthy = everywhere(house, truth, without=["product"]) | {("warehouse", "product"): truth["product"]}
    assert_unfinished(house, healthy)
    lift()
    assert complete(failed, instance).is_complete
    assert_whole(house, truth, failed.run_id)


def test_what_the_button_materialize_began_is_completed_by_a_resume(
    move_in: MoveIn, instance: dg.DagsterInstance, truth: Truth
) -> None:
    house = move_in(small_organization(), codes=["warehouse"])
    house.api.always(PRODUCTS, instead(404))
    assets = [dg.AssetKey(name) for name in (*NAMES, MANIFEST_ASSET)]
    with dg.execute_job(job_named("__ASSET_JOB"), instance, asset_selection=assets) as failed:
        assert not failed.success
    house.heal()
    result = resume(instance, failed.run_id, abandoned=False, changed=lambda *_: None)
    assert result.is_complete, result
    assert list(result.entities) == ["product"]
    assert_whole(house, truth, failed.run_id)


def test_from_a_run_that_failed_after_its_last_step_nothing_is_missing(
    move_in: MoveIn, instance: dg.DagsterInstance, truth: Truth
) -> None:
    """Such a run died before it could say that it had succeeded, and Dagster ended it."""
    house = move_in(small_organization(), codes=["warehouse"])
    whole = run(house, instance)
    found = instance.get_run_by_id(whole.run_id)
    assert found
    report_failed(instance, found, "it ran for a day")
    with pytest.raises(NothingToResume, match=f"all steps of run {whole.run_id} succeeded, so nothing"):
        complete(whole, instance)
    assert len(instance.get_run_records()) == 1
    assert_whole(house, truth, whole.run_id)


def test_an_export_whose_schedule_was_removed_is_completed_by_a_resume(
    move_in: MoveIn, instance: dg.DagsterInstance, truth: Truth
) -> None:
    house = move_in(small_organization(), codes=["warehouse"])
    without = house.exports.read_text(encoding="utf-8")
    often = {"scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z"}
    schedule = {"code": "finance", "operationalDataTypes": NAMES, "destinations": ["warehouse"], **often}
    house.exports.write_text(json.dumps({**json.loads(without), "schedules": [schedule]}), encoding="utf-8")
    house.api.always(PRODUCTS, instead(404))
    with dg.execute_job(job_named("export_finance"), instance) as failed:
        assert not failed.success
    house.exports.write_text(without, encoding="utf-8")
    job_named(EXPORT_JOB).get_definition()  # a process keeps the last job that it has loaded
    house.heal()
    result = resume(instance, failed.run_id, abandoned=False, changed=lambda *_: None)
    assert result.is_complete, result
    assert list(result.entities) == ["product"]
    assert_whole(house, truth, failed.run_id)


def test_a_store_that_is_down_to_the_end_is_named_and_completed_later(
    move_in: MoveIn, instance: dg.DagsterInstance, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(Destinations.__init__.__kwdefaults__, "max_attempts", 2)
    house = move_in(small_organization())
    house.s3.always(r"^PUT .*_product.csv", s3_error(503, "SlowDown"))
    failed = run(house, instance)
    assert {one.entity for one in failed.entities.values() if one.status == "failed"} == {"product"}
    assert "SlowDown on PutObject" in failed.entities["product"].error
    assert_unfinished(house, everywhere(house, truth, without=["product"]))
    house.heal()
    assert complete(failed, instance).is_complete
    assert_whole(house, truth, failed.run_id)


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[Callable[[int], None]]:
    """A file system of that size at `folder`, and what gives it another."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "m3ter-test", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield lambda size: check_call("mount", "-o", f"remount,size={size}m", str(folder))
    finally:
        check_call("umount", "--lazy", str(folder))


def check_call(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)


def test_a_delivery_that_takes_long_shows_that_its_process_lives(
    move_in: MoveIn, instance: dg.DagsterInstance, truth: Truth, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that logs nothing for a quarter of an hour is taken for dead."""
    monkeypatch.setitem(Heartbeat.__init__.__kwdefaults__, "every", 0.05)
    house = move_in(small_organization(), codes=["warehouse"])

    def signs() -> list[str]:
        (record,) = instance.get_run_records()
        logged = [one.message for one in instance.all_logs(record.dagster_run.run_id)]
        return [text for text in logged if text.endswith("is at work.")]

    def slow_store(exchange: Exchange) -> Reply:
        before = len(signs())
        poll(lambda: len(signs()) > before, "a sign of life", SECONDS_FOR_A_SIGN)
        return exchange.pass_on()

    house.s3.plan(r"^PUT .*_product.csv", slow_store)
    result = run(house, instance)
    assert result.is_complete, result
    assert_whole(house, truth, result.run_id)
    assert set(signs()) == {f"Process {os.getpid()} on {socket.gethostname()} is at work."}


def test_without_room_for_temporary_files_nothing_is_read(
    move_in: MoveIn, instance: dg.DagsterInstance, truth: Truth, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    house = move_in(small_organization(), codes=["warehouse"])
    monkeypatch.setenv("M3TER_LEAST_FREE_MB", "900000000")
    failed = run(house, instance)
    assert re.fullmatch(
        rf"{tmp_path}/temporary, the folder for temporary files, has [0-9,]+ MB free, and an export needs at least "
        r"900,000,000 MB; make room there, or set TMPDIR to a folder with more \(M3TER_LEAST_FREE_MB .*\)\.",
        failed.error,
    )
    assert list(house.server.requests) == []
    monkeypatch.setenv("M3TER_LEAST_FREE_MB", "1")
    assert complete(failed, instance).is_complete
    assert_whole(house, truth, failed.run_id)


@pytest.mark.slow
def test_a_full_disk_is_named_and_completed_later(
    move_in: MoveIn,
    instance: dg.DagsterInstance,
    truth: Truth,
    large_truth: Truth,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others = [(name, record) for name, record in small_organization() if name != "meter"]
    expected = truth | large_truth
    with small_disk(tmp_path / "disk", megabytes=4) as resize:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
        house = move_in([*others, *large_meters()], codes=["warehouse"])
        monkeypatch.setenv("M3TER_LEAST_FREE_MB", "1")
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))  # for the file of the pace
        failed = run(house, instance)
        assert failed.entities["meter"].status == "failed"
        assert all("No space left on device" in one.error for one in failed.entities.values() if one.error)
        assert house.delivered().items() <= everywhere(house, expected, without=["meter"]).items()
        assert (house.manifests(), house.open_uploads()) == ([], [])
        assert list((tmp_path / "disk").iterdir()) == []
        resize(200)
        assert complete(failed, instance).is_complete
        assert_whole(house, expected, failed.run_id)
        assert list((tmp_path / "disk").iterdir()) == []
