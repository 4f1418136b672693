"""Ends a command that was given something wrong: the words on stderr, exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import click

from m3ter_dagster.config import ConfigError
from m3ter_dagster.model.entities import DescriptorError

T = TypeVar("T")


def wrong_use(message: str) -> NoReturn:
    click.echo(message, err=True)
    raise SystemExit(2)


def configured(load: Callable[[], T]) -> T:
    """What `load` gives, or the end of the command with what is wrong in the configuration."""
    try:
        return load()
    except (ConfigError, DescriptorError) as error:
        wrong_use(str(error))


def listed(option: str, text: str) -> list[str]:
    """The names of a comma-separated option, each once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    return list(dict.fromkeys(names)) or wrong_use(f"{option} names nothing; give at least one.")
