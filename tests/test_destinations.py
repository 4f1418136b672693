"""Files of an export to several destinations, each under its own key, and back from any of them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict
from urllib.parse import unquote

import pytest
from deliveries import CSV, EXPORT, KEY, ROWS, deliver, destination, destinations, refusal_of
from tampering import BreakOff, proxy

from m3ter_dagster.delivery.destinations import (
    JSON,
    PARQUET,
    Delivered,
    DeliveryFailed,
    EveryDestinationRefuses,
    FetchFailed,
    UnknownDestination,
)

pytestmark = pytest.mark.usefixtures("no_aws_settings")


def test_a_delivered_object_holds_the_files_bytes(s3_store, s3_bucket, bill_file):
    delivered = deliver(destination(s3_store, s3_bucket), bill_file)
    assert s3_store.content(s3_bucket, KEY) == ROWS
    assert delivered == Delivered(
        destination="warehouse",
        uri=f"s3://{s3_bucket}/{KEY}",
        bytes=len(ROWS),
        sha256=hashlib.sha256(ROWS).hexdigest(),
        etag=hashlib.md5(ROWS).hexdigest(),
    )


def test_a_key_follows_the_destination(s3_store, s3_bucket, bill_file):
    to = destination(s3_store, s3_bucket, prefix="", partition_order="TYPE_FIRST")
    (delivered,) = destinations(to).deliver(bill_file, EXPORT, "manifest", to=["warehouse"], kind=JSON)
    key = "orgId=org-1/type=manifest/date=2025-01-27/hour=10/b9a317a6_manifest.json"
    assert delivered.uri == f"s3://{s3_bucket}/{key}"
    assert s3_store.keys(s3_bucket) == [key]


@pytest.mark.parametrize(
    ("kind", "suffix", "content_type"),
    [
        (CSV, ".csv", "text/csv; charset=utf-8"),
        (JSON, ".json", "application/json"),
        (PARQUET, ".parquet", "application/vnd.apache.parquet"),
    ],
)
def test_an_object_is_named_and_typed_after_its_kind(moto_store, moto_bucket, bill_file, kind, suffix, content_type):
    to = destination(moto_store, moto_bucket)
    (delivered,) = destinations(to).deliver(bill_file, EXPORT, "bill", to=["warehouse"], kind=kind)
    key = delivered.uri.removeprefix(f"s3://{moto_bucket}/")
    assert key == KEY.removesuffix(".csv") + suffix
    assert moto_store.client().head_object(Bucket=moto_bucket, Key=key)["ContentType"] == content_type


def test_an_object_may_have_a_name_of_its_own(moto_store, moto_bucket, bill_file):
    to = destination(moto_store, moto_bucket)
    (delivered,) = destinations(to).deliver(bill_file, EXPORT, "bill", to=["warehouse"], kind=CSV, name="bill_keys")
    assert delivered.uri.endswith("/type=bill/b9a317a6_bill_keys.csv")


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ({"server_side_encryption": "AES256"}, {"ServerSideEncryption": "AES256"}),
        (
            {"server_side_encryption": "aws:kms", "kms_key_id": "alias/exports"},
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/exports"},
        ),
    ],
)
def test_an_object_is_encrypted_as_asked(moto_store, moto_bucket, bill_file, asked, answered):
    deliver(destination(moto_store, moto_bucket, **asked), bill_file)
    assert moto_store.client().head_object(Bucket=moto_bucket, Key=KEY).items() >= answered.items()


def test_a_delivery_is_fetched_by_uri_or_key(s3_store, s3_bucket, bill_file, tmp_path):
    to = destination(s3_store, s3_bucket)
    delivered = deliver(to, bill_file)
    for name in (delivered.uri, KEY):
        destinations(to).fetch("warehouse", name, tmp_path / "fetched.csv")
        assert (tmp_path / "fetched.csv").read_bytes() == ROWS


def test_fetching_what_is_not_there_says_so(s3_store, s3_bucket, tmp_path):
    with pytest.raises(FetchFailed, match=rf"s3://{s3_bucket}/nothing: .*there is no such object\."):
        destinations(destination(s3_store, s3_bucket)).fetch("warehouse", "nothing", tmp_path / "fetched.csv")
    assert list(tmp_path.iterdir()) == []


def test_one_destination_that_refuses_does_not_keep_the_others_from_the_file(s3_store, s3_bucket, bill_file):
    first, broken, last = (
        destination(s3_store, s3_bucket, "first", prefix="first"),
        destination(s3_store, "no-such-bucket", "broken"),
        destination(s3_store, s3_bucket, "last", prefix="last"),
    )
    with pytest.raises(DeliveryFailed, match="It was delivered to: first, last") as failed:
        destinations(first, broken, last).deliver(bill_file, EXPORT, "bill", to=["first", "broken", "last"], kind=CSV)
    assert [one.destination for one in failed.value.delivered] == ["first", "last"]
    assert [one.destination for one in failed.value.failures] == ["broken"]
    assert len(s3_store.keys(s3_bucket)) == 2


def test_an_unknown_destination_delivers_nothing(s3_store, s3_bucket, bill_file):
    to = destination(s3_store, s3_bucket)
    with pytest.raises(UnknownDestination, match=r"no destination 'warehous'; known are warehouse\."):
        destinations(to).deliver(bill_file, EXPORT, "bill", to=["warehouse", "warehous"], kind=CSV)
    assert s3_store.keys(s3_bucket) == []


def test_a_destination_that_would_take_nothing_is_known_before_there_is_a_file(moto_store, moto_bucket):
    good, denied, broken = (
        destination(moto_store, moto_bucket, "good"),
        destination(moto_store, moto_bucket, "denied", prefix="denied"),
        destination(moto_store, "no-such-bucket", "broken"),
    )
    to = destinations(good, denied, broken)
    assert to.probe(["good"], EXPORT) == []
    refusals = to.probe(["denied", "good", "broken"], EXPORT)
    assert [one.destination for one in refusals] == ["denied", "broken"]
    allowed = f"allow s3:PutObject on arn:aws:s3:::{moto_bucket}/denied/* to the credentials in use"
    assert f"AccessDenied on CreateMultipartUpload: {allowed}" in str(refusals[0])
    with pytest.raises(EveryDestinationRefuses, match="nothing was read, since no destination") as failed:
        to.probe(["denied", "broken"], EXPORT)
    assert all(f"  destination '{code}', s3://" in str(failed.value) for code in ("denied", "broken"))
    assert moto_store.keys(moto_bucket) == []


def test_a_store_that_is_down_now_may_be_back_when_there_is_a_file(moto_store, moto_bucket):
    with proxy(moto_store.endpoint) as gone:
        pass
    assert destinations(destination(gone, moto_bucket)).probe(["warehouse"], EXPORT) == []


def test_a_probe_is_of_the_key_that_the_manifest_will_have(moto_store, moto_bucket):
    asked: list[bytes] = []
    with proxy(moto_store.endpoint, to_store=lambda data: asked.append(data) or data) as endpoint:
        destinations(destination(endpoint, moto_bucket)).probe(["warehouse"], EXPORT)
    of_objects = [one for one in asked if one.startswith((b"POST ", b"DELETE "))]
    paths = [unquote(one.split(b" ")[1].partition(b"?")[0].decode()) for one in of_objects]
    assert {path.partition("orgId=")[0] for path in paths} == {f"/{moto_bucket}/m3ter/"}
    assert [path.rpartition("/type=")[2] for path in paths] == [f"manifest/{EXPORT.id}_manifest.json"] * 2


def test_a_destination_that_failed_is_not_waited_for_as_long_with_the_next_file(moto_store, moto_bucket, bill_file):
    """Until it takes one again."""
    asked, is_down = [], [True]

    def to_store(data: bytes) -> bytes:
        if data.startswith(b"PUT "):
            asked.append(data)
            if is_down[0]:
                raise BreakOff
        return data

    with proxy(moto_store.endpoint, to_store=to_store) as endpoint:
        to = destinations(destination(endpoint, moto_bucket), retries=3)
        tries = []
        for is_down[0] in (True, True, False, True):
            asked.clear()
            with suppress(DeliveryFailed):
                to.deliver(bill_file, EXPORT, "bill", to=["warehouse"], kind=CSV)
            tries.append(len(asked))
    assert tries[0] > tries[1]
    assert tries[2:] == [1, tries[0]]


def test_a_file_is_fetched_from_the_first_destination_that_gives_it(s3_store, s3_bucket, bill_file, tmp_path):
    to = destinations(destination(s3_store, s3_bucket))
    (delivered,) = to.deliver(bill_file, EXPORT, "bill", to=["warehouse"], kind=CSV)
    gone = {"destination": "warehouse", "uri": f"s3://{s3_bucket}/gone"}
    removed = {"destination": "archive", "uri": delivered.uri}
    to.fetch_any([gone, removed, asdict(delivered)], tmp_path / "fetched.csv")
    assert (tmp_path / "fetched.csv").read_bytes() == ROWS
    with pytest.raises(FetchFailed):
        to.fetch_any([removed, gone], tmp_path / "fetched.csv")


def test_a_file_that_must_be_as_delivered_is_fetched_from_where_it_is(moto_store, moto_bucket, bill_file, tmp_path):
    to = destinations(destination(moto_store, moto_bucket))
    (delivered,) = to.deliver(bill_file, EXPORT, "bill", to=["warehouse"], kind=CSV)
    altered = {**asdict(delivered), "sha256": "0" * 64}
    to.fetch_any([altered, asdict(delivered)], tmp_path / "fetched.csv", verified=True)
    assert (tmp_path / "fetched.csv").read_bytes() == ROWS
    with pytest.raises(FetchFailed, match=r"warehouse', s3://.*: Altered: the object has another sha256 than the file"):
        to.fetch_any([altered], tmp_path / "fetched.csv", verified=True)


def test_a_file_that_several_need_is_fetched_once(moto_store, moto_bucket, bill_file, tmp_path):
    to = destinations(destination(moto_store, moto_bucket))
    objects = [asdict(one) for one in to.deliver(bill_file, EXPORT, "bill", to=["warehouse"], kind=CSV)]
    altered = [{**objects[0], "sha256": "0" * 64}]
    for _ in range(2):
        with pytest.raises(FetchFailed, match="Altered"):
            to.fetch_once(altered, tmp_path)
    kept = to.fetch_once(objects, tmp_path)
    to.remove("warehouse", objects[0]["uri"])
    assert to.fetch_once(objects, tmp_path) == kept
    assert kept.read_bytes() == ROWS


# What a refusal says


@pytest.mark.usefixtures("s3_bucket")
def test_a_refusal_names_destination_and_object(s3_store, bill_file):
    said = refusal_of(destination(s3_store, "no-such-bucket"), bill_file)
    assert said.startswith(f"destination 'warehouse', s3://no-such-bucket/{KEY}: NoSuchBucket on PutObject: ")


def test_a_denied_prefix_is_named(moto_store, moto_bucket, bill_file):
    said = refusal_of(destination(moto_store, moto_bucket, prefix="denied"), bill_file)
    allowed = f"allow s3:PutObject on arn:aws:s3:::{moto_bucket}/denied/* to the credentials in use"
    assert f"AccessDenied on PutObject: {allowed}" in said
    assert moto_store.keys(moto_bucket) == []


def test_a_denied_prefix_is_named_for_a_large_file(moto_store, moto_bucket, large_bill_file):
    said = refusal_of(destination(moto_store, moto_bucket, prefix="denied"), large_bill_file)
    assert f"allow s3:PutObject on arn:aws:s3:::{moto_bucket}/denied/* to the credentials in use" in said
    assert moto_store.open_uploads(moto_bucket) == []


def test_a_key_that_may_write_and_not_read_is_told_to_ask_for_it(moto_store, moto_bucket, bill_file, aws_key):
    aws_key(moto_store.writer)
    said = refusal_of(destination(moto_store, moto_bucket), bill_file)
    assert f"on HeadObject: allow s3:GetObject on arn:aws:s3:::{moto_bucket}/m3ter/*" in said
