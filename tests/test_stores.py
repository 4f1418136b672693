"""The promises of a store, kept by every store, through its interface alone."""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from deliveries import ROWS, destination, gcs_destination, local_destination
from stores import Key
from tampering import proxy

from m3ter_dagster.delivery.destinations import store_of
from m3ter_dagster.delivery.fingerprints import PART_SIZE as PART
from m3ter_dagster.delivery.fingerprints import fingerprint
from m3ter_dagster.delivery.store import (
    NotRemoved,
    NotStored,
    ObjectMissing,
    ObjectUnreadable,
    Stat,
    Store,
    Stored,
    StoreFailed,
)

pytestmark = pytest.mark.usefixtures("no_aws_settings")

KEY = "m3ter/type=bill/1_bill.csv"
CREATE = re.compile(
    "create the bucket 'no-such-bucket', or correct bucketName"
    "|create the folder .*/none, or mount the drive that has it, or correct the destination's path"
)
CSV = "text/csv; charset=utf-8"
Call = Callable[[Store, Path], Any]


@dataclass(frozen=True)
class Place:
    """An empty bucket or folder, where everything is allowed."""

    store: Store
    root: str
    """What addresses begin with."""
    put: Callable[[str], object]
    """Makes an empty object under a key, as somebody else would."""
    unfinished: Callable[[], Sequence[Any]]
    """What is there of objects that are not whole."""
    listed_at_once: int = 0

    def uri(self, key: str = KEY) -> str:
        return f"{self.root}/{key}"


NewPlace = Callable[[], Place]


@pytest.fixture(params=[*(pytest.param(one, marks=pytest.mark.servers) for one in ("moto", "rclone", "gcs")), "local"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def new_place(
    kind: str, request: pytest.FixtureRequest, aws_key: Callable[[Key], None], tmp_path_factory: Any
) -> NewPlace:
    """Places of each kind in turn: what holds for one must hold for all."""

    def in_a_folder() -> Place:
        folder = tmp_path_factory.mktemp("a folder")
        return Place(
            store_of(local_destination(folder), max_attempts=1),
            root=folder.as_uri(),
            put=lambda key: ((folder / key).parent.mkdir(parents=True, exist_ok=True), (folder / key).touch()),
            unfinished=lambda: list(folder.rglob("*.part")),
            listed_at_once=1,
        )

    def in_a_bucket() -> Place:
        server = request.getfixturevalue(f"{kind}_store")
        aws_key(server.exporter)
        bucket = server.new_bucket()
        return Place(
            store_of(destination(server, bucket), max_attempts=1),
            root=f"s3://{bucket}",
            put=lambda key: server.client().put_object(Bucket=bucket, Key=key, Body=b""),
            unfinished=lambda: server.open_uploads(bucket),
            listed_at_once=server.listed_at_once,
        )

    def at_google() -> Place:
        gcs = request.getfixturevalue("gcs")
        bucket = gcs.create_bucket(f"exports-{uuid.uuid4().hex[:12]}")
        return Place(
            store_of(gcs_destination(bucket.name), max_attempts=1),
            root=f"gs://{bucket.name}",
            put=lambda key: bucket.blob(key).upload_from_string(b""),
            unfinished=list,
            listed_at_once=1,
        )

    return {"gcs": at_google, "local": in_a_folder}.get(kind, in_a_bucket)


@pytest.fixture
def place(new_place: NewPlace) -> Place:
    return new_place()


@pytest.fixture
def store(place: Place) -> Store:
    return place.store


@pytest.fixture
def nowhere(kind: str, request: pytest.FixtureRequest, place: Place, tmp_path: Path) -> Place:  # noqa: ARG001
    """A bucket or folder that does not exist."""
    if kind == "gcs":
        where, root = gcs_destination("no-such-bucket"), "gs://no-such-bucket"
    elif kind == "local":
        where, root = local_destination(tmp_path / "none"), (tmp_path / "none").as_uri()
    else:
        server = request.getfixturevalue(f"{kind}_store")
        where, root = destination(server, "no-such-bucket"), "s3://no-such-bucket"
    return Place(store_of(where, max_attempts=1), root, put=print, unfinished=list)


def put(store: Store, file: Path, key: str = KEY) -> Stored:
    return store.put(file, key, sent=fingerprint(file), content_type=CSV)


def content(store: Store, where: str, folder: Path) -> bytes:
    store.fetch(where, folder / "fetched")
    return (folder / "fetched").read_bytes()


CALLS: dict[str, tuple[Call, type[StoreFailed]]] = {
    "put": (lambda store, folder: put(store, folder / "bill.csv"), NotStored),
    "probe": (lambda store, _: store.probe(KEY), NotStored),
    "fetch": (lambda store, folder: store.fetch(KEY, folder / "fetched"), ObjectUnreadable),
    "read": (lambda store, _: store.read(KEY, at_most=1000), ObjectUnreadable),
    "stat": (lambda store, _: store.stat(KEY), ObjectUnreadable),
    "uris": (lambda store, _: store.uris(KEY), ObjectUnreadable),
    "folders": (lambda store, _: store.folders(KEY), ObjectUnreadable),
    "remove": (lambda store, _: store.remove(KEY), NotRemoved),
}
every_call = pytest.mark.parametrize(("call", "failure"), CALLS.values(), ids=CALLS)
reading_calls = pytest.mark.parametrize("call", [CALLS[name][0] for name in ("fetch", "read", "stat")])


# What is put stands there whole


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1])
def test_a_file_of_any_size_arrives(store: Store, bill_file: Path, tmp_path: Path, size: int) -> None:
    bill_file.write_bytes(b"x" * size)
    stored = put(store, bill_file)
    assert (stored.bytes, stored.sha256) == (size, hashlib.sha256(b"x" * size).hexdigest())
    assert content(store, KEY, tmp_path) == b"x" * size


def test_what_is_stored_is_described(place: Place, bill_file: Path) -> None:
    stored = put(place.store, bill_file)
    assert stored == Stored(place.uri(), len(ROWS), hashlib.sha256(ROWS).hexdigest(), stored.etag)
    assert stored.etag
    assert place.store.stat(KEY) == Stat(len(ROWS), stored.etag)


def test_a_large_file_arrives_in_parts_and_leaves_none(place: Place, large_bill_file: Path, tmp_path: Path) -> None:
    stored = put(place.store, large_bill_file)
    assert content(place.store, KEY, tmp_path) == large_bill_file.read_bytes()
    assert place.store.stat(KEY) == Stat(large_bill_file.stat().st_size, stored.etag)
    assert place.unfinished() == []


def test_an_object_is_replaced(store: Store, bill_file: Path, tmp_path: Path) -> None:
    first = put(store, bill_file)
    bill_file.write_bytes(b"later")
    stored = put(store, bill_file)
    assert stored.etag != first.etag
    assert content(store, KEY, tmp_path) == b"later"
    assert store.uris("") == [stored.uri]


def test_a_file_that_is_not_the_fingerprints_is_not_stored(store: Store, bill_file: Path) -> None:
    """As one that changes between the two; every upload reads back something else."""
    sent = fingerprint(bill_file)
    bill_file.write_bytes(ROWS.replace(b"one", b"two"))
    with pytest.raises(NotStored, match=r" has the sha256 [0-9a-f]{64} and "):
        store.put(bill_file, KEY, sent=sent, content_type=CSV)
    assert store.uris("") == []


def test_any_thread_may_ask(place: Place, bill_file: Path) -> None:
    store = place.store
    keys = [f"m3ter/{number}.csv" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(lambda key: put(store, bill_file, key), keys))
    assert [one.uri for one in stored] == [place.uri(key) for key in keys]
    assert sorted(store.uris("m3ter/")) == [one.uri for one in stored]


# What is only asked for leaves nothing


def test_a_probe_leaves_nothing(place: Place) -> None:
    place.store.probe(KEY)
    assert place.store.uris("") == place.unfinished() == []


def test_a_probe_leaves_what_stands_there(store: Store, bill_file: Path, tmp_path: Path) -> None:
    put(store, bill_file)
    store.probe(KEY)
    assert content(store, KEY, tmp_path) == ROWS


# What stands there is given


def test_an_object_is_named_by_key_or_uri(store: Store, bill_file: Path, tmp_path: Path) -> None:
    stored = put(store, bill_file)
    for where in (KEY, stored.uri):
        assert content(store, where, tmp_path) == store.read(where, at_most=len(ROWS)) == ROWS
        assert store.stat(where).bytes == len(ROWS)
        assert store.uris(where) == [stored.uri]


def test_an_object_of_another_bucket_is_given_by_its_uri(
    store: Store, new_place: NewPlace, bill_file: Path, tmp_path: Path
) -> None:
    other = put(new_place().store, bill_file)
    assert content(store, other.uri, tmp_path) == store.read(other.uri, at_most=1000) == ROWS
    assert store.uris(other.uri[:-3]) == [other.uri]
    assert store.uris(KEY) == []


def test_an_object_too_large_to_be_read_at_once_says_so(place: Place, bill_file: Path) -> None:
    store = place.store
    put(store, bill_file)
    says = f"^{place.uri()}: it has {len(ROWS)} bytes, and no more than {len(ROWS) - 1} are read at once$"
    with pytest.raises(ObjectUnreadable, match=says) as failed:
        store.read(KEY, at_most=len(ROWS) - 1)
    assert not isinstance(failed.value, ObjectMissing)


def test_what_begins_like_an_address_is_listed(store: Store, bill_file: Path) -> None:
    uris = [put(store, bill_file, f"m3ter/{name}.csv").uri for name in ("a1", "a2", "b1")]
    assert sorted(store.uris("m3ter/a")) == uris[:2]
    assert store.uris("m3ter/c") == []
    assert store.uris(uris[2]) == uris[2:]


def test_the_folders_that_begin_like_an_address_are_listed(place: Place, bill_file: Path) -> None:
    for name in ("m3ter/type=a/day=1/x.csv", "m3ter/type=a/day=2/x.csv", "m3ter/type=b/x.csv", "m3ter/type.csv"):
        put(place.store, bill_file, name)
    for where in ("m3ter/type", place.uri("m3ter/type")):
        assert sorted(place.store.folders(where)) == [place.uri("m3ter/type=a/"), place.uri("m3ter/type=b/")]
    assert place.store.folders("m3ter/type=a/") == [place.uri("m3ter/type=a/day=1/"), place.uri("m3ter/type=a/day=2/")]
    assert place.store.folders("m3ter/type=b/") == place.store.folders("other/") == []


@pytest.mark.slow
def test_more_are_listed_than_a_store_gives_at_once(place: Place) -> None:
    folders = [f"m3ter/{number:04}/" for number in range(place.listed_at_once + 1)]
    for folder in folders:
        place.put(f"{folder}x")
    assert sorted(place.store.uris("m3ter/")) == [place.uri(f"{folder}x") for folder in folders]
    assert sorted(place.store.folders("m3ter/")) == [place.uri(folder) for folder in folders]


@reading_calls
def test_what_is_not_there_is_missing(place: Place, tmp_path: Path, call: Call) -> None:
    with pytest.raises(ObjectMissing, match=f"^there is no object {place.uri()}$") as missing:
        call(place.store, tmp_path)
    assert "there is no such object." in str(missing.value.refusal)
    assert missing.value.refusal.is_permanent
    assert not (tmp_path / "fetched").exists()


# What is removed is gone


def test_what_is_removed_is_gone_and_may_be_removed_again(store: Store, bill_file: Path) -> None:
    stored, other = put(store, bill_file), put(store, bill_file, "m3ter/other.csv")
    for where in (KEY, stored.uri):
        store.remove(where)
        assert store.uris("") == [other.uri]
    put(store, bill_file)
    store.remove(stored.uri)
    assert store.uris("") == [other.uri]


# What a refusal says


@every_call
@pytest.mark.usefixtures("bill_file")
def test_a_missing_bucket_is_named(nowhere: Place, tmp_path: Path, call: Call, failure: type[StoreFailed]) -> None:
    with pytest.raises(failure) as failed:
        call(nowhere.store, tmp_path)
    refusal = failed.value.refusal
    assert refusal.uri == nowhere.uri()
    assert refusal.is_permanent
    # A HEAD has no body, so that it cannot say what of the two is missing.
    if not isinstance(failed.value, ObjectMissing):
        assert CREATE.search(str(refusal))


def test_a_missing_bucket_is_named_for_a_large_file(nowhere: Place, large_bill_file: Path) -> None:
    with pytest.raises(NotStored, match=CREATE):
        put(nowhere.store, large_bill_file)


@pytest.mark.parametrize("error", [OSError("odd {words}"), ValueError("odd {words}")])
def test_any_error_is_explained(place: Place, error: Exception) -> None:
    refusal = place.store.explain(error, KEY)
    assert (refusal.destination, refusal.uri) == ("warehouse", place.uri())
    assert "odd {words}" in str(refusal)


# What S3 refuses for reasons of its own


@pytest.fixture
def s3_place(s3_store: Any, s3_bucket: str) -> Store:
    return store_of(destination(s3_store, s3_bucket), max_attempts=1)


@every_call
@pytest.mark.usefixtures("bill_file")
def test_a_wrong_secret_is_refused_and_not_repeated(
    s3_place: Store,
    s3_store: Any,
    aws_key: Callable[[Key], None],
    tmp_path: Path,
    call: Call,
    failure: type[StoreFailed],
) -> None:
    aws_key(Key(s3_store.exporter.id, "not-the-secret"))
    with pytest.raises(failure) as failed:
        call(s3_place, tmp_path)
    assert "not-the-secret" not in f"{failed.value} {failed.value.refusal}"


def test_an_unknown_access_key_is_refused(
    s3_place: Store, s3_store: Any, bill_file: Path, aws_key: Callable[[Key], None]
) -> None:
    aws_key(Key("AKIAUNKNOWN", "secret"))
    with pytest.raises(NotStored, match="InvalidAccessKeyId on PutObject: check that AWS_ACCESS_KEY_ID") as failed:
        put(s3_place, bill_file)
    assert f"belongs to {s3_store.endpoint}" in str(failed.value)


@every_call
@pytest.mark.usefixtures("bill_file")
def test_missing_credentials_are_named(
    s3_place: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, call: Call, failure: type[StoreFailed]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(failure, match="NoCredentials: no AWS credentials were found: set AWS_ACCESS_KEY_ID") as failed:
        call(s3_place, tmp_path)
    assert failed.value.refusal.is_permanent


@every_call
@pytest.mark.usefixtures("bill_file")
def test_a_store_that_does_not_answer_is_named(
    s3_store: Any, s3_bucket: str, tmp_path: Path, call: Call, failure: type[StoreFailed]
) -> None:
    with proxy(s3_store.endpoint) as gone:
        pass
    store = store_of(destination(gone, s3_bucket), max_attempts=1)
    with pytest.raises(failure, match=f"EndpointConnection: {gone} cannot be reached: check endpointUrl") as failed:
        call(store, tmp_path)
    assert not failed.value.refusal.is_permanent


def test_nothing_is_asked_before_the_first_call(s3_store: Any, s3_bucket: str, bill_file: Path) -> None:
    asked = []
    with proxy(s3_store.endpoint, to_store=lambda data: asked.append(data) or data) as endpoint:
        store = store_of(destination(endpoint, s3_bucket), max_attempts=1)
        assert asked == []
        put(store, bill_file)
        assert asked
