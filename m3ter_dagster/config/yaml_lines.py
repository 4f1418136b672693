"""YAML text -> plain values whose scalars are all text, with the line of each key and value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from m3ter_dagster.config.wording import Loc

MOST_VALUES = 100_000
"""Aliases can repeat a value so often that a short file fills the memory."""
NULLS = ("", "~", "null", "Null", "NULL")
LONG = 6
"""From so many characters on, a variable's value is looked for within words, too."""
_VARIABLE = re.compile(r"\$\{([^}]*)(\}|$)")


@dataclass(frozen=True)
class Mistake:
    """What is wrong, and on which line; `loc` is where the wrong value is."""

    line: int
    words: str
    loc: Loc = ()


@dataclass
class YamlLines:
    """A document: its value, and the line of each part."""

    value: Any = None
    value_lines: dict[Loc, int] = field(default_factory=dict)
    key_lines: dict[Loc, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    """The values that came from the environment, by their names."""

    def line(self, loc: Loc, *, of_key: bool = False) -> int:
        """The line of a value (or of its key), or of the nearest thing around it that is written down."""
        lines = self.key_lines if of_key else self.value_lines
        while loc and loc not in lines:
            loc = loc[:-1]
            lines = self.value_lines
        return lines.get(loc, 1)

    def hide_variables(self, words: str) -> str:
        """The words with ${NAME} in place of its value, which may be a secret that was written in a wrong place."""
        for name, value in sorted(self.variables.items(), key=lambda item: -len(item[1])):
            core = value.strip("/ ")  # messages may show a value without what is around it
            for shown in {core, repr(core)[1:-1], repr(value)[1:-1].strip("/ ")} - {""}:
                # A short one would also be found within words.
                pattern = re.escape(shown) if len(shown) >= LONG else rf"(?<!\w){re.escape(shown)}(?!\w)"
                words = re.sub(pattern, lambda _, name=name: f"${{{name}}}", words)
        return words


def read_yaml(text: str, environ: Mapping[str, str]) -> YamlLines:
    """The document in `text`. It is only ever read as text, lists, mappings and None (nothing written)."""
    document = YamlLines()
    try:
        node = yaml.compose(text, Loader=yaml.BaseLoader)
        if node is not None:
            document.value = _Reader(document, environ).plain(node, ())
    except yaml.YAMLError as error:
        document.mistakes.append(_syntax(error, text))
    except _TooMany as many:
        document.mistakes = [
            Mistake(many.line, f"has more than {MOST_VALUES:,} values; write less, or repeat less by aliases")
        ]
    except RecursionError:
        document.mistakes = [Mistake(1, "is nested too deeply, or contains itself")]
    return document


def variables_in(text: str) -> set[str]:
    """The names of the variables that a text may use."""
    return {name for name, _ in _VARIABLE.findall(text)}


class _TooMany(Exception):
    def __init__(self, line: int) -> None:
        self.line = line


class _Reader:
    def __init__(self, document: YamlLines, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._values = 0

    def plain(self, node: yaml.Node, loc: Loc) -> Any:
        line = _line(node)
        self._values += 1
        if self._values > MOST_VALUES:
            raise _TooMany(line)
        if isinstance(node, yaml.MappingNode):
            self._document.value_lines.setdefault(loc, line)
            return self._mapping(node, loc)
        if isinstance(node, yaml.SequenceNode):
            self._document.value_lines.setdefault(loc, line)
            return [self.plain(item, (*loc, index)) for index, item in enumerate(node.value)]
        if node.value in NULLS and isinstance(node, yaml.ScalarNode) and node.style is None:
            self._document.value_lines.setdefault(loc, line)
            return None
        self._document.value_lines[loc] = line
        return self._resolved(node.value, line, loc)

    def _mapping(self, node: yaml.MappingNode, loc: Loc) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            key = key_node.value
            if not isinstance(key, str):
                self._wrong(line, "has a list or mapping as a key; write a name", loc)
            elif key in values:
                first = self._document.key_lines[(*loc, key)]
                self._wrong(line, f"gives {key!r} a second time; the first is on line {first}, keep one", (*loc, key))
            else:
                inner = (*loc, key)
                # A list or mapping is found by its key, which may be on the line above.
                self._document.key_lines[inner] = self._document.value_lines[inner] = line
                values[key] = self.plain(value_node, inner)
        return values

    def _resolved(self, text: str, line: int, loc: Loc) -> str:
        """`text` with each ${NAME} replaced by the environment's value."""

        def value_of(found: re.Match[str]) -> str:
            name, closed = found.groups()
            if not closed or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                self._wrong(line, f"has {found[0]!r}; write ${{NAME}} with the name of an environment variable", loc)
            elif name not in self._environ:
                self._wrong(line, f"uses ${{{name}}}; set the environment variable {name}", loc)
            else:
                self._document.variables[name] = self._environ[name]
            return self._environ.get(name, found[0])

        return _VARIABLE.sub(value_of, text)

    def _wrong(self, line: int, words: str, loc: Loc) -> None:
        self._document.mistakes.append(Mistake(line, words, loc))


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _syntax(error: yaml.YAMLError, text: str) -> Mistake:
    """PyYAML's paragraph as one sentence, with what to do about the usual causes."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        position = getattr(error, "position", 0)
        return Mistake(text.count("\n", 0, position) + 1, "is not YAML: a character that YAML does not allow")
    problem = getattr(error, "problem", None) or "cannot be read"
    if "stream" in problem:
        # Something is not closed: where it was opened says more than the end of the file.
        mark = getattr(error, "context_mark", None) or mark
    lines = text.splitlines()
    written = lines[mark.line] if mark.line < len(lines) else ""
    if "'\\t'" in problem or "\t" in written[: len(written) - len(written.lstrip())]:
        return Mistake(mark.line + 1, "is indented with a tab; write spaces")
    hint = (
        "; put a value with ${...} inside [ ] or { } in quotes" if "${" in written else "; check indentation and quotes"
    )
    return Mistake(mark.line + 1, f"is not YAML: {problem}{hint}")
