"""Files of text, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from m3ter_dagster.frames.format import Unreadable

GZIP, GZIP_TYPE = "gz", "application/gzip"
_LEVEL = 4
"""Level 6 takes half as much time again and saves 4 % of the bytes."""


class _Compressed(gzip.GzipFile):
    def flush(self, zlib_mode: int = zlib.Z_SYNC_FLUSH) -> None:
        """Nothing: polars flushes after every part, and the bytes would depend on where the parts end."""


@contextmanager
def created(path: Path, *, is_compressed: bool) -> Generator[BinaryIO]:
    """A new file. Neither its name nor the time is in its bytes."""
    with path.open("wb") as file:
        if not is_compressed:
            yield file
            return
        with _Compressed("", "wb", compresslevel=_LEVEL, fileobj=file, mtime=0) as compressed:
            yield cast(BinaryIO, compressed)


@contextmanager
def opened(path: Path, *, is_compressed: bool) -> Generator[BinaryIO]:
    """A file to read from. Unreadable if what is compressed is damaged."""
    try:
        with gzip.open(path) if is_compressed else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Unreadable(f"it is damaged ({error})") from None
