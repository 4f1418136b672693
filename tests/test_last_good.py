"""An exports.yaml that is broken while exports run: the last good one is used, and everything says so."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from receiver import Answer, Receiver

from m3ter_dagster.alarms import configuration_alarm
from m3ter_dagster.cli import main
from m3ter_dagster.config import ConfigError, Exports, Unloadable, load_exports_or_last_good, load_settings
from m3ter_dagster.config.last_good import FOLDER
from m3ter_dagster.definitions import build_definitions, definitions

GOOD = """\
destinations: [{code: warehouse, bucketName: acme-1}]
schedules:
  - {code: finance, operationalDataTypes: ALL, destinations: [warehouse], scheduleType: DAY, period: 1,
     dtCreated: 2024-06-01T02:00:00Z}
notifications: {webhookUrl: "${WEBHOOK}"}
"""
EDITED = GOOD.replace("acme-1", "acme-2")
BROKEN, WORSE = GOOD.replace("[warehouse]", "[warehous]"), GOOD.replace("period: 1", "period: 0")
MISTAKE = "exports.yaml:3: schedule 'finance' names the destination 'warehous'; known are warehouse."
TOO_SHORT = "exports.yaml:3: schedule 'finance' has the period '0'; write a whole number from 1 to 10000, such as 5."
SECRET = "https://hooks.example.com/T0/secret"
JUNE, JULY = datetime(2024, 6, 1, 10, tzinfo=UTC), datetime(2024, 7, 1, 11, 30, tzinfo=UTC)
UNLOADABLE = Unloadable((MISTAKE, "another."), since=JULY, last_good=JUNE)
WORDS = (
    f"exports.yaml cannot be loaded since 2024-07-01 11:30 UTC: {MISTAKE} (1 more) "
    "The one of 2024-06-01 10:00 UTC is used."
)


@dataclass
class Place:
    """A folder with exports.yaml, and a home beside it."""

    folder: Path
    environment: dict[str, str]

    @property
    def file(self) -> Path:
        return self.folder / "exports.yaml"

    def load(self, text: str | None = None) -> tuple[Exports, Unloadable | None]:
        if text is not None:
            self.file.write_text(text)
        return load_exports_or_last_good(self.environment, folder=self.folder)

    def kept(self) -> list[Path]:
        return sorted((self.folder / "home" / FOLDER).glob("*"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return Place(tmp_path, {"DAGSTER_HOME": str(tmp_path / "home"), "WEBHOOK": SECRET, "M3TER_EXPORTS": "exports.yaml"})


@pytest.mark.parametrize("text", [BROKEN, "destinations: [", None], ids=["a mistake", "no YAML", "no file"])
def test_the_last_good_exports_are_used_while_the_file_is_broken(place: Place, text: str | None) -> None:
    place.load(GOOD)
    good, nothing = place.load(EDITED)
    assert (good.destinations[0].bucket_name, nothing) == ("acme-2", None)
    place.file.unlink()
    used, unloadable = place.load(text)
    assert used == good
    assert unloadable
    first = unloadable.mistakes[0].splitlines()[0].removesuffix(" For example:")
    time = r"[-\d]+ [:\d]+ UTC"
    words = rf"exports\.yaml cannot be loaded since {time}: {re.escape(first)} The one of {time} is used\."
    assert re.fullmatch(words, str(unloadable))
    repaired, nothing = place.load(GOOD)
    assert (repaired.destinations[0].bucket_name, nothing) == ("acme-1", None)


def test_all_say_the_same_of_a_broken_file_until_it_is_repaired(place: Place) -> None:
    place.load(GOOD)
    place.load(BROKEN)
    mark, kept = place.kept()
    for file, moment in ((mark, JULY), (kept, JUNE)):
        os.utime(file, (moment.timestamp(),) * 2)
    assert [place.load(text)[1] for text in (BROKEN, WORSE)] == [
        Unloadable((MISTAKE,), since=JULY, last_good=JUNE),
        Unloadable((TOO_SHORT,), since=JULY, last_good=JUNE),
    ]
    place.load(GOOD)
    place.load(BROKEN)
    assert mark.stat().st_mtime > JULY.timestamp()


def test_what_is_kept_is_for_its_owner_and_holds_no_value_of_the_environment(place: Place) -> None:
    place.load(GOOD)
    (kept,) = place.kept()
    assert kept.read_text() == GOOD
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700


def test_only_another_text_is_written(place: Place) -> None:
    place.load(GOOD)
    (before,) = [file.stat() for file in place.kept()]
    place.load()
    (same,) = [file.stat() for file in place.kept()]
    place.load(EDITED)
    (after,) = [file.stat() for file in place.kept()]
    assert (before.st_ino, before.st_mtime_ns) == (same.st_ino, same.st_mtime_ns)
    assert after.st_ino != before.st_ino


@pytest.mark.parametrize(
    ("environment", "is_kept"),
    [({"DAGSTER_HOME": ""}, False), ({"DAGSTER_HOME": "exports.yaml"}, False), ({"WEBHOOK": None}, True)],
    ids=["nowhere to keep it", "a home that cannot be written", "a variable that is gone"],
)
def test_without_a_last_good_one_a_broken_file_is_an_error(
    place: Place, environment: dict[str, Any], *, is_kept: bool
) -> None:
    if not is_kept:
        place.environment |= environment
    place.load(GOOD)
    assert bool(place.kept()) is is_kept
    changed = {name: value for name, value in (place.environment | environment).items() if value is not None}
    place.environment = changed
    with pytest.raises(ConfigError) as error:
        place.load(BROKEN)
    assert error.value.mistakes[0] == MISTAKE


def test_each_exports_yaml_has_its_own(place: Place) -> None:
    place.load(GOOD)
    place.environment["M3TER_EXPORTS"] = "other.yaml"
    with pytest.raises(ConfigError):
        place.load()


def test_a_terminal_never_goes_on_with_another_file_than_it_was_given(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.load(GOOD)
    place.file.write_text(BROKEN)
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    ended = CliRunner().invoke(main, ["check", "--without-environment"])
    assert (ended.exit_code, ended.stderr.strip()) == (2, f"Error: {MISTAKE}")


def test_what_dagster_loads_says_that_it_is_the_last_good_one(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    place.file.write_text(GOOD)
    assert not definitions().resolve_schedule_def("finance").description.startswith("exports.yaml")  # type: ignore[union-attr]
    place.file.write_text(BROKEN)
    with caplog.at_level(logging.WARNING):
        found = definitions()
    (words,) = caplog.messages
    assert MISTAKE in words
    described = [
        found.resolve_schedule_def("finance").description,
        *(found.resolve_job_def(name).description for name in ("export", "export_finance")),
        *(found.resolve_assets_def(name).descriptions_by_key[dg.AssetKey(name)] for name in MANIFESTS),
    ]
    assert [text.split("\n")[0] for text in described if text] == [words] * 5


MANIFESTS = ("export_manifest", "usage_manifest")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver(Answer(404), Answer(), Answer(), Answer()) as receiver:
        yield receiver


def test_the_webhook_is_notified_once_per_mistake_and_once_that_it_is_gone(
    receiver: Receiver, instance: dg.DagsterInstance, place: Place
) -> None:
    place.environment["WEBHOOK"] = receiver.url
    exports, _ = place.load(GOOD)
    worse = Unloadable(("worse.",), since=JULY, last_good=JUNE)
    cursor: str | None = None
    for unloadable in (None, UNLOADABLE, UNLOADABLE, UNLOADABLE, worse, None, None):
        (sensor,) = configuration_alarm(exports, unloadable, webhook=receiver.webhook())
        with dg.build_sensor_context(instance, cursor) as context:
            cursor = sensor.evaluate_tick(context).cursor
    broken = f"m3ter {WORDS}\n{MISTAKE}\nanother."
    assert receiver.texts == [
        broken,  # which the webhook did not take
        broken,
        "m3ter exports.yaml cannot be loaded since 2024-07-01 11:30 UTC: worse. "
        "The one of 2024-06-01 10:00 UTC is used.\nworse.",
        "m3ter exports.yaml can be loaded again, and is used.",
    ]


def test_the_definitions_of_another_project_need_not_know_of_it(place: Place) -> None:
    exports, _ = place.load(GOOD)
    description = build_definitions(exports, load_settings({})).resolve_schedule_def("finance").description
    assert str(description).startswith("finance: every day since 2024-06-01 02:00 UTC, all 20 entities to warehouse. ")
