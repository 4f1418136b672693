"""A month of exports with a seed: an API, a store, a daemon and its runs, and what must hold after each step."""

from __future__ import annotations

from collections.abc import Callable


def problem_of(seed: int, days: int, tell: Callable[[str], None] = lambda _: None) -> str | None:
    """What did not hold in the story of this seed, if anything. Only the process that plays it imports Dagster."""
    from simulation.invariants import Violated
    from simulation.processes import StandsStill
    from simulation.story import Story
    from simulation.system import open_system

    with open_system() as system:
        try:
            Story(seed, days, system, tell).play()
        except (Violated, StandsStill) as problem:
            return f"seed {seed}, {system.now:%Y-%m-%d %H:%M}: {problem}"
    return None
