"""Files that come with this project, and the exports.yaml that a new folder starts with."""

from __future__ import annotations

import json
from pathlib import Path

from m3ter_dagster.config.json_schema import exports_json_schema

SCHEMA = "exports.schema.json"


def shipped(name: str) -> Path:
    """A file that comes with this project: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    return next((folder / name for folder in (package, package.parent) if (folder / name).exists()), package / name)


def new_exports_yaml() -> dict[str, str]:
    """A commented exports.yaml to fill in, and beside it the schema by which editors check it: the texts by name."""
    text = shipped("exports.yaml").read_text(encoding="utf-8").replace(f"docs/{SCHEMA}", SCHEMA)
    return {"exports.yaml": text, SCHEMA: json.dumps(exports_json_schema(), indent=2) + "\n"}


def write_new(file: Path, text: str) -> bool:
    """Write a file unless it is there already; whether it was written."""
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError:
        return False
    return True
