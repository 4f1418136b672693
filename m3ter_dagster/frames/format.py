"""File formats: how a frame becomes a file, and the file a frame again. A new format is a file beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

    from m3ter_dagster.model.entities import Table


class RowsLost(Exception):
    """The finished file does not hold the rows of its frame."""

    def __init__(self, format: str, table: str, *, expected: int, found: int) -> None:
        super().__init__(f"the {format} of {table} holds {found:,} rows instead of {expected:,}; it is not delivered.")


class Format(Protocol):
    """A file format: the same frame gives the same bytes. tests/test_formats.py holds all formats to these promises."""

    @property
    def name(self) -> str:
        """The name that people use: CSV."""
        ...

    @property
    def suffix(self) -> str:
        """The suffix of files and object keys, without a dot."""
        ...

    @property
    def content_type(self) -> str:
        """The media type that a store records for the object."""
        ...

    def write(self, parts: Iterable[pl.LazyFrame], table: Table, path: Path) -> int:
        """Write all parts of a frame, with the table's columns in their order, and return the number of rows.

        The file is read back and counted: RowsLost if it holds fewer or more rows than the frame. No part, or an empty
        one, also gives a file that shows its columns. Memory does not grow with the number of parts.
        """
        ...

    def count(self, path: Path) -> int:
        """The number of rows in a finished file, counted from its bytes alone."""
        ...

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
        """Scan the frame that the file was written from; objects and arrays are their JSON text."""
        ...
