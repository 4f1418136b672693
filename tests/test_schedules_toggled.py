"""Export Schedules under a real dagster-daemon: toggled off and on, and exports that wait for one another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from daemons import MEASURED, Recording, Schedule, Stage, assert_every_export_is_delivered, now, stage

pytestmark = pytest.mark.slow

LONG = "operationalDataTypes: [ACCOUNTS, BALANCES, COMMITMENTS, CONTRACTS, METERS, PLANS, PRICING, PRODUCTS]"
"""At a request per second an export of these is not over before the queue is looked at again."""
SCHEDULES = (
    Schedule("kept-on", "operationalDataTypes: [PRODUCTS]"),
    Schedule("toggled", MEASURED),
    Schedule("by-hand", LONG, "archive", "DAY"),
)


@dataclass(frozen=True)
class Story:
    """What was done when, and the runs that came of it."""

    up: datetime
    off: datetime
    on_again: datetime
    recording: Recording


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Everything that happens in this module, once."""
    with stage(tmp_path_factory.mktemp("home"), SCHEDULES) as played:
        moments = play(played)
        yield Story(*moments, played.recording())


def play(stage: Stage) -> tuple[datetime, ...]:
    """Two exports wait for the daemon; one schedule is toggled off over a due time, and on again."""
    for _ in range(2):
        stage.dagster("job", "launch", "--job", "export_by_hand")
    up = now()
    stage.start()
    stage.first_exports_made(SCHEDULES)
    stage.dagster("schedule", "stop", "toggled")
    off = now()
    stage.exported("kept-on", due_after=off)
    stage.quiet()
    on_again = now()
    stage.dagster("schedule", "start", "toggled")
    stage.exported("toggled", due_after=on_again)
    stage.exported("kept-on", due_after=on_again)
    stage.quiet()
    stage.stop()
    return up, off, on_again


def test_a_schedule_that_is_toggled_off_does_not_run(story: Story) -> None:
    assert len(story.recording.due("kept-on", story.off, story.on_again)) >= 1
    assert story.recording.due("toggled", story.off, story.on_again) == []


def test_when_toggled_on_it_runs_again_from_then_on(story: Story) -> None:
    later = [run.due for run in story.recording.of("toggled") if run.created > story.on_again]
    assert later
    assert all(due and due > story.on_again for due in later)


def test_two_exports_of_one_schedule_never_overlap(story: Story) -> None:
    by_hand = [run for run in story.recording.of("by-hand") if run.created < story.up]
    first, second = sorted(by_hand, key=lambda run: run.started or story.up)
    assert first.ended
    assert second.started
    assert first.ended <= second.started


def test_every_export_of_measurements_has_the_window_of_its_due_time(story: Story) -> None:
    (first,), later = story.recording.of("toggled", first=True), story.recording.of("toggled")
    assert later
    for run in (first, *later):
        assert run.due
        window = [run.due.replace(hour=0, minute=0).isoformat(), run.due.isoformat()]
        truth = story.recording.usage.measurements({"startDate": window[0], "endDate": window[1]})
        assert story.recording.measured[run.id] == (window, len(list(truth)))


def test_every_export_is_delivered(story: Story) -> None:
    assert_every_export_is_delivered(story.recording, SCHEDULES)
