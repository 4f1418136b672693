"""Google Cloud Storage when it refuses, breaks off, loses a reply or alters bytes: what is read back counts."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from deliveries import MARK, ROWS, gcs_destination
from faults import after, altered, hanging, instead, lost_reply, reset, reset_within_request, unharmed
from faulty_proxy import FaultyProxy
from google.auth import impersonated_credentials
from google.auth.exceptions import RefreshError
from tampering import proxy as tampering_proxy

from m3ter_dagster.delivery import gcs as module
from m3ter_dagster.delivery.destinations import store_of
from m3ter_dagster.delivery.fingerprints import fingerprint
from m3ter_dagster.delivery.store import NotRemoved, NotStored, ObjectUnreadable, Store, Stored, StoreFailed

KEY = "m3ter/type=bill/1_bill.csv"
SINGLE, PART = "uploadType=multipart", "PUT .*upload_id"
DENIED = "m3ter@acme does not have storage.objects.create access to the Google Cloud Storage object."
Call = Callable[[Store, Path], Any]
CALLS: dict[str, tuple[Call, type[StoreFailed]]] = {
    "put": (lambda store, file: put(store, file), NotStored),
    "probe": (lambda store, _: store.probe(KEY), NotStored),
    "fetch": (lambda store, file: store.fetch(KEY, file.with_name("fetched")), ObjectUnreadable),
    "read": (lambda store, _: store.read(KEY, at_most=1000), ObjectUnreadable),
    "stat": (lambda store, _: store.stat(KEY), ObjectUnreadable),
    "uris": (lambda store, _: store.uris(KEY), ObjectUnreadable),
    "folders": (lambda store, _: store.folders(KEY), ObjectUnreadable),
    "remove": (lambda store, _: store.remove(KEY), NotRemoved),
}
every_call = pytest.mark.parametrize(("call", "failure"), CALLS.values(), ids=CALLS)


@pytest.fixture
def bucket(gcs: Any) -> Any:
    return gcs.create_bucket(f"exports-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def proxy(bucket: Any, gcs_address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:  # noqa: ARG001
    """Between the environment's clients and the store."""
    with FaultyProxy(gcs_address) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, gcs_address: str, tmp_path: Path, no_proxy: None) -> None:  # noqa: ARG001
    """A machine without Google credentials, whose clients look for them, as they do not for an emulator."""
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "STORAGE_EMULATOR", "CLOUDSDK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("API_ENDPOINT_OVERRIDE", gcs_address)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")


def store_in(bucket: Any, *, attempts: int = 1, **more: Any) -> Store:
    destination = gcs_destination(bucket if isinstance(bucket, str) else bucket.name)
    return store_of(destination.model_copy(update=more), max_attempts=attempts)


def put(store: Store, file: Path) -> Stored:
    return store.put(file, KEY, sent=fingerprint(file), content_type="text/csv; charset=utf-8")


def content(bucket: Any) -> bytes | None:
    found = bucket.get_blob(KEY)
    return found and found.download_as_bytes()


def error(status: int, message: str) -> Any:
    return instead(status, json.dumps({"error": {"code": status, "message": message}}), content_type="application/json")


# What it refuses


@every_call
def test_a_permission_that_is_missing_is_named(
    proxy: FaultyProxy, bucket: Any, bill_file: Path, call: Call, failure: type[StoreFailed]
) -> None:
    proxy.always(".", error(403, DENIED))
    with pytest.raises(failure) as failed:
        call(store_in(bucket), bill_file)
    advice = f"allow the credentials in use storage.objects.create, get, list and delete in the bucket '{bucket.name}'"
    assert f"Forbidden: {advice}. The store says: '{DENIED}'" in str(failed.value)
    assert failed.value.refusal.is_permanent


@every_call
def test_a_store_that_is_overloaded_may_be_well_later(
    proxy: FaultyProxy, bucket: Any, bill_file: Path, call: Call, failure: type[StoreFailed]
) -> None:
    proxy.always(".", error(503, "Backend error"))
    with pytest.raises(
        failure, match="ServiceUnavailable: the store is failing or overloaded: run the export"
    ) as failed:
        call(store_in(bucket), bill_file)
    assert not failed.value.refusal.is_permanent


def test_what_it_answered_last_is_told_when_the_time_is_up(
    proxy: FaultyProxy, bucket: Any, bill_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SECONDS_PER_ATTEMPT", 0.01)
    proxy.always(".", error(503, "Backend error"))
    with pytest.raises(NotStored, match=r"ServiceUnavailable: .* The store says: 'Backend error'"):
        put(store_in(bucket, attempts=2), bill_file)


@every_call
@pytest.mark.usefixtures("google")
def test_missing_credentials_are_named(bill_file: Path, call: Call, failure: type[StoreFailed]) -> None:
    with pytest.raises(
        failure, match="DefaultCredentialsError: no Google credentials were found, or they are"
    ) as failed:
        call(store_in("acme-exports"), bill_file)
    assert failed.value.refusal.is_permanent


@pytest.mark.usefixtures("google")
def test_a_file_of_credentials_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(NotStored, match=f"set GOOGLE_APPLICATION_CREDENTIALS, or .*'File {tmp_path}/key.json was not"):
        store_in("acme-exports").probe(KEY)


@pytest.fixture
def key_file(google: None, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:  # noqa: ARG001
    """That of a service account, whose tokens come from the proxy."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "m3ter@acme.iam.gserviceaccount.com", "private_key": pem}
    file = tmp_path / "key.json"
    file.write_text(json.dumps({**account, "token_uri": f"{proxy.url}/token"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    return file


TOKEN = instead(200, json.dumps({"access_token": "secret", "expires_in": 3600}), content_type="application/json")


@pytest.mark.usefixtures("key_file")
def test_a_service_account_delivers_with_its_token(proxy: FaultyProxy, bucket: Any, bill_file: Path) -> None:
    proxy.always("/token", TOKEN)
    put(store_in(bucket), bill_file)
    assert content(bucket) == ROWS
    assert set(proxy.lines) == {"POST /token"}


@pytest.mark.usefixtures("key_file")
def test_a_key_that_is_not_accepted_is_said_to_be(proxy: FaultyProxy, bucket: Any, bill_file: Path) -> None:
    refused = json.dumps({"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    proxy.always("/token", instead(400, refused, content_type="application/json"))
    with pytest.raises(NotStored, match=r"RefreshError: no Google credentials .*Invalid JWT Signature") as failed:
        put(store_in(bucket), bill_file)
    assert failed.value.refusal.is_permanent
    assert "PRIVATE KEY" not in str(failed.value)


def test_a_file_that_is_no_key_is_said_to_be(key_file: Path) -> None:
    key_file.write_text(key_file.read_text().replace("BEGIN", "END"))
    with pytest.raises(NotStored, match=f"no Google credentials .*{key_file}") as failed:
        store_in("acme-exports").probe(KEY)
    assert failed.value.refusal.is_permanent
    assert "PRIVATE KEY" not in str(failed.value)


def test_a_token_service_that_cannot_answer_now_may_later() -> None:
    why = store_in("acme-exports").explain(RefreshError("later", retryable=True), KEY)
    assert "RefreshError: no Google credentials were found" in str(why)
    assert not why.is_permanent


@pytest.mark.usefixtures("key_file")
def test_a_destination_s_service_account_is_acted_as(
    proxy: FaultyProxy, bucket: Any, bill_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = "m3ter-export@acme.iam.gserviceaccount.com"
    as_account = json.dumps({"accessToken": "another", "expireTime": "2100-01-01T00:00:00Z"})
    proxy.always("/token", TOKEN)
    proxy.always(f"/{account}:generateAccessToken", instead(200, as_account, content_type="application/json"))
    monkeypatch.setattr(impersonated_credentials.iam, "_IAM_ENDPOINT", f"{proxy.url}/{{}}:generateAccessToken")
    put(store_in(bucket, service_account_email=account), bill_file)
    assert content(bucket) == ROWS
    assert set(proxy.lines) == {"POST /token", f"POST /{account}:generateAccessToken"}


@pytest.mark.usefixtures("key_file")
def test_an_object_has_a_page_in_google_s_console_and_none_in_an_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    assert store_in("acme").page(KEY) is None
    monkeypatch.delenv("API_ENDPOINT_OVERRIDE")
    page = "https://console.cloud.google.com/storage/browser/_details/acme/m3ter/orgId%3D1/a%20b.csv"
    assert store_in("acme").page("gs://acme/m3ter/orgId=1/a b.csv") == page


def test_without_the_extra_it_says_what_to_install(
    bucket: Any, bill_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("google")]:
        monkeypatch.setitem(sys.modules, name, None)
    for call, failure in CALLS.values():
        with pytest.raises(failure, match=r"pip install 'm3ter-dagster\[gcs\]'") as failed:
            call(store_in(bucket), bill_file)
        assert failed.value.refusal.is_permanent


# What goes wrong on the way


def test_a_lost_reply_is_looked_into(proxy: FaultyProxy, bucket: Any, bill_file: Path) -> None:
    proxy.plan(SINGLE, lost_reply)
    stored = put(store_in(bucket, attempts=3), bill_file)
    assert (content(bucket), stored.etag, proxy.left) == (ROWS, bucket.get_blob(KEY).etag, [])


def test_an_upload_that_breaks_off_is_continued(proxy: FaultyProxy, bucket: Any, large_bill_file: Path) -> None:
    proxy.plan(PART, unharmed, reset_within_request, unharmed, reset)
    put(store_in(bucket, attempts=5), large_bill_file)
    assert (content(bucket), proxy.left) == (large_bill_file.read_bytes(), [])


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_an_upload_that_keeps_breaking_off_leaves_what_was_there(
    proxy: FaultyProxy, bucket: Any, large_bill_file: Path, parts: int
) -> None:
    proxy.plan(PART, *[unharmed] * parts)
    proxy.always(PART, reset_within_request)
    with pytest.raises(NotStored, match="the store cannot be reached: see to the network") as failed:
        put(store_in(bucket), large_bill_file)
    assert not failed.value.refusal.is_permanent
    assert content(bucket) is None
    bucket.blob(KEY).upload_from_string(b"before")
    with pytest.raises(NotStored):
        put(store_in(bucket), large_bill_file)
    assert content(bucket) == b"before"


def test_the_bucket_itself_is_not_asked_for(proxy: FaultyProxy, bucket: Any, bill_file: Path) -> None:
    bucket_itself = rf"GET /storage/v1/b/{bucket.name}(\?|\s|$)"
    proxy.always(bucket_itself, hanging)
    put(store_in(bucket), bill_file)
    assert not [thread for thread in threading.enumerate() if "_fetch_background" in thread.name]
    assert not [line for line in proxy.lines if re.search(bucket_itself, line)]


@every_call
def test_a_store_that_never_answers_is_not_waited_for(
    proxy: FaultyProxy,
    bucket: Any,
    bill_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Call,
    failure: type[StoreFailed],
) -> None:
    assert module.TIMEOUT == (10, 60)
    monkeypatch.setattr(module, "TIMEOUT", (1, 0.1))
    proxy.always(".", hanging)
    with pytest.raises(failure, match="ReadTimeout: the store does not answer: see to the network") as failed:
        call(store_in(bucket), bill_file)
    assert not failed.value.refusal.is_permanent


def test_a_store_that_cannot_be_reached_is_named(
    bucket: Any, bill_file: Path, gcs_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tampering_proxy(gcs_address) as gone:
        pass
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gone)
    with pytest.raises(NotStored, match="ConnectionError: the store cannot be reached: see to the network"):
        put(store_in(bucket), bill_file)


@pytest.mark.parametrize("file", ["bill_file", "large_bill_file"])
def test_bytes_that_arrive_changed_are_removed(
    bucket: Any, gcs_address: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, file: str
) -> None:
    def change(data: bytes) -> bytes:
        return data.replace(MARK, MARK[::-1]).replace(b"one", b"two")

    with tampering_proxy(gcs_address, to_store=change) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        with pytest.raises(NotStored, match=r"Altered: the object has the CRC32C .+; it was removed; look"):
            put(store_in(bucket), request.getfixturevalue(file))
    assert content(bucket) is None


@pytest.mark.parametrize("name", ["fetch", "read"])
def test_bytes_that_come_back_changed_are_not_given(
    proxy: FaultyProxy, bucket: Any, bill_file: Path, name: str
) -> None:
    put(store_in(bucket), bill_file)
    proxy.always("alt=media", altered(body=ROWS.replace(b"one", b"two")))
    with pytest.raises(ObjectUnreadable, match="DataCorruption: the object was altered in the store or on the way"):
        CALLS[name][0](store_in(bucket), bill_file)
    assert not bill_file.with_name("fetched").exists()


def test_a_download_that_breaks_off_is_continued_or_leaves_no_file(
    proxy: FaultyProxy, bucket: Any, large_bill_file: Path, tmp_path: Path
) -> None:
    put(store_in(bucket), large_bill_file)
    fetched = tmp_path / "fetched"
    proxy.plan("alt=media", altered(sent=0.5))
    with pytest.raises(ObjectUnreadable):
        store_in(bucket).fetch(KEY, fetched)
    assert [one.name for one in tmp_path.iterdir()] == [large_bill_file.name]
    proxy.plan("alt=media", altered(sent=0.5), altered(sent=0.5, resets=True))
    store_in(bucket, attempts=5).fetch(KEY, fetched)
    assert (fetched.read_bytes(), proxy.left) == (large_bill_file.read_bytes(), [])


# What others do


def test_what_another_delivery_puts_there_meanwhile_stays(proxy: FaultyProxy, bucket: Any, bill_file: Path) -> None:
    others = iter((b"first", b"second"))
    proxy.always(SINGLE, after(lambda: bucket.blob(KEY).upload_from_string(next(others))))
    with pytest.raises(
        NotStored, match="PreconditionFailed: another delivery of the same file came in between"
    ) as failed:
        put(store_in(bucket), bill_file)
    assert not failed.value.refusal.is_permanent
    assert content(bucket) == b"second"


def test_a_file_that_stands_there_already_is_not_replaced(bucket: Any, bill_file: Path) -> None:
    """A bucket with a retention policy would refuse that."""
    first = put(store_in(bucket), bill_file)
    generation = bucket.get_blob(KEY).generation
    assert put(store_in(bucket), bill_file) == first
    assert bucket.get_blob(KEY).generation == generation
