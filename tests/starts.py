"""Which tests start a server or another program, as the names tell that their code and their fixtures use."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parent
SERVERS = {"LoopbackServer", "RawServer", "Sandbox", "SandboxApi", "SandboxS3"}
PROGRAMS = {"subprocess", "Popen", "FORKS", "sync_playwright"}


def starts_a_server(item: pytest.Item) -> bool:
    """Of the fixtures that a test asks for only while it runs, those of the stores are seen."""
    if not isinstance(item, pytest.Function):
        return False
    fixtures = [one[-1].func for one in item._fixtureinfo.name2fixturedefs.values()]
    return "s3_store" in item.fixturenames or any(map(_starts, (item.function, *fixtures)))


@cache
def _starts(one: Any) -> bool:
    """Does this function or class of the tests name what starts something, or another one that does?"""
    found, seen = [one], set()
    while found:
        function = found.pop()
        if id(function) in seen or not _is_of_the_tests(function):
            continue
        seen.add(id(function))
        if isinstance(function, type):
            found += [*function.__bases__, *(getattr(value, "fget", value) for value in vars(function).values())]
        elif isinstance(function, FunctionType):
            names = set(_names(function.__code__))
            if not names.isdisjoint(SERVERS | PROGRAMS):
                return True
            found += [getattr(function, "__wrapped__", None), *_named(names, function.__globals__)]
    return False


def _is_of_the_tests(one: Any) -> bool:
    module = sys.modules.get(getattr(one, "__module__", None) or "")
    return Path(getattr(module, "__file__", None) or "/").parent == TESTS


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _named(names: set[str], scope: dict[str, Any]) -> Iterator[Any]:
    """What these names are in a module, and in the modules that it names."""
    for name in names & scope.keys():
        yield scope[name]
        if isinstance(scope[name], ModuleType):
            yield from (getattr(scope[name], other) for other in names if hasattr(scope[name], other))
