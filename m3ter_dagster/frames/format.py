"""File formats: how a frame becomes a file, and the file a frame again. A new one is a file beside this."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl

    from m3ter_dagster.model.entities import Table


class RowsLost(Exception):
    """The finished file does not hold the rows of its frame."""

    def __init__(self, format: str, table: str, *, expected: int, found: int) -> None:
        super().__init__(f"the {format} of {table} holds {found:,} rows instead of {expected:,}; it is not delivered.")


class Format(Protocol):
    """A value: the same frame gives the same bytes. tests/test_formats.py holds every format to what stands here."""

    @property
    def name(self) -> str:
        """As people call it: CSV."""
        ...

    @property
    def suffix(self) -> str:
        """Of files and object keys, without a dot."""
        ...

    @property
    def content_type(self) -> str:
        """What a store is told of the object."""
        ...

    def write(self, frame: pl.LazyFrame, table: Table, path: Path) -> int:
        """Write the whole frame, with the columns of the table and in their order, and return its number of rows.

        The file is read back and counted: RowsLost if it holds fewer rows, or more, than the frame. An empty frame
        gives a file too, from which the columns can be told. Memory does not grow with the rows.
        """
        ...

    def count(self, path: Path) -> int:
        """The rows of a finished file, from its bytes alone."""
        ...

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
        """The frame that the file was written from, scanned; objects and arrays are their JSON text."""
        ...
