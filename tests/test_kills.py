"""`m3ter-dagster export` ended in mid export from outside: nothing partial stands anywhere; a resume completes it."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from faults import Hold, unharmed
from faulty_house import House, Records, large_meters, open_house, small_organization
from processes import plain_environment, start_command
from stores import Store

from m3ter_dagster.cli import main
from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.heartbeat import SILENCE
from m3ter_dagster.stuck_exports import stuck_exports

pytestmark = pytest.mark.slow

NAMES = ("account", "meter")
FEW = [(name, record) for name, record in small_organization() if name in NAMES]
MANY = FEW + large_meters()
SECONDS_TO_START, SECONDS_TO_END = 90, 30
KILLED = -signal.SIGKILL
Truth = dict[str, bytes]


@dataclass(frozen=True)
class Moment:
    """A request of the export, and where it stands when the process is ended."""

    server: str
    where: str
    number: int
    stands: str
    """before, within or after it reaches the server"""

    @property
    def records(self) -> Records:
        """As few as do: only large files are sent in parts."""
        return MANY if "part" in self.where or "upload" in self.where else FEW


MOMENTS = {
    "while it asks for a token": Moment("api", "/oauth/token", 1, "before"),
    "while it reads": Moment("api", "/meters", 2, "after"),
    "within the first object": Moment("s3", "^PUT .*_account.csv", 1, "within"),
    "after the first object": Moment("s3", "^PUT .*_account.csv", 1, "after"),
    "within a part": Moment("s3", "^PUT .*partNumber=2", 1, "within"),
    "before the parts become an object": Moment("s3", r"^POST .*\?uploadId=", 1, "before"),
    "after the parts became an object": Moment("s3", r"^POST .*\?uploadId=", 1, "after"),
    "within the manifest": Moment("s3", "^PUT .*_manifest.json", 1, "within"),
    "after the manifest": Moment("s3", "^PUT .*_manifest.json", 1, "after"),
}


@pytest.fixture
def house(
    moto_store: Store, tmp_path: Path, empty_home: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> Iterator[House]:
    """A house that the environment names, with a Dagster home and a folder for temporary files of its own."""
    (tmp_path / "temporary").mkdir()
    shutil.copytree(empty_home, tmp_path / "home")
    with open_house(moto_store, tmp_path, MOMENTS[moment].records, codes=["warehouse"]) as house:
        house.move_in(monkeypatch)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
        yield house


@pytest.fixture(scope="module")
def truths(moto_store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Truth]:
    """By the number of records."""
    return {len(records): truth_of(records, moto_store, tmp_path_factory.mktemp("truth")) for records in (FEW, MANY)}


def truth_of(records: Records, store: Store, folder: Path) -> Truth:
    """The CSVs of an export that nobody ends, by type."""
    (folder / "temporary").mkdir()
    with open_house(store, folder, records, codes=["warehouse"]) as house:
        with started(house, folder) as process:
            process.join(SECONDS_TO_START)
            assert process.exitcode == 0
        return {name: content for (_, name), content in house.delivered().items()}


@pytest.fixture
def truth(truths: dict[int, Truth], moment: str) -> Truth:
    return truths[len(MOMENTS[moment].records)]


@contextmanager
def started(house: House, folder: Path) -> Iterator[ForkServerProcess]:
    settings = {"DAGSTER_HOME": str(folder / "home"), "TMPDIR": str(folder / "temporary")}
    environment = {**plain_environment(), **house.environment, **settings}
    command = ["export", "--entities", ",".join(NAMES), "--destinations", ",".join(house.buckets)]
    process = start_command(command, folder=folder, environment=environment, log=folder / "export.log")
    try:
        yield process
    finally:
        process.kill()
        process.join()


def end_at(moment: Moment, house: House, folder: Path, by: signal.Signals) -> int | None:
    """The exit code of an export that gets the signal at that moment."""
    hold = Hold(moment.stands)
    proxy = house.api if moment.server == "api" else house.s3
    proxy.plan(moment.where, *[unharmed] * (moment.number - 1), hold)
    with started(house, folder) as process:
        assert hold.reached.wait(SECONDS_TO_START), (folder / "export.log").read_text()
        assert process.pid
        os.kill(process.pid, by)
        if by != signal.SIGKILL:
            hold.released.set()
        process.join(SECONDS_TO_END)
        code = process.exitcode
    hold.released.set()
    house.heal()
    for one in (house.api, house.s3):
        one.settle()
    return code


def last_run(folder: Path) -> dg.DagsterRun:
    with dg.DagsterInstance.from_config(str(folder / "home")) as instance:
        return instance.get_runs(limit=1)[0]


def assert_nothing_partial(house: House, truth: Truth) -> None:
    """What stands under a final name is whole, and a manifest stands only where everything does."""
    everything = {(code, name): content for code in house.buckets for name, content in truth.items()}
    delivered = house.delivered()
    assert delivered.items() <= everything.items()
    assert not house.manifests() or delivered == everything
    assert house.findings() == []


def assert_resumed(house: House, truth: Truth, run_id: str, *options: str) -> None:
    resumed = CliRunner().invoke(main, ["export", "--resume", run_id, *options], catch_exceptions=False)
    assert resumed.exit_code == 0, resumed.output
    assert house.delivered() == {(code, name): content for code in house.buckets for name, content in truth.items()}
    assert len(house.manifests()) == len(house.buckets)
    assert all(f"/{run_id}_" in key for _, key in house.places())
    assert house.findings() == []
    assert house.open_uploads() == []


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_export_leaves_nothing_partial_and_is_completed(
    house: House, truth: Truth, tmp_path: Path, moment: str
) -> None:
    assert end_at(MOMENTS[moment], house, tmp_path, signal.SIGKILL) == KILLED
    assert_nothing_partial(house, truth)
    assert_resumed(house, truth, last_run(tmp_path).run_id, "--abandoned")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("moment", ["within the first object"])
def test_an_export_whose_machine_died_is_known_to_have_failed_and_completed_as_any_other(
    house: House, truth: Truth, tmp_path: Path, moment: str
) -> None:
    assert end_at(MOMENTS[moment], house, tmp_path, signal.SIGKILL) == KILLED
    run = last_run(tmp_path)
    assert run.status == dg.DagsterRunStatus.STARTED
    sensor = stuck_exports([], NAMES, clock=lambda: datetime.now(UTC) + SILENCE)
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        first = look(sensor, instance, None)
        look(sensor, instance, first.cursor)
    assert last_run(tmp_path).status == dg.DagsterRunStatus.FAILURE
    assert_resumed(house, truth, run.run_id)


def look(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, cursor: str | None) -> Any:
    definitions = build_definitions(load_exports(), load_settings())
    with dg.build_sensor_context(instance, cursor, definitions=definitions) as context:
        return sensor.evaluate_tick(context)


@pytest.mark.parametrize("moment", ["while it reads", "within a part"])
def test_a_terminated_export_cleans_up_and_is_completed(
    house: House, truth: Truth, tmp_path: Path, moment: str
) -> None:
    assert end_at(MOMENTS[moment], house, tmp_path, signal.SIGTERM) not in (0, None)
    assert_nothing_partial(house, truth)
    assert house.manifests() == []
    assert list((tmp_path / "temporary").iterdir()) == []
    run = last_run(tmp_path)
    assert run.status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
    assert_resumed(house, truth, run.run_id)
