"""exports.yaml: its text -> `Exports`, or one error with all mistakes by line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from m3ter_dagster.config.models import Exports
from m3ter_dagster.config.names import name_mistakes
from m3ter_dagster.config.schedules import SHORTEST_MINUTES
from m3ter_dagster.config.wording import Loc, Refusal, refusals, sentence
from m3ter_dagster.config.yaml_lines import Mistake, YamlLines, read_yaml


class ConfigError(ValueError):
    """Mistakes in exports.yaml or the environment, one line each.

    Settings may have one as a value, so two of the same mistakes are equal: else Dagster's definitions, which are built
    once for equal settings, would be built each time that Dagster loads them.
    """

    def __init__(self, *mistakes: str) -> None:
        self.mistakes = mistakes
        super().__init__("\n".join(mistakes))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigError) and self.mistakes == other.mistakes

    def __hash__(self) -> int:
        return hash(self.mistakes)


def parse_exports(
    text: str,
    *,
    file: str = "exports.yaml",
    environ: Mapping[str, str],
    shortest_period: timedelta = timedelta(minutes=SHORTEST_MINUTES),
) -> Exports:
    """The exports that `text` describes. `${NAME}` in a value stands for the environment's NAME.

    No schedule may be due more often than `shortest_period` allows. ConfigError has all mistakes.
    """
    document = read_yaml(text, environ)
    found = list(document.mistakes)
    if document.value is None and not found:
        found.append(Mistake(1, "is empty; write 'destinations:' and under it a list with at least one"))
    if document.value is not None:
        try:
            exports = Exports.model_validate(
                document.value, by_alias=True, by_name=False, context={"shortest_period": shortest_period}
            )
        except ValidationError as error:
            found += [_with_line(one, document) for one in refusals(error, Exports) if not _is_of_names(one)]
        found += [Mistake(document.line(loc), words, loc) for loc, words in name_mistakes(document.value)]
    if found:
        raise ConfigError(*_sentences(found, document, file))
    return exports


def _is_of_names(refusal: Refusal) -> bool:
    """Whether this is the error about names, which are reported one by one, each on its own line."""
    return refusal.kind == "value_error" and not refusal.loc


def _with_line(refusal: Refusal, document: YamlLines) -> Mistake:
    is_key = refusal.kind in ("extra_forbidden", "of_another_kind", "missing")
    return Mistake(document.line(refusal.loc, of_key=is_key), refusal.words, refusal.loc)


def _sentences(found: list[Mistake], document: YamlLines, file: str) -> Iterator[str]:
    """The mistakes in the order of the file; for each value only the first, which explains the others."""
    first: dict[Any, Mistake] = {}
    for index, mistake in enumerate(found):
        first.setdefault(mistake.loc or index, mistake)
    for mistake in sorted(first.values(), key=lambda mistake: mistake.line):
        about = document.hide_variables(f"{_subject(mistake.loc, document.value)} {mistake.words}")
        yield sentence(f"{file}:{mistake.line}: {about}")


def _subject(loc: Loc, value: Any) -> str:
    """The destination, organization or schedule in words: by its code, or by its number if it has none."""
    if len(loc) > 1 and loc[0] in ("destinations", "organizations", "schedules") and isinstance(loc[1], int):
        noun = str(loc[0]).removesuffix("s")
        item = value[loc[0]][loc[1]]
        code = item.get("code") if isinstance(item, Mapping) else None
        return f"{noun} {code!r}" if isinstance(code, str) else f"{noun} number {loc[1] + 1}"
    return str(loc[0]) if len(loc) > 1 else "the file"
