"""Fixtures that need closing: S3 stores, and an environment without this machine's AWS settings."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import stores
from deliveries import MARK, ROWS
from stores import Key, Store


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def moto_store() -> Iterator[Store]:
    """Moto's S3, IAM and STS with authentication on."""
    with stores.moto_store() as store:
        yield store


@pytest.fixture(scope="session")
def rclone_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Rclone's S3 over a folder, with strict signatures."""
    with stores.rclone_store(tmp_path_factory.mktemp("rclone")) as store:
        yield store


@pytest.fixture(params=["moto", "rclone"])
def s3_store(request: pytest.FixtureRequest) -> Store:
    """Each store in turn: what holds for one must hold for all."""
    return request.getfixturevalue(f"{request.param}_store")


@pytest.fixture
def no_aws_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's AWS environment is seen, neither variables, files nor an instance's role."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def aws_key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[Key], None]:
    """Puts a key of a store into the environment, where boto3 finds it, and nothing else of AWS."""
    request.getfixturevalue("no_aws_settings")

    def set_key(key: Key) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key.id)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key.secret)

    return set_key


@pytest.fixture
def s3_bucket(s3_store: Store, aws_key: Callable[[Key], None]) -> str:
    """An empty bucket of each store in turn, with the exporter's key in the environment."""
    aws_key(s3_store.exporter)
    return s3_store.new_bucket()


@pytest.fixture
def moto_bucket(moto_store: Store, aws_key: Callable[[Key], None]) -> str:
    """An empty bucket of moto, with the exporter's key in the environment."""
    aws_key(moto_store.exporter)
    return moto_store.new_bucket()


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For tests that hypothesis runs many times."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture
def bill_file(tmp_path: Path) -> Path:
    path = tmp_path / "bill.csv"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def large_bill_file(tmp_path: Path) -> Path:
    """40 MB, which are three parts."""
    path = tmp_path / "bill.csv"
    path.write_bytes(MARK + random.Random(7).randbytes(40_000_000))
    return path
