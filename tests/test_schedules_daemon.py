"""Export Schedules under a real dagster-daemon, minutes instead of days: on time, toggled, and after a standstill."""

from __future__ import annotations

import pytest
from daemons import (
    MEASURED,
    MINUTE,
    Recording,
    Schedule,
    Stage,
    assert_every_export_is_delivered,
    due_times,
    floor,
    story_of,
)

pytestmark = pytest.mark.slow

LONG = "operationalDataTypes: [ACCOUNTS, BALANCES, COMMITMENTS, CONTRACTS, METERS, PLANS, PRICING, PRODUCTS]"
"""At a request per second an export of these is not over before the queue is looked at again."""
SCHEDULES = (
    Schedule("each-minute", "operationalDataTypes: [PRODUCTS]"),
    Schedule("toggled", MEASURED),
    Schedule("by-hand", LONG, "archive", "DAY"),
)


def play(stage: Stage) -> None:
    """Two exports wait for the daemon, which is up, down over two due times, and up again.

    One schedule is toggled off over a due time, and on again while the daemon is down.
    """
    for _ in range(2):
        stage.launch("export_by_hand")
    stage.mark("up")
    stage.start()
    stage.first_exports_made(SCHEDULES[:2])
    stage.switch("toggled", on=False)
    off = stage.mark("off")
    stage.exported("each-minute", due_after=off)
    stage.quiet("each-minute")
    stage.stop()
    down = stage.mark("down")
    on_again = stage.mark("on again")
    stage.switch("toggled", on=True)
    stage.passed(floor(down) + 2 * MINUTE)
    up_again = stage.mark("up again")
    stage.start()
    stage.exported("each-minute", due_after=down)
    stage.exported("toggled", due_after=on_again)
    stage.sensor_looked(after=up_again)


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


def test_a_schedule_that_is_toggled_off_does_not_run(story: Recording) -> None:
    assert len(story.due("each-minute", story.at["off"], story.at["on again"])) >= 1
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
