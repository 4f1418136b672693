"""exports.yaml: its text -> `Exports`, or one error with all mistakes by line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from m3ter_dagster.config.file_model import mistakes_of
from m3ter_dagster.config.models import OPERATIONAL, USAGE, Destination, Exports, ExportSchedule
from m3ter_dagster.config.names import name_mistakes
from m3ter_dagster.config.notifications import Notifications
from m3ter_dagster.config.usage import UsageSchedule
from m3ter_dagster.config.usage_items import DimensionFilter, UsageAggregation, UsageGroup
from m3ter_dagster.config.values import a_kind_of, unknown
from m3ter_dagster.config.yaml_lines import Loc, Mistake, YamlLines, read_yaml

_ITEMS: dict[str, tuple[str, type[BaseModel]]] = {
    "destinations": ("destination", Destination),
    "schedules": ("schedule", ExportSchedule),
}
_PARTS: dict[str, type[BaseModel]] = {"notifications": Notifications}
_SCHEDULES: dict[str, type[BaseModel]] = {OPERATIONAL: ExportSchedule, USAGE: UsageSchedule}
_INNER: dict[str, type[BaseModel]] = {
    "aggregations": UsageAggregation,
    "dimensionFilters": DimensionFilter,
    "groups": UsageGroup,
}
"""The models of the lists in a schedule."""


class ConfigError(ValueError):
    """Mistakes in exports.yaml or the environment, one line each."""

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))


def parse_exports(text: str, *, file: str = "exports.yaml", environ: Mapping[str, str]) -> Exports:
    """The exports that `text` describes. `${NAME}` in a value stands for the environment's NAME."""
    document = read_yaml(text, environ)
    found = list(document.mistakes)
    if document.value is None and not found:
        found.append(Mistake(1, "is empty; write 'destinations:' and under it a list with at least one"))
    if document.value is not None:
        try:
            exports = Exports.model_validate(document.value, by_alias=True, by_name=False)
        except ValidationError as error:
            found += _worded(mistakes_of(error), document)
        found += [Mistake(document.line(loc), words, loc) for loc, words in name_mistakes(document.value)]
    if found:
        raise ConfigError(*_sentences(found, document, file))
    return exports


def _sentences(found: list[Mistake], document: YamlLines, file: str) -> Iterator[str]:
    """In the order of the file; of several mistakes about one value the first, which explains the others."""
    first: dict[Any, Mistake] = {}
    for index, mistake in enumerate(found):
        first.setdefault(mistake.loc or index, mistake)
    for mistake in sorted(first.values(), key=lambda mistake: mistake.line):
        sentence = f"{file}:{mistake.line}: {_subject(mistake.loc, document.value)} {mistake.words}"
        yield sentence if sentence.endswith((".", "?")) else f"{sentence}."


def _subject(loc: Loc, value: Any) -> str:
    """The destination or schedule by its code, or by its number if it has none."""
    if len(loc) > 1 and loc[0] in _ITEMS and isinstance(loc[1], int):
        noun, _ = _ITEMS[str(loc[0])]
        item = value[loc[0]][loc[1]]
        code = item.get("code") if isinstance(item, Mapping) else None
        return f"{noun} {code!r}" if isinstance(code, str) else f"{noun} number {loc[1] + 1}"
    return str(loc[0]) if len(loc) > 1 else "the file"


def _worded(errors: list[ErrorDetails], document: YamlLines) -> Iterator[Mistake]:
    for error in errors:
        loc, kind = _without_kind(error["loc"])
        # Names that do not fit are reported one by one, each on its line.
        if error["type"] == "value_error" and not loc:
            continue
        is_key = error["type"] in ("extra_forbidden", "missing")
        yield Mistake(document.line(loc, of_key=is_key), _words(error, loc, kind, document), loc)


def _without_kind(loc: Loc) -> tuple[Loc, str]:
    """Pydantic says behind a schedule's number which model read it; the file has no such level."""
    if len(loc) > 2 and loc[0] == "schedules":
        return (*loc[:2], *loc[3:]), str(loc[2])
    return loc, OPERATIONAL


def _words(error: ErrorDetails, loc: Loc, kind: str, document: YamlLines) -> str:
    match error["type"]:
        case "value_error":
            return str(error["ctx"]["error"])
        case "missing":
            written = "has nothing behind" if loc in document.key_lines else "has no"
            return f"{written} {loc[-1]!r}; write it, such as {loc[-1]}: {_example(loc, kind)}"
        case "extra_forbidden":
            return _unknown_key(loc, kind)
        case "model_type":
            return f"is {a_kind_of(error['input'])}; write keys and values, such as {_first_pair(loc, kind)}"
    raise AssertionError(f"no words for the pydantic error {error['type']!r} at {loc}")


def _unknown_key(loc: Loc, kind: str) -> str:
    key, other = str(loc[-1]), USAGE if kind == OPERATIONAL else OPERATIONAL
    if len(loc) == 3 and loc[0] == "schedules" and key in _aliases(_SCHEDULES[other]):
        return (
            f"has the key {key!r}, which belongs to the sourceType {other}; a schedule exports operational or usage "
            "data, write a schedule for each"
        )
    return f"has the unknown key {key!r}; {unknown(key, _fields(loc, kind))}"


def _fields(loc: Loc, kind: str) -> dict[str, FieldInfo]:
    """The fields of the model that `loc` is in, by the names that the file uses."""
    part = str(loc[0])
    if len(loc) == 1:
        return _aliases(Exports)
    if part in _PARTS:
        return _aliases(_PARTS[part])
    if len(loc) > 4:
        return _aliases(_INNER[str(loc[2])])
    return _aliases(_SCHEDULES[kind] if part == "schedules" else _ITEMS[part][1])


def _aliases(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {str(field.alias): field for field in model.model_fields.values()}


def _first_pair(loc: Loc, kind: str) -> str:
    key = next(iter(_fields((*loc, "code"), kind)))
    return f"{key}: {_example((*loc, key), kind)}"


def _example(loc: Loc, kind: str) -> str:
    """The example of the field at `loc`, as YAML."""
    example = (_fields(loc, kind)[str(loc[-1])].examples or [""])[0]
    return json.dumps(example).replace('"', "")
