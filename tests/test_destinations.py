"""The promises of Export Destinations, kept by every store."""

from __future__ import annotations

import hashlib

import pytest
from deliveries import EXPORT, KEY, ROWS, deliver, destination, destinations, refusal_of
from stores import Key
from tampering import proxy

from m3ter_dagster.delivery.destinations import Delivered, DeliveryFailed, FetchFailed, UnknownDestination
from m3ter_dagster.delivery.fingerprints import PART_SIZE as PART

pytestmark = pytest.mark.usefixtures("no_aws_settings")


# What every store gets


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


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1])
def test_a_file_of_any_size_arrives(s3_store, s3_bucket, bill_file, size):
    bill_file.write_bytes(bytes(size))
    assert deliver(destination(s3_store, s3_bucket), bill_file).bytes == size
    assert s3_store.content(s3_bucket, KEY) == bytes(size)


def test_a_large_file_arrives_in_parts_and_leaves_none_open(s3_store, s3_bucket, large_bill_file):
    delivered = deliver(destination(s3_store, s3_bucket), large_bill_file)
    assert s3_store.content(s3_bucket, KEY) == large_bill_file.read_bytes()
    assert delivered.sha256 == hashlib.sha256(large_bill_file.read_bytes()).hexdigest()
    assert s3_store.open_uploads(s3_bucket) == []


def test_an_object_is_replaced(s3_store, s3_bucket, bill_file):
    to = destination(s3_store, s3_bucket)
    deliver(to, bill_file)
    bill_file.write_bytes(b"later")
    deliver(to, bill_file)
    assert s3_store.content(s3_bucket, KEY) == b"later"
    assert s3_store.keys(s3_bucket) == [KEY]


def test_a_key_follows_the_destination(s3_store, s3_bucket, bill_file):
    to = destination(s3_store, s3_bucket, prefix="", partition_order="TYPE_FIRST")
    (delivered,) = destinations(to).deliver(bill_file, EXPORT, "manifest", to=["warehouse"], suffix="json")
    key = "orgId=org-1/type=manifest/date=2025-01-27/hour=10/b9a317a6_manifest.json"
    assert delivered.uri == f"s3://{s3_bucket}/{key}"
    assert s3_store.keys(s3_bucket) == [key]


@pytest.mark.parametrize(("suffix", "content_type"), [("csv", "text/csv; charset=utf-8"), ("json", "application/json")])
def test_an_object_has_its_content_type(moto_store, moto_bucket, bill_file, suffix, content_type):
    to = destination(moto_store, moto_bucket)
    (delivered,) = destinations(to).deliver(bill_file, EXPORT, "bill", to=["warehouse"], suffix=suffix)
    key = delivered.uri.removeprefix(f"s3://{moto_bucket}/")
    assert moto_store.client().head_object(Bucket=moto_bucket, Key=key)["ContentType"] == content_type


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
        destinations(first, broken, last).deliver(bill_file, EXPORT, "bill", to=["first", "broken", "last"])
    assert [one.destination for one in failed.value.delivered] == ["first", "last"]
    assert [one.destination for one in failed.value.failures] == ["broken"]
    assert len(s3_store.keys(s3_bucket)) == 2


def test_an_unknown_destination_delivers_nothing(s3_store, s3_bucket, bill_file):
    to = destination(s3_store, s3_bucket)
    with pytest.raises(UnknownDestination, match=r"no destination 'warehous'; known are warehouse\."):
        destinations(to).deliver(bill_file, EXPORT, "bill", to=["warehouse", "warehous"])
    assert s3_store.keys(s3_bucket) == []


# What a refusal says


@pytest.mark.usefixtures("s3_bucket")
def test_a_missing_bucket_is_named(s3_store, bill_file):
    said = refusal_of(destination(s3_store, "no-such-bucket"), bill_file)
    assert said.startswith(f"destination 'warehouse', s3://no-such-bucket/{KEY}: NoSuchBucket on PutObject: ")
    assert "create the bucket 'no-such-bucket', or correct bucketName" in said


@pytest.mark.usefixtures("s3_bucket")
def test_a_missing_bucket_is_named_for_a_large_file(s3_store, large_bill_file):
    said = refusal_of(destination(s3_store, "no-such-bucket"), large_bill_file)
    assert "create the bucket 'no-such-bucket', or correct bucketName" in said


def test_a_wrong_secret_is_refused_and_not_repeated(s3_store, s3_bucket, bill_file, aws_key):
    aws_key(Key(s3_store.exporter.id, "not-the-secret"))
    said = refusal_of(destination(s3_store, s3_bucket), bill_file)
    assert "SignatureDoesNotMatch on PutObject: the secret does not belong to the access key" in said
    assert "not-the-secret" not in said
    assert s3_store.keys(s3_bucket) == []


def test_an_unknown_access_key_is_refused(s3_store, s3_bucket, bill_file, aws_key):
    aws_key(Key("AKIAUNKNOWN", "secret"))
    said = refusal_of(destination(s3_store, s3_bucket), bill_file)
    assert "InvalidAccessKeyId on PutObject: check that AWS_ACCESS_KEY_ID" in said
    assert f"belongs to {s3_store.endpoint}" in said


def test_missing_credentials_are_named(s3_store, s3_bucket, bill_file, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "NoCredentials: no AWS credentials were found: set AWS_ACCESS_KEY_ID" in refusal_of(
        destination(s3_store, s3_bucket), bill_file
    )


def test_an_endpoint_that_does_not_answer_is_named(s3_store, s3_bucket, bill_file):
    with proxy(s3_store.endpoint) as gone:
        pass
    said = refusal_of(destination(gone, s3_bucket), bill_file)
    assert f"EndpointConnection: {gone} cannot be reached: check endpointUrl" in said


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
