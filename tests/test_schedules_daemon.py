"""Export Schedules under a real dagster-daemon, minutes instead of days: on time, and after a standstill."""

from __future__ import annotations

import pytest
from daemons import MINUTE, Recording, Schedule, Stage, assert_every_export_is_delivered, due_times, floor, story_of

pytestmark = pytest.mark.slow

SCHEDULES = (
    Schedule("each-minute", "operationalDataTypes: [PRODUCTS]"),
    Schedule("each-day", "operationalDataTypes: [PRODUCTS]", "archive", "DAY"),
)


def play(stage: Stage) -> None:
    """The daemon is up, down over two due times, and up again."""
    up = stage.mark("up")
    stage.start()
    stage.first_exports_made(SCHEDULES)
    stage.exported("each-minute", due_after=up)
    stage.quiet()
    stage.stop()
    down = stage.mark("down")
    stage.passed(floor(down) + 2 * MINUTE)
    up_again = stage.mark("up again")
    stage.start()
    stage.exported("each-minute", due_after=down)
    stage.sensor_looked(after=up_again)
    stage.quiet()


story = story_of(SCHEDULES, play)


def test_the_first_export_of_each_schedule_runs_once_at_the_start(story: Recording) -> None:
    for schedule in SCHEDULES:
        (first,) = story.of(schedule.code, first=True)
        assert first.due == floor(story.created)
        assert first.created < story.at["up"] + 2 * MINUTE


def test_the_next_exports_run_on_time(story: Recording) -> None:
    due = story.due("each-minute", story.at["up"], story.at["down"])
    assert due == due_times(due[0], due[-1])
    on_time = [run for run in story.of("each-minute") if run.due and run.due < story.at["down"]]
    assert all(run.due <= run.created < run.due + MINUTE / 2 for run in on_time if run.due)


def test_a_restart_launches_no_second_first_export(story: Recording) -> None:
    assert not [run for run in story.runs if run.is_first and run.created > story.at["down"]]


def test_a_standstill_over_two_due_times_is_made_up_for_once(story: Recording) -> None:
    assert len(due_times(story.at["down"], story.at["up again"])) == 2
    (caught_up, *_) = [run for run in story.of("each-minute") if run.created > story.at["up again"] and run.due]
    assert caught_up.due == floor(caught_up.created)
    assert story.due("each-minute", story.at["down"], caught_up.due) == [caught_up.due]


def test_every_export_is_delivered(story: Recording) -> None:
    assert_every_export_is_delivered(story, SCHEDULES)
