"""exports.yaml changed from a terminal: by options, by answers, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from m3ter_dagster.cli import main
from m3ter_dagster.config import DESTINATIONS, parse_exports
from m3ter_dagster.config.answers import questions
from m3ter_dagster.config.models import ExportSchedule, UsageSchedule

FILE = """\
destinations:
  - code: warehouse
    bucketName: ${BUCKET}   # of the environment
  - code: archive
    bucketName: acme-archive
    # region: eu-west-1

# Who exports what.
schedules:
  - code: finance   # monthly
    operationalDataTypes: [ACCOUNTS, BILLS]
    destinations: [archive]
    scheduleType: DAY
    period: 5
    dtCreated: 2024-06-01T10:00:00Z

# escapeFormulas: true
"""
ENVIRONMENT = {"BUCKET": "acme-exports", "M3TER_API_SECRET_FILE": ""}
DONE = (
    "exports.yaml is changed. Dagster takes the edit up on Deployment > Reload in its UI; that of `m3ter-dagster ui` "
    "by itself, within about a minute."
)
OPTIONS = [
    *("--operational-data-types", "ACCOUNTS, BILLS", "--destinations", "warehouse,archive"),
    *("--schedule-type", "HOUR", "--period", "6"),
]

Terminal = Callable[..., Result]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "exports.yaml"
    file.write_text(FILE)
    return file


@pytest.fixture
def terminal(file: Path) -> Terminal:
    """Runs a command, with what a person types; nothing: nobody is there."""

    def run(*command: str, types: str = "", environment: dict[str, str] = ENVIRONMENT) -> Result:
        everything = {**environment, "M3TER_EXPORTS": str(file)}
        return CliRunner().invoke(main, command, input=types, env=everything, catch_exceptions=False)

    return run


def added(file: Path) -> list[str]:
    """The lines that came; nothing may have gone."""
    lines = file.read_text().splitlines()
    assert [line for line in FILE.splitlines() if line not in lines] == []
    return [line for line in lines if line not in FILE.splitlines()]


def test_a_schedule_by_options(terminal: Terminal, file: Path) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    result = terminal("schedule", "add", "nightly", *OPTIONS, "--changes", "true", "--name", "", "--yes")
    assert (result.exit_code, result.stderr) == (0, "")
    created = re.search(r"dtCreated: (.*)", "\n".join(added(file)))
    assert created
    assert before <= datetime.fromisoformat(created[1]) <= datetime.now(UTC)
    assert added(file) == [
        "  - code: nightly",
        "    destinations: [warehouse, archive]",
        "    scheduleType: HOUR",
        "    period: 6",
        f"    dtCreated: {created[1]}",
        "    changes: true",
    ]
    assert file.read_text().endswith("    changes: true\n\n# escapeFormulas: true\n")
    assert [line for line in result.stdout.splitlines() if line.startswith("+ ")] == [f"+{one}" for one in _item(file)]
    assert result.stdout.endswith(f"/{DONE}\n")


def errors(result: Result) -> list[str]:
    """What was said of the answers that were none."""
    return re.findall(r"Error: (.*)", result.stdout)


def _item(file: Path) -> list[str]:
    return file.read_text().split("10:00:00Z\n")[1].split("\n\n")[0].splitlines()


def test_a_schedule_by_answers_each_asked_again_until_it_is_right(terminal: Terminal, file: Path) -> None:
    answers = ["", "2, plans,acounts", "2, plans,2", "all", "daily", "2", "0", "7", "yesterday", "2026-01-01T00:00:00Z"]
    result = terminal("schedule", "add", "nightly", types="\n".join([*answers, "y", ""]))
    assert result.exit_code == 0, result.output
    acounts, *others = errors(result)
    assert acounts.startswith("there is no 'acounts'; known are ACCOUNTS, ACCOUNT_PLANS, ")
    assert acounts.endswith(" Did you mean 'ACCOUNTS'?")
    assert others == [
        "there is no 'daily'; known are DAY, HOUR, MINUTE.",
        "it has the period '0'; write a whole number from 1 to 10000, such as 5.",
        "it has the dtCreated 'yesterday'; write the moment with its zone, such as 2024-06-01T10:00:00Z.",
    ]
    assert "\nsourceType: The kind of data.\n   1 OPERATIONAL\n   2 USAGE\n" in result.stdout
    assert "Numbers or names, comma-separated, or all [warehouse]: " in result.stdout
    exports = parse_exports(file.read_text(), environ=ENVIRONMENT)
    new = exports.schedules[1]
    assert (new.asset_names, new.destinations) == (("account_plan", "plan"), ("warehouse", "archive"))
    assert new.cadence.words() == "every 7 days since 2026-01-01 00:00 UTC"


def test_a_schedule_by_cron_is_not_asked_for_a_period(terminal: Terminal, file: Path) -> None:
    result = terminal("schedule", "add", "nightly", *OPTIONS[:4], "--cron-expression", "0 8 * * MON-FRI", "--yes")
    assert result.exit_code == 0, result.output
    assert added(file)[2] == "    cronExpression: 0 8 * * MON-FRI"
    result = terminal("schedule", "edit", "nightly", types="\n\n0 9 * * *\n\ny\n")
    assert re.findall(r"^\n(\w+): ", result.stdout, re.MULTILINE)[2:] == ["cronExpression", "dtCreated"]
    assert "    cronExpression: 0 9 * * *" in file.read_text()
    result = terminal("schedule", "edit", "finance", "--cron-expression", "0 9 * * *", "--yes")
    assert "has a cronExpression and the scheduleType 'DAY'; write only one." in result.output
    by_cron = ("--schedule-type", "", "--period", "", "--cron-expression", "0 9 * * *", "--yes")
    assert terminal("schedule", "edit", "finance", *by_cron).exit_code == 0


def test_a_usage_schedule_by_answers(terminal: Terminal, file: Path) -> None:
    result = terminal("schedule", "add", "usage", types="2\nlast_7_days\n\nDAY\n1\n\ny\n")
    assert result.exit_code == 0, result.output
    assert added(file)[:3] == ["  - code: usage", "    sourceType: USAGE", "    timePeriod: LAST_7_DAYS"]


def test_only_what_has_no_option_is_asked(terminal: Terminal, file: Path) -> None:
    result = terminal("schedule", "add", "nightly", *OPTIONS[:4], types="DAY\n1\ny\n")
    assert result.exit_code == 0, result.output
    assert re.findall(r"^\n(\w+): ", result.stdout, re.MULTILINE) == ["scheduleType", "period"]
    assert "    scheduleType: DAY" in file.read_text()


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("schedule", "add", "nightly"), "--source-type"),
        (("schedule", "add", "nightly", *OPTIONS[:4]), "--schedule-type"),
        (("schedule", "add", "nightly", *OPTIONS), "--yes"),
        (("destination", "add", "lake"), "--destination-type"),
    ],
)
def test_where_nobody_answers_the_option_is_named(
    terminal: Terminal, file: Path, command: tuple[str, ...], option: str
) -> None:
    result = terminal(*command)
    assert (result.exit_code, file.read_text()) == (2, FILE)
    assert result.stderr.endswith(f"Error: nobody answers; give {option}.\n")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            ("schedule", "add", "nightly", *OPTIONS[:-1], "x"),
            "exports.yaml:20: schedule 'nightly' has the period 'x'; write a whole number from 1 to 10000, such as 5.",
        ),
        (
            ("schedule", "edit", "finance", "--destinations", "archiv", "--time-period", "TODAY"),
            "schedule 'finance' has the key 'timePeriod', which belongs to the sourceType USAGE; leave it out, "
            "or write sourceType: USAGE.",
        ),
        (
            ("schedule", "edit", "finance", "--destinations", "archiv"),
            "exports.yaml:12: schedule 'finance' names the destination 'archiv'; known are archive, warehouse.",
        ),
        (
            ("schedule", "edit", "finance", "--destinations", "[archive"),
            "schedule 'finance' has the value '[archive' as destinations; write a list of destination codes.",
        ),
        (("schedule", "edit", "finance", "--code", "x"), "No such option '--code'."),
        (("schedule", "add", "finance", *OPTIONS), "there is a schedule 'finance' already; change it with `schedule"),
        (("schedule", "edit", "financ"), "there is no schedule 'financ'; known are finance."),
        (
            ("destination", "add", "archive"),
            "there is a destination 'archive' already; change it with `destination edit`.",
        ),
        (
            ("destination", "add", "b", "--bucket-name", "B"),
            "destination 'b' has the bucketName 'B'; ",
        ),
        (("destination", "remove", "lake"), "there is no destination 'lake'; known are archive, warehouse."),
        (
            ("destination", "remove", "archive"),
            "destination 'archive' is used by the schedule 'finance'; name another destination there first.",
        ),
    ],
)
def test_a_mistake_writes_nothing(terminal: Terminal, file: Path, command: tuple[str, ...], words: str) -> None:
    result = terminal(*command, types="y\n" * 9)
    assert (result.exit_code, file.read_text()) == (2, FILE)
    assert words in result.stderr


def test_a_file_that_is_wrong_already_is_not_changed(terminal: Terminal, file: Path) -> None:
    file.write_text(FILE.replace("period: 5", "period: 0"))
    result = terminal("schedule", "remove", "finance", "--yes")
    assert result.exit_code == 2
    assert "exports.yaml:14: schedule 'finance' has the period '0'" in result.stderr


def test_what_a_person_declines_is_not_written(terminal: Terminal, file: Path) -> None:
    result = terminal("schedule", "remove", "finance", types="n\n")
    assert (result.exit_code, file.read_text()) == (0, FILE)
    assert result.stdout.endswith("Write this? [y/N]: n\nNothing was written.\n")


def test_what_somebody_else_writes_meanwhile_is_kept(
    terminal: Terminal, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confirm(_: str) -> bool:
        file.write_text(f"{FILE}# mine\n")
        return True

    monkeypatch.setattr("click.confirm", confirm)
    result = terminal("schedule", "remove", "finance")
    assert (result.exit_code, file.read_text()) == (2, f"{FILE}# mine\n")
    assert "was changed by somebody else meanwhile; run the command again." in result.stderr


def test_an_edit_by_options_and_by_answers_that_are_what_it_has(terminal: Terminal, file: Path) -> None:
    result = terminal("schedule", "edit", "finance", "--period", "7", "--name", "By week", "--yes")
    assert result.exit_code == 0, result.output
    edited = FILE.replace("period: 5", "period: 7").replace("00Z\n", "00Z\n    name: By week\n")
    assert file.read_text() == edited
    result = terminal("schedule", "edit", "finance", types="\n\n\n\n\n")
    assert (result.exit_code, file.read_text()) == (0, edited)
    assert result.stdout.endswith("There is nothing to change.\n")
    assert "comma-separated, or all [ACCOUNTS, BILLS]: " in result.stdout
    result = terminal("schedule", "edit", "finance", types="all\n\n\n\n\ny\n")
    assert file.read_text() == edited.replace("[ACCOUNTS, BILLS]", "ALL")
    assert terminal("schedule", "edit", "finance", "--name", "", "--yes").exit_code == 0
    assert "name" not in file.read_text()


def test_schedules_and_destinations_are_removed_in_this_order(terminal: Terminal, file: Path) -> None:
    assert terminal("schedule", "remove", "finance", "--yes").exit_code == 0
    assert terminal("destination", "remove", "archive", "--yes").exit_code == 0
    assert file.read_text() == (
        "destinations:\n  - code: warehouse\n    bucketName: ${BUCKET}   # of the environment\n\n"
        "# Who exports what.\nschedules: []\n\n# escapeFormulas: true\n"
    )
    last = terminal("destination", "remove", "warehouse", "--yes")
    assert last.exit_code == 2
    assert "has an empty list as destinations; write at least one of destinations." in last.stderr


def test_a_destination_by_answers(terminal: Terminal, file: Path) -> None:
    result = terminal("destination", "add", "lake", types="S3\n${BUCKET}\nm3ter/lake\n\neu west\neu-west-1\ny\n")
    assert result.exit_code == 0, result.output
    assert errors(result) == ["it has the region 'eu west'; write a region such as eu-west-1."]
    assert added(file) == [
        "  - code: lake",
        "    destinationType: S3",
        "    bucketName: ${BUCKET}",
        "    prefix: m3ter/lake",
        "    region: eu-west-1",
    ]


def test_a_folder_by_answers_and_by_options(terminal: Terminal, file: Path, tmp_path: Path) -> None:
    result = terminal("destination", "add", "drive", types=f"LOCAL\n{tmp_path}\ny\n")
    assert result.exit_code == 0, result.output
    assert added(file) == ["  - code: drive", "    destinationType: LOCAL", f"    path: {tmp_path}"]
    options = ("--destination-type", "LOCAL", "--path", str(tmp_path), "--yes")
    assert terminal("destination", "add", "other", *options).exit_code == 0
    found = json.loads(terminal("destination", "list", "--json").stdout)
    assert [(one["destinationType"], one["where"]) for one in found][-2:] == [("LOCAL", str(tmp_path))] * 2


def test_a_destination_is_edited_by_options_and_by_answers(terminal: Terminal, file: Path) -> None:
    options = ("--prefix", "m3ter", "--partition-order", "TYPE_FIRST", "--yes")
    assert terminal("destination", "edit", "archive", *options).exit_code == 0
    edited = FILE.replace("acme-archive\n", "acme-archive\n    prefix: m3ter\n    partitionOrder: TYPE_FIRST\n")
    assert file.read_text() == edited
    # The questions of `add`, each with what it has; an answer of nothing keeps that.
    result = terminal("destination", "edit", "archive", types="\n\n\neu-west-1\ny\n")
    assert (result.exit_code, errors(result)) == (0, [])
    assert file.read_text() == edited.replace("TYPE_FIRST\n", "TYPE_FIRST\n    region: eu-west-1\n")
    assert terminal("destination", "edit", "archive", "--prefix", "", "--region", "", "--yes").exit_code == 0
    assert file.read_text() == edited.replace("    prefix: m3ter\n", "")
    refused = terminal("destination", "edit", "archive", "--path", "/srv", "--yes")
    assert (refused.exit_code, "belongs to the destinationType LOCAL" in refused.stderr) == (2, True)
    assert (
        "there is no destination 'archiv'; known are archive, warehouse"
        in terminal("destination", "edit", "archiv", "--yes").stderr
    )


def test_a_bucket_at_google_by_answers_and_by_options(terminal: Terminal, file: Path) -> None:
    account = "m3ter-export@acme.iam.gserviceaccount.com"
    result = terminal("destination", "add", "lake", types=f"GCS\nacme_lake\nm3ter\n{account}\ny\n")
    assert result.exit_code == 0, result.output
    lines = ["  - code: lake", "    destinationType: GCS", "    bucketName: acme_lake", "    prefix: m3ter"]
    assert added(file) == [*lines, f"    serviceAccountEmail: {account}"]
    options = ("--destination-type", "GCS", "--bucket-name", "acme-lake", "--yes")
    assert terminal("destination", "add", "other", *options).exit_code == 0
    found = json.loads(terminal("destination", "list", "--json").stdout)[-2:]
    assert [(one["where"], one["serviceAccountEmail"]) for one in found] == [
        ("acme_lake/m3ter", account),
        ("acme-lake", None),
    ]


def test_destinations_are_listed_with_what_uses_them(terminal: Terminal) -> None:
    result = terminal("destination", "list")
    assert [re.split(r"  +", line.strip()) for line in result.stdout.splitlines()] == [
        ["destination", "where", "order", "role", "used by"],
        ["warehouse", "acme-exports", "TIME_FIRST", "exports by hand"],
        ["archive", "acme-archive", "TIME_FIRST", "finance"],
    ]
    found = json.loads(terminal("destination", "list", "--json").stdout)
    assert [(one["destination"], one["isDefault"], one["schedules"]) for one in found] == [
        ("warehouse", True, []),
        ("archive", False, ["finance"]),
    ]


def test_schedule_list_is_schedules(terminal: Terminal, tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "DAGSTER_HOME": str(tmp_path)}
    (found,) = json.loads(terminal("schedule", "list", "--json", environment=environment).stdout)
    assert (found["schedule"], found["exports"]) == ("finance", ["account", "bill"])


@pytest.mark.parametrize(
    ("group", "command", "models"),
    [
        ("schedule", "add", (ExportSchedule, UsageSchedule)),
        ("schedule", "edit", (ExportSchedule, UsageSchedule)),
        ("destination", "add", tuple(DESTINATIONS.values())),
        ("destination", "edit", tuple(DESTINATIONS.values())),
    ],
)
def test_every_field_of_texts_has_an_option(
    terminal: Terminal, group: str, command: str, models: tuple[type, ...]
) -> None:
    words = terminal(group, command, "--help").stdout
    fields = {name for model in models for name in questions(model)} - {"code", "excludeColumns"}
    options = {re.sub("([A-Z])", r"-\1", name).lower() for name in fields}
    assert set(re.findall(r"^  --([a-z-]+) TEXT", words, re.MULTILINE)) == options
