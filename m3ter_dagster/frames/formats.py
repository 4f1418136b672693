"""The file formats there are: the one that an export is written in, and the one that a delivered file has.

A new format is a file beside this one and a line here.
"""

from __future__ import annotations

from m3ter_dagster.config import Exports
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.format import Format


def format_for(exports: Exports) -> Format:
    """What exports.yaml asks for."""
    return Csv(escape_formulas=exports.escape_formulas)


def format_of(file: str) -> Format:
    """By the suffix of a key, address or path. KeyError for what this project does not write."""
    return {"csv": Csv()}[file.rpartition(".")[2]]
