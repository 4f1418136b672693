"""The ETag that S3 is expected to give a file."""

import hashlib

import pytest

from m3ter_dagster.delivery.fingerprints import PART_SIZE, Fingerprint, fingerprint


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


A_PART = bytes(PART_SIZE)
ETAGS = [
    (b"", md5(b"").hex()),
    (b"abc", "900150983cd24fb0d6963f7d28e17f72"),
    (A_PART[1:], md5(A_PART[1:]).hex()),
    (A_PART, f"{md5(md5(A_PART)).hex()}-1"),
    (A_PART + b"a", f"{md5(md5(A_PART) + md5(b'a')).hex()}-2"),
]


@pytest.mark.parametrize(("content", "etag"), ETAGS, ids=lambda value: len(value))
def test_a_file_is_known_by_size_sha256_and_etag(tmp_path, content, etag):
    file = tmp_path / "file"
    file.write_bytes(content)
    assert fingerprint(file) == Fingerprint(len(content), hashlib.sha256(content).hexdigest(), etag)
