"""`python -m simulation run --seeds 20` tells of the seeds in which something does not hold; `replay 17` tells one."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

# One thread is enough for the small frames of a run.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import click

from simulation import problem_of

DAYS = click.option("--days", default=30, show_default=True, type=click.IntRange(min=1), help="How long a story is.")


@click.group()
def simulation() -> None:
    """Some weeks of exports in a minute, with everything that may happen to them, as a seed has it."""


@simulation.command()
@click.option("--seeds", default=20, show_default=True)
@click.option("--first", default=0, show_default=True)
@click.option("--jobs", default=os.cpu_count(), show_default=True, help="How many stories are played side by side.")
@DAYS
def run(seeds: int, first: int, jobs: int, days: int) -> None:
    """Play the stories of some seeds; exit code 1 if something did not hold."""
    failed = []
    with ProcessPoolExecutor(jobs, get_context("spawn")) as workers:
        played = {seed: workers.submit(problem_of, seed, days) for seed in range(first, first + seeds)}
        for seed, playing in played.items():
            if problem := playing.result():
                failed.append(seed)
                click.echo(f"{problem}\n  python -m simulation replay {seed} --days {days}")
    click.echo(f"{seeds - len(failed)} of {seeds} seeds hold.")
    sys.exit(1 if failed else 0)


@simulation.command()
@click.argument("seed", type=int)
@DAYS
def replay(seed: int, days: int) -> None:
    """Tell the story of one seed, step by step."""
    if problem := problem_of(seed, days, click.echo):
        click.echo(problem)
        sys.exit(1)


if __name__ == "__main__":
    simulation()
