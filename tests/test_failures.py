"""What people read of a failure: the words that were written for them, and no trace."""

from __future__ import annotations

import dagster as dg

from m3ter_dagster.failures import failure_text


def failure_of(error: BaseException) -> str:
    @dg.op
    def failing() -> None:
        raise error

    @dg.job
    def job() -> None:
        failing()

    (event,) = job.execute_in_process(raise_on_error=False).get_step_failure_events()
    return failure_text(event)


def test_a_failure_says_its_words() -> None:
    assert failure_of(dg.Failure("bill was not delivered.")) == "bill was not delivered."


def test_of_an_error_the_cause_is_said() -> None:
    assert failure_of(ValueError("there is no such thing")) == "there is no such thing"


def test_an_interruption_is_one() -> None:
    assert failure_of(dg.DagsterExecutionInterruptedError()) == "it was interrupted."
