"""Roles: assumed with the credentials at hand, refused where the trust is not given, and renewed when they run out."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from deliveries import CSV, EXPORT, KEY, ROWS, deliver, destination, destinations, refusal_of
from stores import EXTERNAL_ID, REGION
from tampering import proxy

from m3ter_dagster.config import S3Destination
from m3ter_dagster.delivery.destinations import store_of
from m3ter_dagster.delivery.s3_clients import is_aws

pytestmark = pytest.mark.usefixtures("no_aws_settings")

EXPIRATION = re.compile(rb"(?<=<Expiration>)[^<]+")


class Listener:
    """Counts the roles assumed through a proxy, and lets them run out within a minute if asked to."""

    def __init__(self, *, short: bool = False) -> None:
        self.short = short
        self.assumed: list[str] = []
        self.sessions: list[str] = []

    def to_client(self, data: bytes) -> bytes:
        if b"AssumeRoleResult" not in data:
            return data
        self.assumed += re.findall(r"<AccessKeyId>([^<]+)", data.decode())
        self.sessions += re.findall(r"<Arn>([^<]+)", data.decode())
        soon = datetime.now(UTC) + timedelta(seconds=55)
        return EXPIRATION.sub(f"{soon:%Y-%m-%dT%H:%M:%S.000Z}".encode(), data) if self.short else data


@pytest.fixture
def role(moto_store):
    return {"iam_role_arn": moto_store.role_arn, "external_id": EXTERNAL_ID}


def test_a_destination_is_written_in_its_role(moto_store, moto_bucket, bill_file, role):
    """The exporter itself is denied this prefix, and the role is not."""
    delivered = deliver(destination(moto_store, moto_bucket, prefix="denied", **role), bill_file)
    assert moto_store.content(moto_bucket, delivered.uri.removeprefix(f"s3://{moto_bucket}/")) == ROWS


def test_a_large_file_is_written_in_a_role_assumed_once(moto_store, moto_bucket, large_bill_file, role):
    listener = Listener()
    with proxy(moto_store.endpoint, to_client=listener.to_client) as endpoint:
        deliver(destination(endpoint, moto_bucket, **role), large_bill_file)
    assert moto_store.content(moto_bucket, KEY) == large_bill_file.read_bytes()
    assert len(listener.assumed) == 1


def test_a_role_that_runs_out_is_assumed_again(moto_store, moto_bucket, bill_file, role):
    listener = Listener(short=True)
    with proxy(moto_store.endpoint, to_client=listener.to_client) as endpoint:
        to = destinations(destination(endpoint, moto_bucket, **role))
        for type in ("account", "bill"):
            to.deliver(bill_file, EXPORT, type, to=["warehouse"], kind=CSV)
    assert len(moto_store.keys(moto_bucket)) == 2
    assert len(set(listener.assumed)) == len(listener.assumed) > 1


def test_a_wrong_external_id_is_refused(moto_store, moto_bucket, bill_file):
    to = destination(moto_store, moto_bucket, iam_role_arn=moto_store.role_arn, external_id="customer-2")
    said = refusal_of(to, bill_file)
    assert f"AccessDenied on AssumeRole: the role {moto_store.role_arn} cannot be assumed: check iamRoleArn" in said
    assert moto_store.keys(moto_bucket) == []


def test_a_role_that_trusts_someone_else_is_refused(moto_store, moto_bucket, bill_file):
    to = destination(moto_store, moto_bucket, iam_role_arn=moto_store.others_role_arn, external_id=EXTERNAL_ID)
    assert f"on AssumeRole: the role {moto_store.others_role_arn} cannot be assumed" in refusal_of(to, bill_file)


def test_the_sessions_of_a_role_bear_the_projects_name(moto_store, moto_bucket, bill_file, role):
    listener = Listener()
    with proxy(moto_store.endpoint, to_client=listener.to_client) as endpoint:
        deliver(destination(endpoint, moto_bucket, **role), bill_file)
    assert listener.sessions == ["arn:aws:sts::123456789012:assumed-role/m3ter-export/m3ter-dagster"]


def test_threads_share_one_client_and_one_session(moto_store, moto_bucket, bill_file, role):
    listener = Listener()
    with proxy(moto_store.endpoint, to_client=listener.to_client) as endpoint, ThreadPoolExecutor(4) as pool:
        shared = destinations(destination(endpoint, moto_bucket, **role))
        types = [f"type{n}" for n in range(8)]
        list(pool.map(lambda type: shared.deliver(bill_file, EXPORT, type, to=["warehouse"], kind=CSV), types))
    assert len(moto_store.keys(moto_bucket)) == 8
    assert len(listener.assumed) == 1


def test_a_role_needs_credentials_to_be_assumed_with(moto_store, moto_bucket, bill_file, role, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "AWS credentials" in refusal_of(destination(moto_store, moto_bucket, **role), bill_file)


def test_a_role_is_not_assumed_before_the_first_delivery(moto_store, moto_bucket, role):
    listener = Listener()
    with proxy(moto_store.endpoint, to_client=listener.to_client) as endpoint:
        destinations(destination(endpoint, moto_bucket, **role))
    assert listener.assumed == []


@pytest.mark.parametrize("named_by", ["the destination", "the environment"])
def test_a_token_service_of_its_own_is_asked(moto_store, moto_bucket, bill_file, role, monkeypatch, named_by):
    listener = Listener()
    with proxy(moto_store.endpoint, to_client=listener.to_client) as endpoint:
        if named_by == "the environment":
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
        else:
            role["sts_endpoint_url"] = endpoint
        deliver(destination(moto_store, moto_bucket, **role), bill_file)
    assert len(listener.assumed) == 1


def test_a_token_service_that_does_not_answer_is_named(moto_store, moto_bucket, bill_file, role):
    with proxy(moto_store.endpoint) as gone:
        pass
    to = destination(moto_store, moto_bucket, sts_endpoint_url=gone, region=REGION, **role)
    assert f"EndpointConnection: {gone} cannot be reached" in refusal_of(to, bill_file)


@pytest.mark.parametrize(
    ("endpoint", "aws"),
    [
        (None, True),
        ("https://s3.eu-west-1.amazonaws.com", True),
        ("https://s3.cn-north-1.amazonaws.com.cn", True),
        ("https://amazonaws.com.example.org", False),
        ("http://127.0.0.1:9000", False),
    ],
)
def test_aws_is_known_by_its_host(endpoint, aws):
    assert is_aws(endpoint) is aws


@pytest.mark.parametrize(
    ("settings", "page"),
    [
        (
            {"region": "eu-west-1"},
            "https://eu-west-1.console.aws.amazon.com/s3/object/acme?region=eu-west-1&prefix=m3ter%2ForgId%3D1%2Fa%20b.csv",
        ),
        (
            {"region": "cn-north-1"},
            "https://cn-north-1.console.amazonaws.cn/s3/object/acme?region=cn-north-1&prefix=m3ter%2ForgId%3D1%2Fa%20b.csv",
        ),
        ({"region": "eu-west-1", "endpoint_url": "https://minio.acme.com"}, None),
        ({}, None),
    ],
)
def test_an_object_has_a_page_in_the_console_of_aws_where_the_region_is_known(settings, page):
    store = store_of(S3Destination(code="warehouse", bucket_name="acme", **settings))
    assert store.page("s3://acme/m3ter/orgId=1/a b.csv") == page


def test_the_region_of_the_environment_and_a_store_of_it_count_too(monkeypatch):
    destination = S3Destination(code="warehouse", bucket_name="acme")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert store_of(destination).page("s3://acme/a.csv").startswith("https://eu-west-1.console.aws.amazon.com/")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://minio.acme.com")
    assert store_of(destination).page("s3://acme/a.csv") is None
