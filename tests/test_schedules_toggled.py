"""Export Schedules under a real dagster-daemon: toggled off and on, and exports that wait for one another."""

from __future__ import annotations

import pytest
from daemons import MEASURED, Recording, Schedule, Stage, assert_every_export_is_delivered, story_of

pytestmark = pytest.mark.slow

LONG = "operationalDataTypes: [ACCOUNTS, BALANCES, COMMITMENTS, CONTRACTS, METERS, PLANS, PRICING, PRODUCTS]"
"""At a request per second an export of these is not over before the queue is looked at again."""
SCHEDULES = (
    Schedule("kept-on", "operationalDataTypes: [PRODUCTS]"),
    Schedule("toggled", MEASURED),
    Schedule("by-hand", LONG, "archive", "DAY"),
)


def play(stage: Stage) -> None:
    """Two exports wait for the daemon; one schedule is toggled off over a due time, and on again."""
    for _ in range(2):
        stage.dagster("job", "launch", "--job", "export_by_hand")
    stage.mark("up")
    stage.start()
    stage.first_exports_made(SCHEDULES)
    stage.dagster("schedule", "stop", "toggled")
    off = stage.mark("off")
    stage.exported("kept-on", due_after=off)
    stage.quiet()
    on_again = stage.mark("on again")
    stage.dagster("schedule", "start", "toggled")
    stage.exported("toggled", due_after=on_again)
    stage.exported("kept-on", due_after=on_again)
    stage.quiet()


story = story_of(SCHEDULES, play)


def test_a_schedule_that_is_toggled_off_does_not_run(story: Recording) -> None:
    assert len(story.due("kept-on", story.at["off"], story.at["on again"])) >= 1
    assert story.due("toggled", story.at["off"], story.at["on again"]) == []


def test_when_toggled_on_it_runs_again_from_then_on(story: Recording) -> None:
    later = [run.due for run in story.of("toggled") if run.created > story.at["on again"]]
    assert later
    assert all(due and due > story.at["on again"] for due in later)


def test_two_exports_of_one_schedule_never_overlap(story: Recording) -> None:
    by_hand = [run for run in story.of("by-hand") if run.created < story.at["up"]]
    first, second = sorted(by_hand, key=lambda run: run.started or story.at["up"])
    assert first.ended
    assert second.started
    assert first.ended <= second.started


def test_every_export_of_measurements_has_the_window_of_its_due_time(story: Recording) -> None:
    (first,), later = story.of("toggled", first=True), story.of("toggled")
    assert later
    for run in (first, *later):
        assert run.due
        window = [run.due.replace(hour=0, minute=0).isoformat(), run.due.isoformat()]
        truth = story.usage.measurements({"startDate": window[0], "endDate": window[1]})
        assert story.measured[run.id] == (window, len(list(truth)))


def test_every_export_is_delivered(story: Recording) -> None:
    assert_every_export_is_delivered(story, SCHEDULES)
