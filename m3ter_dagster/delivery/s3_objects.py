"""Uploads one file as one object, reads it back, and uploads it again if it arrived altered."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    FlexibleChecksumError,
    HTTPClientError,
    SSLError,
)

from m3ter_dagster.delivery.fingerprints import PART_SIZE, Fingerprint
from m3ter_dagster.delivery.s3_clients import is_aws

UPLOADS = 3
# Answers that leave open whether the object was stored: the reply to an earlier attempt may have been lost.
LOST_REPLY = {"PreconditionFailed", "412", "ConditionalRequestConflict", "RequestTimeout"}
# Either the parts have become an object and the reply was lost, or somebody has ended the upload.
UPLOAD_IS_OVER = "NoSuchUpload"
# Stores that check what they receive say so with these; most do not check.
ALTERED_ON_THE_WAY = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}


@dataclass(frozen=True)
class Answer:
    """The result of an upload: the ETag of the object, and how it differs from the file, if it does."""

    etag: str = ""
    difference: str | None = None
    is_stored: bool = True


class ObjectDiffers(Exception):
    """The store does not hold what was sent to it, however often it was sent."""

    def __init__(self, difference: str, aftermath: str) -> None:
        advice = "look for a proxy or a store that alters what it is sent"
        super().__init__(f"after {UPLOADS} uploads {difference}; {aftermath}; {advice}")


def put(client: Any, file: Path, sent: Fingerprint, *, bucket: str, key: str, extra: Mapping[str, str]) -> str:
    """Upload the file, check that it arrived, and return its ETag. An altered object is removed."""
    where = {"Bucket": bucket, "Key": key}
    if is_aws(client.meta.endpoint_url):
        extra = {**extra, "ChecksumAlgorithm": "CRC32"}
    answer = Answer()
    for _ in range(UPLOADS):
        answer = _upload_and_look(client, file, sent, where, extra)
        if answer.difference is None:
            return answer.etag
    raise ObjectDiffers(answer.difference or "", _remove(client, where) if answer.is_stored else "nothing was stored")


def probe(client: Any, *, bucket: str, key: str, extra: Mapping[str, str]) -> None:
    """Begin an upload in parts and end it: that needs what a whole upload needs, and leaves nothing.

    Without s3:AbortMultipartUpload it stays, empty, as those of failed deliveries do.
    """
    where = {"Bucket": bucket, "Key": key}
    try:
        begun = client.create_multipart_upload(**where, **extra)
    except (BotoCoreError, ClientError) as error:
        if _may_have_arrived(error):
            _abort_uploads(client, where)
        raise
    with suppress(BotoCoreError, ClientError):
        client.abort_multipart_upload(**where, UploadId=begun["UploadId"])
    # Another may be open: of an earlier try whose answer was lost, or of a process that died in its probe.
    _abort_uploads(client, where)


def download(client: Any, *, bucket: str, key: str, to: Path) -> None:
    """Download an object to a file that appears under its name only when it is whole."""
    from boto3.exceptions import RetriesExceededError

    try:
        client.download_file(bucket, key, str(to), Config=_in_parts())
    except RetriesExceededError as error:
        raise ConnectionClosedError(endpoint_url=client.meta.endpoint_url) from error


def _upload_and_look(
    client: Any, file: Path, sent: Fingerprint, where: Mapping[str, str], extra: Mapping[str, str]
) -> Answer:
    try:
        _upload(client, file, where, extra)
    except (BotoCoreError, ClientError) as error:
        _end_open_uploads(client, sent, where, after=error)
        answer = _answer_behind(error, client, sent, where)
        if answer is None:
            raise
        return answer
    _end_open_uploads(client, sent, where)
    return _look(client, sent, where)


def _upload(client: Any, file: Path, where: Mapping[str, str], extra: Mapping[str, str]) -> None:
    """Upload the file, from PART_SIZE on in parts: a single PUT may not exceed 5 GiB."""
    from boto3.exceptions import S3UploadFailedError

    try:
        client.upload_file(str(file), **where, ExtraArgs=dict(extra), Config=_in_parts())
    except S3UploadFailedError as wrapped:
        if isinstance(wrapped.__context__, ClientError):
            raise wrapped.__context__ from None
        raise


def _in_parts() -> Any:
    """How transfers are cut into parts, uploads and downloads alike.

    Some stores send the checksum of a whole object with a part of another size, which botocore then refuses. The other
    transfer client (CRT) chooses its own part sizes, and with them another ETag.
    """
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=PART_SIZE, multipart_chunksize=PART_SIZE, preferred_transfer_client="classic"
    )


def _look(client: Any, sent: Fingerprint, where: Mapping[str, str]) -> Answer:
    """Compare the object with the file: its checksum, its ETag, or, if that is no digest (KMS), all of it.

    Only AWS is known to hold what it receives against the checksum; other stores may keep what they were told.
    """
    checked = {"ChecksumMode": "ENABLED"} if is_aws(client.meta.endpoint_url) else {}
    try:
        head = client.head_object(**where, **checked)
    except ClientError as error:
        if _status(error) != 404:
            raise
        return Answer(difference="nothing stands under that key", is_stored=False)
    etag = head.get("ETag", "").strip('" ')
    if head["ContentLength"] != sent.bytes:
        return Answer(etag, f"the object has {head['ContentLength']} bytes and the file {sent.bytes}")
    crc32, _, _number_of_parts = head.get("ChecksumCRC32", "").partition("-")
    if (checked and crc32 == sent.crc32) or etag == sent.etag:
        return Answer(etag)
    try:
        read_back = hashlib.sha256()
        for chunk in client.get_object(**where)["Body"].iter_chunks(1024 * 1024):
            read_back.update(chunk)
    except FlexibleChecksumError:
        return Answer(etag, "the object does not have the checksum that was sent with it")
    if read_back.hexdigest() == sent.sha256:
        return Answer(etag)
    return Answer(etag, f"the object has the sha256 {read_back.hexdigest()} and the file {sent.sha256}")


def _answer_behind(error: Exception, client: Any, sent: Fingerprint, where: Mapping[str, str]) -> Answer | None:
    """What became of a failed upload; None where the failure is all there is to say."""
    code = _code(error)
    if code in ALTERED_ON_THE_WAY:
        return Answer(difference=f"the store refused the file as altered on the way ({code})", is_stored=False)
    if code == UPLOAD_IS_OVER or _may_have_arrived(error):
        # When looking fails too, the failure of the upload is the one to report.
        with suppress(BotoCoreError, ClientError):
            answer = _look(client, sent, where)
            # Unless something shows that an object was made, one that differs may be that of the last delivery.
            return answer if answer.difference is None or code == UPLOAD_IS_OVER else None
    return None


def _end_open_uploads(
    client: Any, sent: Fingerprint, where: Mapping[str, str], *, after: Exception | None = None
) -> None:
    """Abort unfinished uploads: the transfer misses one whose id it never learned, or that a killed run left."""
    if sent.bytes >= PART_SIZE and (after is None or _was_sent(after)):
        _abort_uploads(client, where)


def _abort_uploads(client: Any, where: Mapping[str, str]) -> None:
    # Not every role may list uploads, and the outcome of what was asked for is what counts.
    with suppress(BotoCoreError, ClientError):
        listed = client.list_multipart_uploads(Bucket=where["Bucket"], Prefix=where["Key"])
        for upload in listed.get("Uploads", []):
            if upload["Key"] == where["Key"]:
                client.abort_multipart_upload(**where, UploadId=upload["UploadId"])


def _remove(client: Any, where: Mapping[str, str]) -> str:
    try:
        client.delete_object(**where)
    except (BotoCoreError, ClientError):
        return "it could not be removed: delete it"
    return "it was removed"


def _was_sent(error: Exception) -> bool:
    """Whether a request was sent. Without a connection or credentials, asking again only takes time."""
    return isinstance(error, ClientError) or (isinstance(error, HTTPClientError) and not isinstance(error, SSLError))


def _may_have_arrived(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return _code(error) in LOST_REPLY or _status(error) >= 500
    return _was_sent(error)


def _code(error: Exception) -> str:
    return error.response.get("Error", {}).get("Code", "") if isinstance(error, ClientError) else ""


def _status(error: ClientError) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
