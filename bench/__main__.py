"""`python -m bench run` compares, `python -m bench growth` shows what more rows cost."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click

from bench.organization import Data
from bench.rounds import BenchmarkFailed, Run, measure, measured
from bench.servers import Servers, running_servers
from bench.subjects import fixed_subjects, subjects
from bench.tables import comparison, growth_curve

NOTHING = Data("empty", 0, 0, 0)
ROWS_OF_AN_ACCOUNT = 100
LINE_ITEMS_OF_A_BILL = 15
PIPELINES_PYTHON = Path(".venv-bench/bin/python")


@click.group()
def bench() -> None:
    """How fast an export is, beside other ways to get the same rows."""


@bench.command()
@click.option("--rounds", default=3, show_default=True, help="Each is run so often, in turns; medians are shown.")
@click.option("--bills", default=20_000, show_default=True)
@click.option("--line-items", default=300_000, show_default=True)
@click.option(
    "--fewer", default=100_000, show_default=True, help="Line items of the runs that the marginal cost needs."
)
@click.option("--accounts", default=5_000, show_default=True)
@click.option("--kinds", default="documented,odd", show_default=True, help="The line items that there are.")
@click.option("--subjects", "names", default=",".join(subjects()), show_default=True)
@click.option("--fixed/--no-fixed", "with_fixed", default=True, help="Exports of an empty organization, too.")
@click.option(
    "--latency",
    default=0.02,
    show_default=True,
    help="Seconds before each answer of the API. By default one connection gets the 50 a second that m3ter allows.",
)
@click.option("--pipelines-python", default=PIPELINES_PYTHON, help="Of the venv that has dlt.", type=Path)
@click.option("--output", default="bench-result.md", show_default=True, type=Path)
def run(
    rounds: int,
    bills: int,
    line_items: int,
    fewer: int,
    accounts: int,
    kinds: str,
    names: str,
    with_fixed: bool,
    latency: float,
    pipelines_python: Path,
    output: Path,
) -> None:
    """Alternate exports and pipelines over the same API, and compare what they use."""
    chosen = [subjects()[name] for name in names.split(",")]
    whole = [Run(subject, Data(kind, bills, line_items, accounts)) for kind in kinds.split(",") for subject in chosen]
    small = [replace(one, data=replace(one.data, line_items=fewer)) for one in whole if one.subject.name != "ours-all"]
    fixed = [Run(subject, NOTHING) for subject in fixed_subjects().values()] if with_fixed else []
    with _servers(latency, pipelines_python) as servers:
        used = measured(
            [*whole, *small, *fixed], servers, rounds=rounds, pipelines_python=pipelines_python.absolute(), tell=_tell
        )
    text = comparison(used, whole=whole, fixed=fixed, fewer=fewer)
    output.write_text(text, encoding="utf-8")
    click.echo(text)


@bench.command()
@click.option("--line-items", default="10000,100000,1000000,5000000", show_default=True)
@click.option("--subject", default="ours", show_default=True)
@click.option("--kind", default="documented", show_default=True)
@click.option("--pipelines-python", default=PIPELINES_PYTHON, type=Path)
@click.option("--output", default="bench-growth.md", show_default=True, type=Path)
def growth(line_items: str, subject: str, kind: str, pipelines_python: Path, output: Path) -> None:
    """Export larger and larger organizations, once each: CPU and peak memory."""
    with _servers(0.0, pipelines_python) as servers:
        used = {}
        for count in map(int, line_items.split(",")):
            data = Data(kind, count // LINE_ITEMS_OF_A_BILL, count, count // ROWS_OF_AN_ACCOUNT)
            used[data] = measure(Run(subjects()[subject], data), servers, pipelines_python.absolute())
            _tell(f"{count:,} line items: {used[data]}")
    text = growth_curve(used)
    output.write_text(text, encoding="utf-8")
    click.echo(text)


@contextmanager
def _servers(latency: float, pipelines_python: Path) -> Generator[Servers]:
    """Servers that have been used: the first export of a machine also compiles Python and makes Dagster's records."""
    try:
        with tempfile.TemporaryDirectory() as folder, running_servers(Path(folder), latency=latency) as servers:
            measure(Run(fixed_subjects()["empty"], NOTHING), servers, pipelines_python)
            yield servers
    except BenchmarkFailed as failed:
        raise click.ClickException(str(failed)) from None


def _tell(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    bench()
