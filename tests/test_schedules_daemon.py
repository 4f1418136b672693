"""Export Schedules under a real dagster-daemon, minutes instead of days: on time, and after a standstill."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import pytest
from daemons import (
    MINUTE,
    Recording,
    Schedule,
    Stage,
    assert_every_export_is_delivered,
    due_times,
    floor,
    now,
    stage,
)

pytestmark = pytest.mark.slow

SCHEDULES = (
    Schedule("each-minute", "operationalDataTypes: [PRODUCTS]"),
    Schedule("each-day", "operationalDataTypes: [PRODUCTS]", "archive", "DAY"),
)


@dataclass(frozen=True)
class Story:
    """What was done when, and the runs that came of it."""

    up: datetime
    down: datetime
    up_again: datetime
    recording: Recording


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Everything that happens in this module, once."""
    with stage(tmp_path_factory.mktemp("home"), SCHEDULES) as played:
        moments = play(played)
        yield Story(*moments, played.recording())


def play(stage: Stage) -> tuple[datetime, ...]:
    """The daemon is up, down over two due times, and up again."""
    up = now()
    stage.start()
    stage.first_exports_made(SCHEDULES)
    stage.exported("each-minute", due_after=up)
    stage.quiet()
    stage.stop()
    down = now()
    stage.passed(floor(down) + 2 * MINUTE)
    up_again = now()
    stage.start()
    stage.exported("each-minute", due_after=down)
    stage.sensor_looked(after=up_again)
    stage.quiet()
    stage.stop()
    return up, down, up_again


def test_the_first_export_of_each_schedule_runs_once_at_the_start(story: Story) -> None:
    for schedule in SCHEDULES:
        (first,) = story.recording.of(schedule.code, first=True)
        assert first.due == floor(story.recording.created)
        assert first.created < story.up + 2 * MINUTE


def test_the_next_exports_run_on_time(story: Story) -> None:
    due = story.recording.due("each-minute", story.up, story.down)
    assert due == due_times(due[0], due[-1])
    on_time = [run for run in story.recording.of("each-minute") if run.due and run.due < story.down]
    assert all(run.due <= run.created < run.due + MINUTE / 2 for run in on_time if run.due)


def test_a_restart_launches_no_second_first_export(story: Story) -> None:
    assert not [run for run in story.recording.runs if run.is_first and run.created > story.down]


def test_a_standstill_over_two_due_times_is_made_up_for_once(story: Story) -> None:
    assert len(due_times(story.down, story.up_again)) == 2
    (caught_up, *_) = [run for run in story.recording.of("each-minute") if run.created > story.up_again and run.due]
    assert caught_up.due == floor(caught_up.created)
    assert story.recording.due("each-minute", story.down, caught_up.due) == [caught_up.due]


def test_every_export_is_delivered(story: Story) -> None:
    assert_every_export_is_delivered(story.recording, SCHEDULES)
