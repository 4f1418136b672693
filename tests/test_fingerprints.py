"""The checksum and the ETag that S3 is expected to give a file."""

import base64
import hashlib
import zlib

import pytest

from m3ter_dagster.delivery.fingerprints import PART_SIZE, fingerprint


def md5(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()


def bytes_of(content: bytes) -> bytes:
    """The four bytes of a CRC32."""
    return zlib.crc32(content).to_bytes(4, "big")


def crc32(content: bytes) -> str:
    return base64.b64encode(bytes_of(content)).decode()


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
    found = fingerprint(file)
    assert (found.bytes, found.sha256, found.etag) == (len(content), hashlib.sha256(content).hexdigest(), etag)


@pytest.mark.parametrize(
    ("content", "crc32"),
    [
        (b"", "AAAAAA=="),
        (b"123456789", "y/Q5Jg=="),
        (A_PART[1:], crc32(A_PART[1:])),
        (A_PART, crc32(bytes_of(A_PART))),
        (A_PART + b"a", crc32(bytes_of(A_PART) + bytes_of(b"a"))),
    ],
    ids=lambda value: len(value),
)
def test_a_file_is_known_by_the_checksum_of_the_parts_that_it_is_sent_in(tmp_path, content, crc32):
    file = tmp_path / "file"
    file.write_bytes(content)
    assert fingerprint(file).crc32 == crc32
