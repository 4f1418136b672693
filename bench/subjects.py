"""What is measured: commands that export an organization, and how many line items each has written."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import polars as pl

from bench.organization import Data
from bench.servers import BUCKET, Servers

PROJECT = Path(__file__).parents[1]
PIPELINES = Path(__file__).parent / "pipelines"
LINE_ITEM = "bill_line_item"
THREE = ("account", "bill", LINE_ITEM)
BARE_IMPORTS = "import dagster, polars, boto3"
FASTEST = "50"
"""Requests a second: an export waits for its turn, which costs it no CPU."""


@dataclass(frozen=True)
class Place:
    """Where one run of a subject finds and leaves things."""

    data: Data
    servers: Servers
    folder: Path
    pipelines_python: Path


@dataclass(frozen=True)
class Subject:
    name: str
    caption: str
    command: Callable[[Place], Sequence[str]]
    environment: Callable[[Place], Mapping[str, str]]
    line_items: Callable[[Place], int | None]
    """How many line items it has written; None if it writes none."""


@cache
def subjects() -> Mapping[str, Subject]:
    found = (
        _export("ours", "ours, three entities", THREE),
        _export("ours-all", "ours, all 20 entities", ()),
        _pipeline("script", "a script (http.client, orjson, csv)", "script.py"),
        _pipeline("dlt-arrow", "dlt, pages as Arrow", "dlt_arrow.py"),
        _pipeline("dlt", "dlt, idiomatic", "dlt_rest_api.py"),
        _pipeline("parse", "bodies fetched and parsed", "floor.py", "parse"),
        _pipeline("fetch", "bodies fetched", "floor.py", "fetch"),
    )
    return {subject.name: subject for subject in found}


@cache
def fixed_subjects() -> Mapping[str, Subject]:
    """What is measured over an organization without any rows."""
    imports = Subject("imports", f"`{BARE_IMPORTS}`", lambda _: [sys.executable, "-c", BARE_IMPORTS], _plain, _none)
    found = (
        _export("empty", "ours, all 20 entities of an empty organization", ()),
        _export("one", "ours, one entity of an empty organization", ("product",)),
        imports,
    )
    return {subject.name: subject for subject in found}


def _export(name: str, caption: str, entities: Sequence[str]) -> Subject:
    chosen = ["--entities", ",".join(entities)] if entities else []
    command = [sys.executable, "-c", _m3ter_dagster(), "export", *chosen]
    return Subject(name, caption, lambda _: command, _export_environment, _delivered)


def _m3ter_dagster() -> str:
    """The command of this checkout, whichever one the venv was made for."""
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    module, _, function = scripts["m3ter-dagster"].partition(":")
    return f"import sys; from {module} import {function}; sys.exit({function}())"


def _pipeline(name: str, caption: str, program: str, *arguments: str) -> Subject:
    def command(place: Place) -> list[str]:
        where = (place.servers.api_url, place.data.organization_id, str(place.folder))
        return [str(place.pipelines_python), str(PIPELINES / program), *arguments, *where]

    return Subject(name, caption, command, _pipeline_environment, _left_in_folder)


def _plain(_: Place) -> dict[str, str]:
    """This machine's environment, without what would lead a command elsewhere."""
    others = ("AWS_", "DAGSTER_", "M3TER_", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


def _export_environment(place: Place) -> dict[str, str]:
    """A Dagster home that was used before, since making one is no part of an export; the project from this checkout."""
    home = place.folder / "dagster"
    if place.servers.used_home.exists():
        shutil.copytree(place.servers.used_home, home)
    return {
        **_plain(place),
        **place.servers.store_environment,
        "PYTHONPATH": str(PROJECT),
        "DAGSTER_HOME": str(home),
        "M3TER_API_KEY": "key",
        "M3TER_API_SECRET": "secret",
        "M3TER_ORG_ID": place.data.organization_id,
        "M3TER_BASE_URL": place.servers.api_url,
        "M3TER_EXPORTS": str(place.servers.exports),
        "M3TER_REQUESTS_PER_SECOND": FASTEST,
    }


def _pipeline_environment(place: Place) -> dict[str, str]:
    dlt = {"NORMALIZE__DATA_WRITER__DISABLE_COMPRESSION": "true", "RUNTIME__DLTHUB_TELEMETRY": "false"}
    return {**_plain(place), **dlt, "RUNTIME__LOG_LEVEL": "ERROR"}


def _none(_: Place) -> None:
    return None


def _delivered(place: Place) -> int | None:
    """Those in the delivered file; None if the entity was not among those exported."""
    objects = place.servers.store.list_objects_v2(Bucket=BUCKET).get("Contents", [])
    keys = [one["Key"] for one in objects if one["Key"].endswith(f"{LINE_ITEM}.csv")]
    if not any(one["Key"].endswith("manifest.json") for one in objects):
        raise RuntimeError("The export has no manifest.")
    with tempfile.NamedTemporaryFile(suffix=".csv") as file:
        for key in keys:
            place.servers.store.download_file(BUCKET, key, file.name)
        return _distinct_ids([Path(file.name)]) if keys else None


def _left_in_folder(place: Place) -> int:
    counted = place.folder / f"{LINE_ITEM}.count"
    if counted.exists():
        return int(counted.read_text())
    return _distinct_ids(sorted(place.folder.glob(f"{LINE_ITEM}.csv")) or _of_dlt(place.folder))


def _of_dlt(folder: Path) -> list[Path]:
    return sorted((folder / "m3ter" / LINE_ITEM).glob("*.csv"))


def _distinct_ids(files: Sequence[Path]) -> int:
    """Files of one table may differ in their columns."""
    ids = [pl.scan_csv(file, infer_schema=False).select("id") for file in files]
    return pl.concat(ids).select(pl.col("id").n_unique()).collect(engine="streaming").item()
