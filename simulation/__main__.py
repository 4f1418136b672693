"""`python -m simulation run --seeds 20` tells of the seeds in which something does not hold; `replay 17` tells one."""

from __future__ import annotations

import os
import sys

# Polars makes its threads when it is imported for the first time by a run's process, which needs one.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

import click

from simulation.invariants import Violated
from simulation.processes import StandsStill
from simulation.story import Story, Tell
from simulation.system import open_system


@click.group()
def simulation() -> None:
    """A month of exports in a minute, with everything that may happen to them, as a seed has it."""


@simulation.command()
@click.option("--seeds", default=20, show_default=True)
@click.option("--first", default=0, show_default=True)
def run(seeds: int, first: int) -> None:
    """Play the stories of some seeds; exit code 1 if something did not hold."""
    failed = [seed for seed in range(first, first + seeds) if not _holds(seed)]
    click.echo(
        f"{seeds - len(failed)} of {seeds} seeds hold."
        + "".join(f"\n  python -m simulation replay {seed}" for seed in failed)
    )
    sys.exit(1 if failed else 0)


@simulation.command()
@click.argument("seed", type=int)
def replay(seed: int) -> None:
    """Tell the story of one seed, step by step."""
    sys.exit(0 if _holds(seed, click.echo) else 1)


def _holds(seed: int, tell: Tell = lambda _: None) -> bool:
    with open_system() as system:
        try:
            Story(seed, system, tell).play()
        except (Violated, StandsStill) as problem:
            click.echo(f"seed {seed}, {system.now:%Y-%m-%d %H:%M}: {problem}")
            return False
    return True


if __name__ == "__main__":
    simulation()
