"""Changes of exports.yaml's text: an item of a list is added, changed or removed, the rest stays as it was written."""

from __future__ import annotations

import math
import os
import re
import shutil
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import yaml

from m3ter_dagster.config.yaml_lines import NULLS

Answer = str | list[Any] | None
"""A value as exports.yaml has it, its scalars all text; None: the field is left out."""


class NotEditable(ValueError):
    """The text is written in a way in which a part cannot be changed without changing others."""


def plain(text: str) -> Any:
    """The document as lists and mappings of text, `${NAME}` as it stands there."""
    return yaml.BaseLoader(text).get_single_data()


def with_item(text: str, section: str, fields: Mapping[str, Answer]) -> str:
    """The text with one more item at the end of the section, which is made if it is missing."""
    written = {name: value for name, value in fields.items() if value is not None}
    expected = plain(text)
    expected[section] = [*(expected.get(section) or ()), written]
    text = _ended(text)
    found = _entry(text, section)
    if found is None:
        return _checked(f"{text}\n{section}:\n{_block(written, 2)}", expected)
    items = found[1]
    if items.value and items.flow_style:
        at = _end(text, items.value[-1])
        return _checked(f"{text[:at]}, {_flow(written)}{text[at:]}", expected)
    if items.value:
        column = items.start_mark.column
        at = _below(text, items.value[-1], column)
    else:  # nothing, or []
        text = text[: items.start_mark.index].rstrip() + text[items.end_mark.index :]
        column, at = 2, text.index("\n", items.start_mark.index - 1) + 1
    return _checked(text[:at] + _block(written, column) + text[at:], expected)


def with_fields(text: str, section: str, index: int, fields: Mapping[str, Answer]) -> str:
    """The text with other values in these fields of an item."""
    text = _ended(text) if fields else text
    for name, value in fields.items():
        expected = plain(text)
        item = expected[section][index]
        expected[section][index] = {**item, name: value}
        if value is None:
            expected[section][index] = {key: one for key, one in item.items() if key != name}
        text = _checked(_with_field(text, section, index, name, value), expected)
    return text


def without_item(text: str, section: str, index: int) -> str:
    """The text without an item and the comments in it."""
    text, expected = _ended(text), plain(text)
    del expected[section][index]
    key, items = _found(text, section)
    item = items.value[index]
    if items.flow_style and len(items.value) == 1:
        return _checked(f"{text[: items.start_mark.index]}[]{text[items.end_mark.index :]}", expected)
    if items.flow_style:
        following = items.value[index + 1 :]
        start = item.start_mark.index if following else _end(text, items.value[index - 1])
        end = following[0].start_mark.index if following else _end(text, item)
        return _checked(text[:start] + text[end:], expected)
    start, end = text.rindex("\n", 0, item.start_mark.index) + 1, _below(text, item, items.start_mark.column)
    before = text[:start]
    if len(items.value) == 1:
        colon = text.index(":", key.end_mark.index) + 1
        before = f"{text[:colon]} []{text[colon:start]}"
    return _checked(before + text[end:], expected)


def replace_text(path: Path, text: str) -> None:
    """Replace the file as a whole, with the mode, the line ends and the byte order mark that it had; may OSError."""
    path = path.resolve()
    before = path.read_bytes()
    encoding, newline = "utf-8-sig" if before.startswith(BOM_UTF8) else "utf-8", "\r\n" if b"\r\n" in before else "\n"
    with NamedTemporaryFile(
        "w", encoding=encoding, newline=newline, dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as part:
        try:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
            shutil.copymode(path, part.name)
            Path(part.name).replace(path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


class _Texts(yaml.SafeDumper):
    """Writes text without quotes where YAML allows it, for exports.yaml is only ever read as text, and nothing."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own name)


_Texts.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(f"(?:{'|'.join(NULLS)})$"), ["", *"~nN"])


def _flow(value: Any) -> str:
    """A value for any place, inside of [ ] and { } too."""
    return _dumped([value])[1:-1]


def _dumped(value: Any) -> str:
    text = yaml.dump(value, Dumper=_Texts, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return text.removesuffix("...\n").strip()


def _block(fields: Mapping[str, Any], column: int) -> str:
    """An item of a block list, its fields on a line each."""
    starts = ["- ", *["  "] * (len(fields) - 1)]
    lines = (f"{start}{name}: {_dumped(value)}" for start, (name, value) in zip(starts, fields.items(), strict=True))
    return "".join(f"{' ' * column}{line}\n" for line in lines)


def _ended(text: str) -> str:
    return text if text.endswith("\n") else f"{text}\n"


def _entry(text: str, name: str) -> tuple[yaml.Node, Any] | None:
    root = yaml.compose(text, Loader=yaml.BaseLoader)
    return next((pair for pair in root.value if pair[0].value == name), None)


def _found(text: str, section: str) -> tuple[yaml.Node, Any]:
    found = _entry(text, section)
    assert found
    return found


def _end(text: str, node: yaml.Node) -> int:
    """Where the node's last character is; PyYAML ends a block where the next thing starts, below the comments."""
    while isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return len(text[: node.end_mark.index].rstrip())


def _below(text: str, item: yaml.Node, column: int) -> int:
    """The start of the line below an item and the comments that are indented as its fields are."""
    at = text.index("\n", _end(text, item)) + 1
    comment = re.compile(rf" {{{column + 1},}}#.*\n")
    while found := comment.match(text, at):
        at = found.end()
    return at


def _with_field(text: str, section: str, index: int, name: str, value: Answer) -> str:
    item = _found(text, section)[1].value[index]
    names = [key.value for key, _ in item.value]
    if name in names:
        place = names.index(name)
        return _without_field(text, item, place) if value is None else _replaced(text, item, place, value)
    if value is None:
        return text
    if item.flow_style:
        at = _end(text, item.value[-1][1])
        return f"{text[:at]}, {_flow({name: value})[1:-1]}{text[at:]}"
    at = text.index("\n", _end(text, item)) + 1
    return f"{text[:at]}{' ' * item.start_mark.column}{name}: {_dumped(value)}\n{text[at:]}"


def _replaced(text: str, item: Any, place: int, value: str | list[Any]) -> str:
    old = item.value[place][1]
    start, end = old.start_mark.index, _end(text, old)
    written = _flow(value) if item.flow_style else _dumped(value)
    if isinstance(old, yaml.SequenceNode) and not old.flow_style and isinstance(value, list):
        written = f"\n{' ' * old.start_mark.column}".join(f"- {_dumped(one)}" for one in value)
    gap = " " if text[start - 1] == ":" else ""
    return f"{text[:start]}{gap}{written}{text[max(start, end) :]}"


def _without_field(text: str, item: Any, place: int) -> str:
    key, value = item.value[place]
    if place == 0:
        return text[: key.start_mark.index] + text[item.value[1][0].start_mark.index :]
    if item.flow_style:
        return text[: _end(text, item.value[place - 1][1])] + text[_end(text, value) :]
    start, end = text.rindex("\n", 0, key.start_mark.index), text.index("\n", _end(text, value))
    return text[:start] + text[end:]


def _checked(text: str, expected: Any) -> str:
    """The text, if it says what was expected: aliases and unusual ways of writing are not worth a rule each."""
    try:
        found = plain(text)
    except yaml.YAMLError:
        found = None
    if found != expected:
        raise NotEditable("is written in a way that cannot be changed in one place alone; change it in an editor.")
    return text
