"""A story of a few days in a process of its own, since its runs are forks of a process that has never used polars."""

from __future__ import annotations

import subprocess
import sys

import pytest
from processes import PROJECT, plain_environment

pytestmark = pytest.mark.slow

WITHOUT_CLEANING_UP = """
from m3ter_dagster import temporary_folder
from simulation.__main__ import simulation
temporary_folder._remove_if_abandoned = lambda entry: None
simulation()
"""


def simulated(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, *words], cwd=PROJECT, env=plain_environment(), capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_story_of_three_days_holds() -> None:
    assert simulated("-m", "simulation", "run", "--seeds", "1", "--first", "5", "--days", "3", "--jobs", "1") == (
        0,
        "1 of 1 seeds hold.\n",
    )


def test_what_does_not_hold_is_told_with_its_seed() -> None:
    code, told = simulated("-c", WITHOUT_CLEANING_UP, "replay", "4", "--days", "4")
    assert code == 1
    assert " died dies " in told
    assert told.splitlines()[-1].startswith("seed 4, 2024-05-")
    assert told.endswith("were left behind by processes that have ended\n")
