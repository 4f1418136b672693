"""The known file formats: which one an export is written in, and which one a delivered file has.

A new format is a file beside this one and a line here.
"""

from __future__ import annotations

from m3ter_dagster.config import Exports
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.format import Format


def format_for(exports: Exports) -> Format:
    """The format that exports.yaml asks for."""
    return Csv(escape_formulas=exports.escape_formulas)


def format_of(file: str) -> Format:
    """The format by the suffix of a key, address or path. KeyError for one that this project does not write."""
    return {"csv": Csv()}[file.rpartition(".")[2]]
