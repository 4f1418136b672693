"""The known file formats: which one an export is written in, and which one a delivered file has.

A new format is a file beside this one and a line here.
"""

from __future__ import annotations

from m3ter_dagster.config import Exports, FileFormat
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.format import Format
from m3ter_dagster.frames.jsonl import JsonLines


def format_for(chosen: FileFormat, exports: Exports) -> Format:
    """The format that exports.yaml asks for, in a schedule or for exports that people start."""
    is_compressed = chosen.compression == "GZIP"
    match chosen.export_file_format:
        case "CSV":
            return Csv(escape_formulas=exports.escape_formulas, is_compressed=is_compressed)
        case "JSONL":
            return JsonLines(is_compressed=is_compressed)
        case "PARQUET":
            return _parquet(is_typed=chosen.typed)


def format_of(file: str) -> Format:
    """The format by the suffix of a key, address or path. KeyError for one that this project does not write."""
    suffix = file.rpartition("/")[2].partition(".")[2]
    if suffix == "parquet":
        return _parquet(is_typed=False)  # of either kind it reads the same frame
    texts = (Csv(), Csv(is_compressed=True), JsonLines(), JsonLines(is_compressed=True))
    return {one.suffix: one for one in texts}[suffix]


def _parquet(*, is_typed: bool) -> Format:
    """Imported only where it is needed: pyarrow takes a tenth of a second."""
    from m3ter_dagster.frames.parquet import Parquet

    return Parquet(is_typed=is_typed)
