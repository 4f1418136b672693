"""Changes of exports.yaml's text: what is not changed stays as it was written, comments above all."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from m3ter_dagster.config.exports_edit import Answer, NotEditable, replace_text, with_fields, with_item, without_item

FILE = """\
# The first line.
destinations:   # where to
  - code: warehouse   # the first
    bucketName:    "acme-${STAGE}"
    # region: eu-west-1

  - {code: archive,  bucketName: acme-archive}   # in one line
# Before the schedules.
schedules:
- operationalDataTypes:   # which
    - ACCOUNTS   # accounts
    # more
    - BILLS
  code: 'finance'
  destinations: [warehouse]   # one
  period: 5
  region:
  # reuse: unchangedBills

- code: bills
  destinations:
  - warehouse

# About the next section.
previews: true
# The last line."""
NEW: dict[str, Answer] = {"code": "new", "destinations": ["a", "${B}"], "period": "5", "name": None}
ENDED = f"{FILE}\n"
ONE = "destinations:\n  - code: a\n"


def changed(before: str, after: str) -> tuple[list[str], list[str]]:
    """The lines that went, and those that came."""
    old, new = before.splitlines(), after.splitlines()
    return [line for line in old if line not in new], [line for line in new if line not in old]


def test_a_new_item_stands_below_the_last_and_above_what_is_about_the_next_section() -> None:
    after = with_item(FILE, "schedules", NEW)
    item = "- code: new\n  destinations: [a, '${B}']\n  period: 5\n"
    assert after == FILE.replace("  - warehouse\n", f"  - warehouse\n{item}") + "\n"
    after = with_item(FILE, "destinations", {"code": "null", "name": "a: b", "bucketName": "${BUCKET}"})
    item = "  - code: 'null'\n    name: 'a: b'\n    bucketName: ${BUCKET}\n"
    assert after == FILE.replace("# in one line\n", f"# in one line\n{item}") + "\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\nschedules:\n  - code: b\n"),
        ("schedules:   # none\n# end\n", "schedules:   # none\n  - code: b\n# end\n"),
        ("schedules: [ ]   # none\n", "schedules:   # none\n  - code: b\n"),
        ("schedules: [{code: a}]   # one\n", "schedules: [{code: a}, {code: b}]   # one\n"),
        ("schedules: [\n  {code: a},\n]\n", "schedules: [\n  {code: a}, {code: b},\n]\n"),
        (
            "schedules:\n  - code: a\n  # of what follows\n",
            "schedules:\n  - code: a\n  - code: b\n  # of what follows\n",
        ),
        ("schedules:\n    - code: a\n      # of a\n", "schedules:\n    - code: a\n      # of a\n    - code: b\n"),
    ],
)
def test_a_new_item_in_a_list_however_it_is_written(before: str, after: str) -> None:
    assert with_item(ONE + before, "schedules", {"code": "b"}) == ONE + after


@pytest.mark.parametrize(
    ("field", "value", "went", "came"),
    [
        ("code", "f", ["  code: 'finance'"], ["  code: f"]),
        ("destinations", ["a", "b"], ["  destinations: [warehouse]   # one"], ["  destinations: [a, b]   # one"]),
        ("region", "eu-west-1", ["  region:"], ["  region: eu-west-1"]),
        ("region", None, ["  region:"], []),
        ("period", None, ["  period: 5"], []),
        ("name", "Für alle", [], ["  name: Für alle"]),
        ("name", None, [], []),
        ("operationalDataTypes", "ALL", ["    - ACCOUNTS   # accounts", "    # more", "    - BILLS"], ["    ALL"]),
        (
            "operationalDataTypes",
            ["BILLS", "PLANS"],
            ["    - ACCOUNTS   # accounts", "    # more"],
            ["    - PLANS"],
        ),
    ],
)
def test_only_the_field_that_is_changed(field: str, value: Answer, went: list[str], came: list[str]) -> None:
    assert changed(FILE, with_fields(FILE, "schedules", 0, {field: value})) == (went, came)


def test_fields_of_an_item_in_one_line() -> None:
    after = with_fields(ENDED, "destinations", 1, {"bucketName": "${B}", "region": "eu-west-1", "code": "x"})
    assert after == ENDED.replace(
        "{code: archive,  bucketName: acme-archive}", "{code: x,  bucketName: '${B}', region: eu-west-1}"
    )
    assert with_fields(ENDED, "destinations", 1, {"bucketName": None}) == ENDED.replace(
        ",  bucketName: acme-archive", ""
    )


def test_an_item_that_is_removed_takes_its_own_comments_with_it_and_no_others() -> None:
    bills = "- code: bills\n  destinations:\n  - warehouse\n"
    assert without_item(FILE, "schedules", 1) == FILE.replace(bills, "") + "\n"
    (went, came) = changed(FILE, without_item(FILE, "schedules", 0))
    assert (went[0], went[-1], len(went), came) == (
        "- operationalDataTypes:   # which",
        "  # reuse: unchangedBills",
        9,
        [],
    )
    assert (
        without_item(FILE, "destinations", 1)
        == FILE.replace("  - {code: archive,  bucketName: acme-archive}   # in one line\n", "") + "\n"
    )


@pytest.mark.parametrize(
    ("before", "index", "after"),
    [
        ("schedules:   # all\n  - code: a\n    # of a\n# end\n", 0, "schedules: []   # all\n# end\n"),
        ("schedules:\n- code: a", 0, "schedules: []\n"),
        ("schedules: [{code: a}]   # one\n", 0, "schedules: []   # one\n"),
        ("schedules: [{code: a}, {code: b}]   # two\n", 0, "schedules: [{code: b}]   # two\n"),
        ("schedules: [{code: a}, {code: b}]   # two\n", 1, "schedules: [{code: a}]   # two\n"),
    ],
)
def test_an_item_is_removed_from_a_list_however_it_is_written(before: str, index: int, after: str) -> None:
    assert without_item(ONE + before, "schedules", index) == ONE + after


def test_what_cannot_be_changed_alone_is_not_changed() -> None:
    shared = "schedules:\n  - {code: a, destinations: &all [x, y]}\n  - {code: b, destinations: *all}\n"
    with pytest.raises(NotEditable, match="in an editor"):
        with_fields(shared, "schedules", 1, {"destinations": ["x"]})
    with pytest.raises(NotEditable):
        without_item(shared, "schedules", 0)


def test_the_file_is_replaced_as_a_whole_and_stays_what_it_was(tmp_path: Path) -> None:
    file, link = tmp_path / "shared.yaml", tmp_path / "exports.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: b\r\n")
    file.chmod(0o640)
    link.symlink_to(file)
    before = file.stat().st_ino
    replace_text(link, "a: c\nd: e\n")
    assert file.read_bytes() == b"\xef\xbb\xbfa: c\r\nd: e\r\n"
    assert (link.is_symlink(), stat.S_IMODE(file.stat().st_mode)) == (True, 0o640)
    assert file.stat().st_ino != before
    assert sorted(tmp_path.iterdir()) == [link, file]


def test_a_file_that_cannot_be_replaced_has_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(16, "Device or resource busy")

    file = tmp_path / "exports.yaml"
    file.write_text("a: b\n")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="busy"):
        replace_text(file, "a: c\n")
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("exports.yaml", "a: b\n")]
