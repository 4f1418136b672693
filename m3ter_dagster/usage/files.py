"""m3ter's usage file before its cells are looked at: its header, and whether every row is whole."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from m3ter_dagster.frames.schema import SHOWN, Breach, shown
from m3ter_dagster.usage.columns import FIXED_COLUMNS, METER, YEAR, UsageTable

CHUNK_BYTES = 8 << 20
_LONGEST_ROW = 4 * CHUNK_BYTES


def is_blank(path: Path) -> bool:
    """Whether the file has neither header nor rows: no byte, or only a byte order mark and empty lines."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return not any(line.strip() for line in file)


def read_header(path: Path) -> list[str]:
    """The names of the columns; none if the first line is empty. A file that is no text gets names nobody knows."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            return next(csv.reader(file), [])
    except csv.Error as error:
        return [str(error)]


def header_breaches(header: Sequence[str], table: UsageTable) -> list[Breach]:
    """What is wrong with a header even if there are no rows: a column twice, or no column of the document."""
    known = {column.name for column in table.columns}
    if not known & set(header):
        came = ",".join(header)
        # Where a file has no header this is a row, unless it is a page of some proxy or a header with other separators.
        is_no_row = came.startswith("<") or METER in came
        value = f"missing; instead came {repr(came[:SHOWN]) if is_no_row else shown(came, None)}"
        return [Breach(None, METER, value, "must be a column of m3ter's file")]
    twice = sorted({name for name in header if header.count(name) > 1})
    return [Breach(None, name, "the header", "must name each column once") for name in twice]


def missing_columns(header: Sequence[str], table: UsageTable) -> Iterator[Breach]:
    """The columns that are missing. m3ter may leave out columns of fields, since it includes fields "determined
    by the time period", but not all of one kind while it has others that no field is called: then it names them
    differently, and their values would be lost.
    """
    fields: dict[str, list[str]] = {}
    for column in table.columns:
        if column.name.endswith(")"):
            fields.setdefault(column.name.rpartition(" (")[2], []).append(column.name)
        elif column.name not in (*header, YEAR):  # the year follows from the time
            yield Breach(None, column.name, "missing", "must be a column of m3ter's file, as its schema documents")
    known = {column.name for column in table.columns} | FIXED_COLUMNS.keys()
    unknown = [name for name in header if name not in known]
    for names in fields.values():
        if unknown and not set(names) & set(header):
            rule = "must be a column of m3ter's file; it has others that are not named after any field"
            yield Breach(None, names[0], f"missing, and there are {', '.join(unknown)[:SHOWN]!r}", rule)


def chunks(path: Path) -> Iterator[bytes]:
    """The file, its header included, in pieces of whole rows. One whose quotes are not in pairs is cut anywhere."""
    rest = b""
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            rest += block
            end = _end_of_whole_rows(rest) or (len(rest) if len(rest) > _LONGEST_ROW else 0)
            if end:
                yield rest[:end]
            rest = rest[end:]
    if rest:
        yield rest


def _end_of_whole_rows(piece: bytes) -> int:
    """Where the last line begins that has an even number of quotes before it."""
    end, quotes = len(piece), piece.count(b'"')
    while end > 0:
        line = piece.rfind(b"\n", 0, end) + 1
        quotes -= piece.count(b'"', line, end)
        if quotes % 2 == 0:
            return line
        end = line - 1
    return 0


def has_whole_rows(rows: bytes, columns: int) -> bool:
    """Whether the rows have as many fields as `columns` in total. Polars refuses a row with more and fills up others.

    It is also False where quotes or empty lines only make it look so: `first_broken_row` finds out.
    """
    outside_quotes = b"".join(rows.split(b'"')[::2])
    lines = outside_quotes.count(b"\n") + (not rows.endswith(b"\n"))
    return outside_quotes.count(b",") == lines * (columns - 1)


def row_of_file(index: int) -> str:
    """The name of a row, counted from 0 below the header; not its id, which belongs to whoever sent it."""
    return f"{index + 1} of the file"


def first_broken_row(path: Path, header: Sequence[str], table: UsageTable) -> Breach | None:
    """The first row that is not CSV, not UTF-8, or has not one field per column. Slow: for a file that is in doubt."""
    number = 0
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            for number, cells in enumerate(csv.reader(file, strict=True)):
                if cells and (broken := _broken_cell(cells, header, table)):
                    return Breach(row_of_file(number - 1), *broken)
        except csv.Error as error:
            return Breach(row_of_file(number), "unknown", str(error), "must be CSV")
    return None


def _broken_cell(cells: Sequence[str], header: Sequence[str], table: UsageTable) -> tuple[str, str, str] | None:
    """The column, the value and the rule that it breaks."""
    if len(cells) < len(header):
        count = f"{len(cells)} of {len(header)} fields"
        return header[len(cells)], "missing", f"must be there; the row has {count}: the file is cut off or damaged"
    if len(cells) > len(header):
        return (
            "beyond the last",
            shown(cells[len(header)], None),
            f"must not be there; the header has {len(header)} columns",
        )
    columns = {column.name: column for column in table.columns}
    for name, cell in zip(header, cells, strict=True):
        if any("\udc80" <= character <= "\udcff" for character in cell):
            text = cell.encode(errors="surrogateescape").decode(errors="replace")
            return name, shown(text, columns.get(name)), "must be UTF-8"
    return None
