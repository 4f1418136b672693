"""Reads a CSV in batches of text columns. Pyarrow does it, because it refuses short rows and maps no memory."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
from pyarrow import csv as arrow_csv

BLOCK_SIZE = 2 * 1024 * 1024
"""The most bytes that a row may have."""
LONGEST_HEADER = 1024 * 1024
LONGEST_REASON = 200


class NotCsv(Exception):
    """The file is not a CSV of this many columns; the text says why."""


def header_of(file: Path) -> list[str]:
    """The header, in which a name may have a line break if a meter's field does. NotCsv if it never ends."""
    with file.open("rb") as content:
        start = content.read(LONGEST_HEADER).decode("utf-8", "replace")
    try:
        return next(csv.reader(io.StringIO(start, newline="")), [])
    except csv.Error:
        words = f"its header has a name of more than {csv.field_size_limit():,} characters"
        raise NotCsv(words) from None


def batches(file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows below the header; an empty field is null and "" is not."""
    if not file.stat().st_size:
        return
    try:
        yield from arrow_csv.open_csv(
            file,
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows_after_names=1, block_size=BLOCK_SIZE),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise NotCsv(" ".join(str(error).split())[:LONGEST_REASON]) from None
