"""Folders for temporary files: locked by a living process, removed after a dead one, never another's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from m3ter_dagster.temporary_folder import LOCK, PREFIX, NoRoom, TemporaryFolder

OWNER = """
from m3ter_dagster.temporary_folder import TemporaryFolder

folder = TemporaryFolder().path
(folder / "account").mkdir()
(folder / "account" / "000001.parquet").write_text("customers")
print(folder, flush=True)
input()
"""
NOBODY = 65534


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder for temporary files that there is."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def another_process(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a folder of its own."""
    environment = {**os.environ, "TMPDIR": str(place)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OWNER], env=environment, **pipes) as process:
        try:
            assert process.stdout
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_has_stays(place: Path) -> None:
    with another_process(place) as (living, its_own), another_process(place) as (killed, left):
        killed.kill()
        killed.wait()
        assert (left / "account" / "000001.parquet").exists()
        with TemporaryFolder() as mine:
            assert set(place.iterdir()) == {its_own, mine}
            assert (its_own / "account" / "000001.parquet").read_text() == "customers"
        assert living.poll() is None
    assert list(place.iterdir()) == [its_own]


def test_a_folder_is_its_owner_s_alone_and_gone_when_it_is_closed(place: Path) -> None:
    with TemporaryFolder() as one, TemporaryFolder() as other:
        assert one != other
        assert one.stat().st_mode & 0o777 == 0o700
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("has_lock", [False, True])
def test_a_folder_that_is_taken_before_it_is_locked_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch, has_lock: bool
) -> None:
    """Between the making of a folder and its lock another process may start, and finds it without an owner."""
    make, taken = tempfile.mkdtemp, list[str]()

    def make_and_lose(**options: str) -> str:
        folder = make(**options)
        if not taken:
            taken.append(folder)
            if has_lock:
                Path(folder, LOCK).touch()
            TemporaryFolder().close()
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", make_and_lose)
    with TemporaryFolder() as mine:
        assert list(place.iterdir()) == [mine]
        assert str(mine) not in taken
        TemporaryFolder().close()
        assert mine.exists()


def test_many_starts_at_once_take_nothing_from_each_other(place: Path) -> None:
    def start(number: int) -> bool:
        with TemporaryFolder() as mine:
            (mine / "rows").write_text(str(number))
            TemporaryFolder().close()
            return (mine / "rows").read_text() == str(number)

    with ThreadPoolExecutor(8) as threads:
        assert all(threads.map(start, range(400)))
    assert list(place.iterdir()) == []


def test_what_is_no_folder_of_ours_stays(place: Path) -> None:
    elsewhere = place / "m3ter-elsewhere"
    elsewhere.mkdir()
    (place / f"{PREFIX}link").symlink_to(elsewhere)
    (place / f"{PREFIX}file").touch()
    before = set(place.rglob("*"))
    TemporaryFolder().close()
    assert set(place.rglob("*")) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_stays(place: Path) -> None:
    theirs = place / f"{PREFIX}theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    TemporaryFolder().close()
    assert theirs.exists()


def test_room_is_made_before_it_is_measured(place: Path) -> None:
    with another_process(place) as (killed, left):
        killed.kill()
        killed.wait()
    with pytest.raises(NoRoom, match="an export needs at least 1,000,000,000,000 MB; make room there, or set TMPDIR"):
        TemporaryFolder(least_free=10**18)
    assert not left.exists()
    assert list(place.iterdir()) == []
