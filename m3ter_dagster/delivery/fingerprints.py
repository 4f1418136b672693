"""The fingerprint of a file that a store can be asked about: size, sha256, and the checksum and the ETag of S3."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PART_SIZE = 16 * 1024 * 1024
"""Files of this size or more are sent in parts of this size, on which checksum and ETag depend."""
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Fingerprint:
    bytes: int
    sha256: str
    crc32: str
    """The checksum that S3 gives an object which is sent with CRC32: for one in parts, that of the parts' checksums."""
    file: Path = field(compare=False, repr=False)

    @cached_property
    def etag(self) -> str:
        """The ETag where S3 derives it from the content, that is without KMS; empty if the file is no longer the same.

        It takes longer than all the rest, and not every store is asked for it.
        """
        md5, crc32 = [hashlib.md5(usedforsecurity=False)], [0]
        for chunk, begins_part in _chunks(self.file):
            if begins_part:
                md5.append(hashlib.md5(usedforsecurity=False))
                crc32.append(0)
            md5[-1].update(chunk)
            crc32[-1] = zlib.crc32(chunk, crc32[-1])
        if _checksum(crc32, self.bytes) != self.crc32:
            return ""
        if self.bytes < PART_SIZE:
            return md5[0].hexdigest()
        of_parts = hashlib.md5(b"".join(part.digest() for part in md5), usedforsecurity=False)
        return f"{of_parts.hexdigest()}-{len(md5)}"


def fingerprint(file: Path) -> Fingerprint:
    """The fingerprint of the file."""
    sha256, crc32, size = hashlib.sha256(), [0], 0
    for chunk, begins_part in _chunks(file):
        if begins_part:
            crc32.append(0)
        sha256.update(chunk)
        crc32[-1] = zlib.crc32(chunk, crc32[-1])
        size += len(chunk)
    return Fingerprint(size, sha256.hexdigest(), _checksum(crc32, size), file)


def _chunks(file: Path) -> Iterator[tuple[bytes, bool]]:
    """The file chunk by chunk, and whether one begins a part after the first."""
    place = 0
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            yield chunk, place > 0 and place % PART_SIZE == 0
            place += len(chunk)


def _checksum(parts: Sequence[int], size: int) -> str:
    """Of an object of this size, from the CRC32 of its parts."""
    of_parts = [part.to_bytes(4, "big") for part in parts]
    crc32 = of_parts[0] if size < PART_SIZE else zlib.crc32(b"".join(of_parts)).to_bytes(4, "big")
    return base64.b64encode(crc32).decode()
