"""Questions in a terminal: one value, or some of a numbered list."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import click

from m3ter_dagster.config.answers import Question, option_of
from m3ter_dagster.config.exports_edit import Answer
from m3ter_dagster.config.names import ALL
from m3ter_dagster.model.suggestions import known_names

T = TypeVar("T")

ORDER = (
    *("code", "name", "sourceType", "operationalDataTypes", "timePeriod", "organizations", "destinations"),
    *("scheduleType", "period", "offset", "cronExpression", "dtCreated"),
    *("destinationType", "path", "bucketName", "prefix", "partitionOrder"),
    *("iamRoleArn", "region", "serviceAccountEmail"),
)
"""The fields that a person thinks of first, in the order of the questions and of the file."""

ONE, SOME, TEXT = "Number or name", "Numbers or names, comma-separated, or all", "Answer"


def ask(question: Question, default: Answer) -> Answer:
    """The answer of a person, who is asked again while it is none; without a default there must be one."""
    click.echo(f"\n{question.name}: {question.about}")
    for number, choice in enumerate(question.choices, 1):
        click.echo(f"  {number:2} {choice}")
    prompt = (SOME if question.is_list else ONE) if question.choices else TEXT
    shown = ", ".join(default) if isinstance(default, list) else default
    return heard(
        lambda: click.prompt(
            prompt, default=shown, show_default=bool(shown), value_proc=lambda text: _answer(question, text)
        ),
        option_of(question.name),
    )


def heard(asking: Callable[[], T], option: str) -> T:
    """What a person answers; where there is nobody, as in a script, the command ends and names the option."""
    try:
        return asking()
    except click.Abort as abort:
        if not isinstance(abort.__context__, EOFError):
            raise
        raise click.UsageError(f"nobody answers; give {option}.") from None


def _answer(question: Question, text: str) -> Answer:
    answer = question.answer(text)
    if question.choices:
        return _chosen(question, answer)
    if refusal := question.refusal(answer):
        raise click.UsageError(f"it {refusal}")
    return answer


def _chosen(question: Question, answer: Answer) -> Answer:
    """The choices by their numbers or names; all of them as the field writes that."""
    choices = question.choices
    by_name = {str(number): choice for number, choice in enumerate(choices, 1)}
    by_name |= {choice.casefold(): choice for choice in choices}
    names = [answer] if isinstance(answer, str) else answer or []
    if question.is_list and [name.casefold() for name in names] == ["all"]:
        return ALL if question.takes_all else list(choices)
    for name in names:
        if name.casefold() not in by_name:
            raise click.UsageError(f"there is no {name!r}; {known_names(name, choices)}")
    found = list(dict.fromkeys(by_name[name.casefold()] for name in names))
    return found if question.is_list else found[0]


def in_order(fields: Mapping[str, T]) -> dict[str, T]:
    return {name: fields[name] for name in (*ORDER, *fields) if name in fields}
