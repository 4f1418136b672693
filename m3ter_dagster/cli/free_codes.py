"""Codes of m3ter's that exports.yaml and Dagster take, changed as little as they ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from m3ter_dagster.config.names import RESERVED

LONGEST_CODE = 80


def free_code(record: Mapping[str, Any], taken: set[str], *, key: Callable[[str], str]) -> str:
    """The record's code, or one like it whose `key` is not taken yet."""
    code = plain(record.get("code") or record.get("name"))[:LONGEST_CODE].strip() or str(record["id"])
    if key(code) in RESERVED and key(code) in taken:
        code = f"{code[: LONGEST_CODE - 7]}_export"
    numbered, number = code, 1
    while key(numbered) in taken:
        number += 1
        numbered = f"{code[: LONGEST_CODE - 4]}_{number}"
    taken.add(key(numbered))
    return numbered


def plain(text: str | None) -> str:
    """On one line, and without what exports.yaml takes for a variable of the environment."""
    return "".join(letter if letter.isprintable() else " " for letter in text or "").replace("${", "$ {")
