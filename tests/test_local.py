"""What a folder as a destination does beyond what every store does: whole files, killed writers, drives that refuse."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from deliveries import ROWS, local_destination

from m3ter_dagster.delivery import local
from m3ter_dagster.delivery.fingerprints import fingerprint
from m3ter_dagster.delivery.local import LocalStore, address_of
from m3ter_dagster.delivery.store import NotStored, ObjectMissing, ObjectUnreadable, Stored

KEY = "orgId=org-1/type=bill/1_bill.csv"
CSV = "text/csv; charset=utf-8"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(local_destination(folder))


def put(store: LocalStore, file: Path) -> Stored:
    return store.put(file, KEY, sent=fingerprint(file), content_type=CSV)


def files(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def test_nobody_ever_sees_a_part_of_a_file(
    store: LocalStore, folder: Path, bill_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each flush to the drive there is the earlier file, whole, or the new one; names are flushed last."""
    seen: list[bytes] = []
    flush = os.fsync

    def look(opened: int) -> None:
        seen.append((folder / KEY).read_bytes())
        flush(opened)

    put(store, bill_file)
    bill_file.write_bytes(b"later" * 1_000_000)
    monkeypatch.setattr(os, "fsync", look)
    put(store, bill_file)
    assert seen == [ROWS, b"later" * 1_000_000]


def test_each_new_folder_is_flushed_where_its_name_stands(
    store: LocalStore, folder: Path, bill_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(local, "_sync_folder", flushed.append)
    put(store, bill_file)
    assert flushed == [folder, folder / "orgId=org-1", (folder / KEY).parent]


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_drive_that_fails_leaves_the_earlier_file_and_nothing_else(
    store: LocalStore, folder: Path, bill_file: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    put(store, bill_file)
    bill_file.write_bytes(b"later")
    monkeypatch.setattr(*{"write": (os, "fsync", fail), "rename": (Path, "replace", fail)}[failing])
    with pytest.raises(NotStored, match="ENOSPC: the drive is full, or the user's quota is: make room") as failed:
        put(store, bill_file)
    assert failed.value.refusal.is_permanent
    assert (files(folder), (folder / KEY).read_bytes()) == ([KEY], ROWS)


def test_a_drive_that_alters_what_it_is_sent_is_named(
    store: LocalStore, folder: Path, bill_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def alter(opened: int) -> None:
        os.pwrite(opened, b"X", 3)

    monkeypatch.setattr(os, "fsync", alter)
    with pytest.raises(NotStored, match=r"Altered: the copy has the sha256 .*look for a drive that alters what it"):
        put(store, bill_file)
    assert files(folder) == []


def test_an_error_that_may_pass_is_not_permanent(store: LocalStore) -> None:
    refusal = store.explain(OSError(errno.ESTALE, "gone"), KEY)
    assert not refusal.is_permanent
    assert "ESTALE: Stale file handle: see whether the drive is well, and run the export again later" in str(refusal)


def test_who_must_be_allowed_what_is_named(store: LocalStore, folder: Path) -> None:
    advice = f"EACCES: allow the user that runs this (uid {os.getuid()}) to read and write below "
    denied = PermissionError(errno.EACCES, "denied")
    assert f"{advice}{folder}." in str(store.explain(denied, KEY))
    assert f"{advice}/else/where." in str(store.explain(denied, "file:///else/where/manifest.json"))


def test_a_file_in_the_place_of_a_folder_is_named(store: LocalStore, folder: Path, bill_file: Path) -> None:
    (folder / "orgId=org-1").touch()
    for call in (lambda: put(store, bill_file), lambda: store.probe(KEY)):
        with pytest.raises(NotStored, match="ENOTDIR: a file stands where a folder should be"):
            call()


def test_what_a_killed_run_left_goes_with_the_next_delivery_and_what_others_write_stays(
    store: LocalStore, folder: Path, bill_file: Path
) -> None:
    beside = (folder / KEY).parent
    beside.mkdir(parents=True)
    for name in (".1_bill.csv.dead.part", ".1_bill.csv.alive.part", ".1_meter.csv.other.part"):
        (beside / name).write_bytes(b"half")
    assert store.uris("") == []
    with (beside / ".1_bill.csv.alive.part").open("r+b") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        put(store, bill_file)
    assert sorted(path.name for path in beside.iterdir()) == [
        ".1_bill.csv.alive.part",
        ".1_meter.csv.other.part",
        "1_bill.csv",
    ]


def test_others_may_read_what_the_umask_lets_them(store: LocalStore, folder: Path, bill_file: Path) -> None:
    bill_file.chmod(0o600)
    before = os.umask(0o027)
    try:
        put(store, bill_file)
    finally:
        os.umask(before)
    assert (folder / KEY).stat().st_mode & 0o777 == 0o640


def test_an_address_is_one_for_every_reader_of_addresses(bill_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "é 100%#?"
    folder.mkdir()
    stored = put(LocalStore(local_destination(folder)), bill_file)
    assert stored.uri == f"{tmp_path.as_uri()}/%C3%A9%20100%25%23%3F/{KEY}"
    assert LocalStore(local_destination(tmp_path)).read(stored.uri, at_most=1000) == ROWS
    assert LocalStore(local_destination(tmp_path)).uris(stored.uri[:-3]) == [stored.uri]


def test_what_has_no_end_is_no_object(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    os.mkfifo(folder / "pipe")
    for where in ("pipe", address_of("/dev/zero"), address_of(folder.parent)):
        with pytest.raises(ObjectMissing):
            store.fetch(where, tmp_path / "fetched")


def test_no_room_for_a_copy_is_an_error_of_this_machine_and_leaves_none(
    store: LocalStore, folder: Path, bill_file: Path, tmp_path: Path
) -> None:
    put(store, bill_file)
    with pytest.raises(FileNotFoundError):
        store.fetch(KEY, tmp_path / "no such folder" / "fetched")
    (folder / KEY).unlink()
    with pytest.raises(ObjectUnreadable):
        store.fetch(KEY, tmp_path / "fetched")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [bill_file.name]
