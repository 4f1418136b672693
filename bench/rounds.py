"""Runs subjects in turns, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

from bench.organization import Data
from bench.servers import Servers
from bench.subjects import Place, Subject

MEASURE = Path(__file__).parent / "measure.py"


class BenchmarkFailed(Exception):
    """A subject has not done what it is measured for."""


@dataclass(frozen=True)
class Used:
    cpu_seconds: float
    peak_megabytes: float
    wall_seconds: float = 0.0

    def __str__(self) -> str:
        return f"{self.cpu_seconds:.1f} CPU s, {self.wall_seconds:.0f} s, {self.peak_megabytes:.0f} MB"


@dataclass(frozen=True)
class Run:
    """A subject over an organization."""

    subject: Subject
    data: Data


def measured(
    runs: Sequence[Run], servers: Servers, *, rounds: int, pipelines_python: Path, tell: Callable[[str], None]
) -> Mapping[Run, Used]:
    """The median of the rounds for each of the runs."""
    found: dict[Run, list[Used]] = defaultdict(list)
    for number in range(rounds):
        for run in runs:
            used = measure(run, servers, pipelines_python)
            tell(f"round {number + 1} of {rounds}: {run.subject.name} {run.data.organization_id} {used}")
            found[run].append(used)
    return {
        run: Used(*(median(getattr(one, figure.name) for one in used) for figure in fields(Used)))
        for run, used in found.items()
    }


def measure(run: Run, servers: Servers, pipelines_python: Path) -> Used:
    """One run. BenchmarkFailed if it ends with an error, or has written other line items than the API holds."""
    servers.empty_the_store()
    with tempfile.TemporaryDirectory(prefix="m3ter-bench-") as folder:
        place = Place(run.data, servers, Path(folder), pipelines_python)
        used = _used(run.subject, place)
        written = run.subject.line_items(place)
        if written not in (None, run.data.line_items):
            raise BenchmarkFailed(
                f"{run.subject.name} wrote {written:,} distinct line items of {run.data.organization_id}, "
                f"whose API holds {run.data.line_items:,}."
            )
        if not servers.used_home.exists() and (place.folder / "dagster").exists():
            (place.folder / "dagster").rename(servers.used_home)
    return used


def _used(subject: Subject, place: Place) -> Used:
    result, output = place.folder / "used.json", place.folder / "output.txt"
    command = [sys.executable, "-I", "-S", str(MEASURE), str(result), *subject.command(place)]
    with output.open("wb") as file:
        subprocess.run(
            command,
            cwd=place.folder,
            env=dict(subject.environment(place)),
            stdout=file,
            stderr=subprocess.STDOUT,
            check=True,
        )
    found = json.loads(result.read_text())
    if found["exit_code"]:
        raise BenchmarkFailed(f"{subject.name} ended with {found['exit_code']}:\n{output.read_text()[-4000:]}")
    return Used(found["cpu_seconds"], found["peak_megabytes"], found["wall_seconds"])
