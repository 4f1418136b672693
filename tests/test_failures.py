"""What people read of a failure: the words that were written for them, and no trace."""

from __future__ import annotations

import dagster as dg

from m3ter_dagster.config import ConfigError
from m3ter_dagster.history.failures import NOTIFICATION, failure_text, notification_text


def event_of(error: BaseException) -> dg.DagsterEvent:
    @dg.op
    def failing() -> None:
        raise error

    @dg.job
    def job() -> None:
        failing()

    (event,) = job.execute_in_process(raise_on_error=False).get_step_failure_events()
    return event


def failure_of(error: BaseException) -> str:
    return failure_text(event_of(error))


def notification_of(error: BaseException) -> str:
    return notification_text(event_of(error))


def test_a_failure_says_its_words() -> None:
    assert failure_of(dg.Failure("bill was not delivered.")) == "bill was not delivered."


def test_of_an_error_the_cause_is_said() -> None:
    assert failure_of(ValueError("there is no such thing")) == "there is no such thing"


def test_an_interruption_is_one() -> None:
    assert failure_of(dg.DagsterExecutionInterruptedError()) == "it was interrupted."


def test_a_failure_that_quotes_a_value_has_other_words_for_a_notification() -> None:
    quoting = dg.Failure("row 1 has 'Quux'.", metadata={NOTIFICATION: "row 1 is wrong."})
    assert failure_of(quoting) == "row 1 has 'Quux'."
    assert notification_of(quoting) == "row 1 is wrong."


def test_of_an_error_that_nobody_worded_a_notification_names_the_class() -> None:
    assert (
        notification_of(ValueError("could not parse 'Quux'")) == "it failed with ValueError; the run has the details."
    )


def test_what_this_project_words_is_notified() -> None:
    for error in (dg.Failure("bill was not delivered."), ConfigError("bill was not delivered.")):
        assert notification_of(error) == "bill was not delivered."
    try_again = dg.RetryRequested(max_retries=0)
    try_again.__cause__ = dg.Failure("bill was not delivered.")
    assert notification_of(try_again) == "bill was not delivered."
    assert notification_of(dg.DagsterExecutionInterruptedError()) == "it was interrupted."
