"""File formats: how a frame becomes a file, and the file a frame again. A new format is a file beside this one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import polars as pl

    from m3ter_dagster.model.entity import Table

AS_THEY_ARE = "as they are"
LONGEST_REASON = 200
"""The most characters of what a program says that cannot read a file."""


class RowsLost(Exception):
    """The finished file does not hold the rows of its frame."""

    def __init__(self, format: str, table: str, *, expected: int, found: int) -> None:
        super().__init__(f"the {format} of {table} holds {found:,} rows instead of {expected:,}; it is not delivered.")


class Unreadable(Exception):
    """The file is not one of the format, or not one of the columns that were asked for; the text says why."""


class Format(Protocol):
    """A file format: the same frame gives the same bytes. tests/test_formats.py holds all formats to these promises."""

    @property
    def name(self) -> str:
        """The name that people use: CSV."""
        ...

    @property
    def suffix(self) -> str:
        """The suffix of files and object keys, without a dot: csv, or csv.gz where the CSV is compressed."""
        ...

    @property
    def media_type(self) -> str:
        """The media type of the file, before it is compressed."""
        ...

    @property
    def content_type(self) -> str:
        """The media type that a store records for the object."""
        ...

    @property
    def cells(self) -> str:
        """How cells are written. Two formats that say the same give equal frames for equal frames."""
        ...

    def write(self, parts: Iterable[pl.LazyFrame], table: Table, path: Path) -> int:
        """Write all parts of a frame, with the table's columns in their order, and return the number of rows.

        The file is read back and counted: RowsLost if it holds fewer or more rows than the frame. Bytes do not depend
        on where the parts end, and no part, or an empty one, also gives a file. Memory does not grow with the number of
        parts.
        """
        ...

    def count(self, path: Path) -> int:
        """The number of rows in a finished file, counted from its bytes alone. Unreadable if it is damaged."""
        ...

    def read(self, path: Path, table: Table) -> pl.LazyFrame:
        """Scan the frame that the file was written from; objects and arrays are their JSON text."""
        ...

    def names(self, path: Path) -> list[str] | None:
        """The names of the columns that a file has; None if it has no row that would show them. Unreadable."""
        ...

    def texts(self, path: Path, types: Mapping[str, str]) -> Iterator[pl.DataFrame]:
        """All cells of any file as text, null as null, in batches: what is wrong with one is for the caller to find.

        `types` are the columns that the file should have, and their types in the words of Table Schema. Unreadable if
        it is damaged, or a column of text holds something else.
        """
        ...


def counted(format: Format, path: Path, table: Table, *, expected: int) -> int:
    """The rows of the finished file; RowsLost if they are not those that were written."""
    found = format.count(path)
    if found != expected:
        raise RowsLost(format.name, table.name, expected=expected, found=found)
    return found
