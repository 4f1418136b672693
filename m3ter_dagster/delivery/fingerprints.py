"""The fingerprint of a file that a store can be asked about: size, sha256, and the ETag of S3."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

PART_SIZE = 16 * 1024 * 1024
"""Files of this size or more are sent in parts of this size, on which their ETag depends."""


@dataclass(frozen=True)
class Fingerprint:
    bytes: int
    sha256: str
    etag: str
    """The ETag where S3 derives it from the content, that is without KMS."""


def fingerprint(file: Path) -> Fingerprint:
    """The fingerprint of the file, which is read once."""
    sha256, parts, size = hashlib.sha256(), [], 0
    with file.open("rb") as content:
        for part in iter(partial(content.read, PART_SIZE), b""):
            sha256.update(part)
            parts.append(hashlib.md5(part, usedforsecurity=False).digest())
            size += len(part)
    if size >= PART_SIZE:
        etag = f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
    else:
        etag = (parts[0] if parts else hashlib.md5(usedforsecurity=False).digest()).hex()
    return Fingerprint(size, sha256.hexdigest(), etag)
