"""What is read back counts: bytes altered on the way, replies that never come, connections that break off."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError
from deliveries import KEY, MARK, ROWS, deliver, destination, refusal_of
from tampering import BreakOff, Tamper, proxy

from m3ter_dagster.delivery.destinations import store_of
from m3ter_dagster.delivery.fingerprints import PART_SIZE, fingerprint
from m3ter_dagster.delivery.s3_objects import probe

pytestmark = pytest.mark.usefixtures("no_aws_settings")

ALTERED = bytes([MARK[0] ^ 1]) + MARK[1:]
ALWAYS = 1_000_000
AWS = "http://s3.us-east-1.amazonaws.com"


def replacing(old: bytes, new: bytes, *, times: int) -> Tamper:
    """Alter what is sent the first `times` times."""
    left = [times]

    def tamper(data: bytes) -> bytes:
        if old in data and left[0] > 0:
            left[0] -= 1
            return data.replace(old, new)
        return data

    return tamper


def shortening(body: bytes, *, by: int) -> Tamper:
    """Cut the body's end off, and say so in the header."""
    told, left = f"Content-Length: {len(body)}".encode(), f"Content-Length: {len(body) - by}".encode()
    return lambda data: data.replace(told, left).replace(body, body[:-by])


def breaking_off_bodies(*, after: int, times: int) -> Tamper:
    """Reset the connection in mid body, once `after` bytes have passed."""
    passed, left = [0], [times]

    def tamper(data: bytes) -> bytes:
        passed[0] += len(data)
        if passed[0] > after and len(data) > 16_384 and left[0] > 0:
            left[0] -= 1
            raise BreakOff
        return data

    return tamper


def losing_the_reply(request: Callable[[bytes], bool]) -> tuple[Tamper, Tamper]:
    """Let one such request through, and reset the connection instead of passing on the store's answer to it."""
    awaiting, lost = [], []

    def to_store(data: bytes) -> bytes:
        if not lost and request(data):
            awaiting.append(data)
        return data

    def to_client(data: bytes) -> bytes:
        if awaiting and not lost and not data.startswith(b"HTTP/1.1 100"):
            lost.append(data)
            raise BreakOff
        return data

    return to_store, to_client


def is_completion(data: bytes) -> bool:
    return data.startswith(b"POST ") and b"uploadId=" in data.split(b"\r\n", 1)[0]


def is_body(data: bytes) -> bool:
    return ROWS in data


@pytest.mark.parametrize("size", [PART_SIZE - 1, PART_SIZE, PART_SIZE + 1])
def test_a_file_travels_in_the_parts_that_its_etag_is_made_of(moto_store, moto_bucket, bill_file, size):
    """So that it need not be read back whole to be compared, where the store makes ETags as AWS does."""
    bill_file.write_bytes(bytes(size))
    assert deliver(destination(moto_store, moto_bucket), bill_file).etag == fingerprint(bill_file).etag


def test_a_body_altered_once_is_repaired(s3_store, s3_bucket, bill_file):
    bill_file.write_bytes(MARK)
    with proxy(s3_store.endpoint, to_store=replacing(MARK, ALTERED, times=1)) as endpoint:
        deliver(destination(endpoint, s3_bucket), bill_file)
    assert s3_store.content(s3_bucket, KEY) == MARK


def test_a_part_altered_once_is_repaired(s3_store, s3_bucket, large_bill_file):
    with proxy(s3_store.endpoint, to_store=replacing(MARK, ALTERED, times=1)) as endpoint:
        deliver(destination(endpoint, s3_bucket), large_bill_file)
    assert s3_store.content(s3_bucket, KEY) == large_bill_file.read_bytes()


def test_a_body_altered_every_time_is_an_error_and_leaves_nothing(s3_store, s3_bucket, bill_file):
    bill_file.write_bytes(MARK)
    with proxy(s3_store.endpoint, to_store=replacing(MARK, ALTERED, times=ALWAYS)) as endpoint:
        said = refusal_of(destination(endpoint, s3_bucket), bill_file)
    assert "ObjectDiffers: after 3 uploads the object does not have the checksum that was sent with it; " in said
    assert said.endswith("it was removed; look for a proxy or a store that alters what it is sent.")
    assert s3_store.keys(s3_bucket) == []


def test_a_store_that_keeps_no_checksum_is_compared_by_sha256(s3_store, s3_bucket, bill_file, monkeypatch):
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    bill_file.write_bytes(MARK)
    with proxy(s3_store.endpoint, to_store=replacing(MARK, ALTERED, times=ALWAYS)) as endpoint:
        said = refusal_of(destination(endpoint, s3_bucket), bill_file)
    sha256 = [hashlib.sha256(content).hexdigest() for content in (ALTERED, MARK)]
    assert "the object has the sha256 {} and the file {}; it was removed".format(*sha256) in said


def test_a_body_cut_short_is_an_error(s3_store, s3_bucket, bill_file):
    """The store hears of fewer bytes and gets fewer."""
    bill_file.write_bytes(MARK)
    shorter = shortening(MARK, by=3)
    with proxy(s3_store.endpoint, to_store=shorter) as endpoint:
        said = refusal_of(destination(endpoint, s3_bucket), bill_file)
    assert f"the object has {len(MARK) - 3} bytes and the file {len(MARK)}; it was removed" in said


def test_an_altered_object_that_may_not_be_removed_is_said_to_stand(moto_store, moto_bucket, bill_file, aws_key):
    aws_key(moto_store.keeper)
    bill_file.write_bytes(MARK)
    with proxy(moto_store.endpoint, to_store=replacing(MARK, ALTERED, times=ALWAYS)) as endpoint:
        said = refusal_of(destination(endpoint, moto_bucket), bill_file)
    assert "it could not be removed: delete it" in said


@pytest.mark.parametrize("file", ["bill_file", "large_bill_file"])
@pytest.mark.parametrize("checksum", ["as sent", "another", "none"])
def test_at_aws_the_checksum_is_proof_and_only_where_it_is_none_the_object_is_read_back(
    moto_store, moto_bucket, request, monkeypatch, file, checksum
):
    """With KMS the ETag is no digest. Moto is behind the address of AWS here."""
    sent, requests = request.getfixturevalue(file), []
    headers = {"another": b"x-amz-checksum-crc32: AAAAAA==", "none": b"x-other: "}

    def to_store(data: bytes) -> bytes:
        requests.append(data.split(b" ", 1)[0])
        return data

    def to_client(data: bytes) -> bytes:
        if requests[-1] != b"HEAD":
            return data
        data = re.sub(rb'(?i)(etag: )"[^"]*"', rb'\1"0"', data)
        return re.sub(rb"(?i)x-amz-checksum-crc32: [^\r]*", headers.get(checksum, rb"\g<0>"), data)

    with proxy(moto_store.endpoint, to_store=to_store, to_client=to_client) as endpoint:
        monkeypatch.setenv("HTTP_PROXY", endpoint)
        assert deliver(destination(AWS, moto_bucket), sent).bytes == sent.stat().st_size
    assert (b"GET" in requests[requests.index(b"HEAD") :]) == (checksum != "as sent")
    assert moto_store.content(moto_bucket, KEY) == sent.read_bytes()


@pytest.mark.parametrize("etag", ["0" * 32, " " * 32])
def test_a_store_whose_etag_is_no_digest_is_read_back_whole(s3_store, s3_bucket, bill_file, etag):
    """As with KMS, and with stores that give none at times."""
    own = hashlib.md5(ROWS, usedforsecurity=False).hexdigest().encode()
    with proxy(s3_store.endpoint, to_client=replacing(own, etag.encode(), times=ALWAYS)) as endpoint:
        assert deliver(destination(endpoint, s3_bucket), bill_file).etag == etag.strip()


def test_a_connection_that_breaks_off_once_is_survived(s3_store, s3_bucket, large_bill_file):
    breaking = breaking_off_bodies(after=20_000_000, times=1)
    with proxy(s3_store.endpoint, to_store=breaking) as endpoint:
        deliver(destination(endpoint, s3_bucket), large_bill_file)
    assert s3_store.content(s3_bucket, KEY) == large_bill_file.read_bytes()
    assert s3_store.open_uploads(s3_bucket) == []


def test_a_connection_that_keeps_breaking_off_leaves_nothing(s3_store, s3_bucket, large_bill_file):
    breaking = breaking_off_bodies(after=20_000_000, times=ALWAYS)
    with proxy(s3_store.endpoint, to_store=breaking) as endpoint:
        said = refusal_of(destination(endpoint, s3_bucket), large_bill_file)
        assert f"{endpoint} broke off the connection: run the export again later" in said
    assert s3_store.keys(s3_bucket) == []
    assert s3_store.open_uploads(s3_bucket) == []


def test_the_object_of_the_last_delivery_stays_when_the_next_breaks_off(s3_store, s3_bucket, large_bill_file):
    s3_store.client().put_object(Bucket=s3_bucket, Key=KEY, Body=ROWS)
    with proxy(s3_store.endpoint, to_store=breaking_off_bodies(after=0, times=ALWAYS)) as endpoint:
        refusal_of(destination(endpoint, s3_bucket), large_bill_file)
    assert s3_store.content(s3_bucket, KEY) == ROWS


def test_a_lost_reply_to_an_upload_is_looked_into(s3_store, s3_bucket, bill_file):
    to_store, to_client = losing_the_reply(is_body)
    with proxy(s3_store.endpoint, to_store=to_store, to_client=to_client) as endpoint:
        deliver(destination(endpoint, s3_bucket), bill_file, retries=0)
    assert s3_store.content(s3_bucket, KEY) == ROWS


@pytest.mark.parametrize("retries", [0, 1])
def test_a_lost_reply_to_the_end_of_a_large_upload_is_looked_into(s3_store, s3_bucket, large_bill_file, retries):
    """The second attempt is told that there is no such upload, because the first completed it."""
    to_store, to_client = losing_the_reply(is_completion)
    with proxy(s3_store.endpoint, to_store=to_store, to_client=to_client) as endpoint:
        deliver(destination(endpoint, s3_bucket), large_bill_file, retries=retries)
    assert s3_store.content(s3_bucket, KEY) == large_bill_file.read_bytes()
    assert s3_store.open_uploads(s3_bucket) == []


def test_a_part_altered_before_a_lost_reply_to_the_end_is_repaired(s3_store, s3_bucket, large_bill_file):
    """That there is no such upload any more says that an object was made, and not which."""
    altering = replacing(MARK, ALTERED, times=1)
    losing, to_client = losing_the_reply(is_completion)
    with proxy(s3_store.endpoint, to_store=lambda data: losing(altering(data)), to_client=to_client) as endpoint:
        deliver(destination(endpoint, s3_bucket), large_bill_file, retries=1)
    assert s3_store.content(s3_bucket, KEY) == large_bill_file.read_bytes()


def test_an_upload_that_somebody_else_ended_begins_anew(rclone_store, aws_key, large_bill_file):
    """As a lifecycle rule does, or another run of the same export."""
    aws_key(rclone_store.exporter)
    client, bucket, ended = rclone_store.client(), rclone_store.new_bucket(), []

    def ending(data: bytes) -> bytes:
        if not ended and is_completion(data):
            ended.extend(rclone_store.open_uploads(bucket))
            client.abort_multipart_upload(Bucket=bucket, Key=KEY, UploadId=ended[0]["UploadId"])
        return data

    with proxy(rclone_store.endpoint, to_store=ending) as endpoint:
        deliver(destination(endpoint, bucket), large_bill_file)
    assert rclone_store.content(bucket, KEY) == large_bill_file.read_bytes()


def test_uploads_that_a_killed_run_left_open_under_the_key_are_ended(s3_store, s3_bucket, large_bill_file):
    s3_store.client().create_multipart_upload(Bucket=s3_bucket, Key=KEY)
    s3_store.client().create_multipart_upload(Bucket=s3_bucket, Key=KEY + ".not-ours")
    deliver(destination(s3_store, s3_bucket), large_bill_file)
    assert [one["Key"] for one in s3_store.open_uploads(s3_bucket)] == [KEY + ".not-ours"]


def test_an_upload_of_a_process_that_died_in_its_probe_is_ended_by_the_next_probe(moto_store, moto_bucket):
    client = moto_store.client()
    for key in (KEY, f"{KEY}.not-ours"):
        client.create_multipart_upload(Bucket=moto_bucket, Key=key)
    probe(client, bucket=moto_bucket, key=KEY, extra={})
    assert [one["Key"] for one in moto_store.open_uploads(moto_bucket)] == [f"{KEY}.not-ours"]


def test_a_bucket_with_object_lock_takes_exports_and_keeps_what_is_replaced_or_removed(
    moto_store, moto_bucket, bill_file
):
    """Such a bucket wants a checksum with each request, and deletes nothing: what is removed is only hidden."""
    client, bucket = moto_store.client(), f"{moto_bucket}-locked"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
    client.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock)
    store = store_of(destination(moto_store, bucket), max_attempts=1)
    store.probe(KEY)
    for content in (MARK, b"x" * (PART_SIZE + 1), ROWS):
        bill_file.write_bytes(content)
        store.put(bill_file, KEY, sent=fingerprint(bill_file), content_type="text/csv")
        assert moto_store.content(bucket, KEY) == content
    store.remove(KEY)
    assert store.uris("") == []
    versions = client.list_object_versions(Bucket=bucket)["Versions"]
    assert len(versions) == 3
    with pytest.raises(ClientError, match="AccessDenied"):
        client.delete_object(Bucket=bucket, Key=KEY, VersionId=versions[0]["VersionId"])
