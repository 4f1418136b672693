"""S3 clients of Export Destinations: the ordinary AWS credentials, or a role assumed with them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from botocore.exceptions import NoCredentialsError

if TYPE_CHECKING:
    from botocore.credentials import DeferredRefreshableCredentials
    from botocore.session import Session

    from m3ter_dagster.config import S3Destination

ROLE_SESSION_NAME = "m3ter-dagster"
# AWS answers STS in every region; this one is asked when neither the destination nor the environment names one.
DEFAULT_STS_REGION = "us-east-1"


def s3_client(destination: S3Destination, *, max_attempts: int) -> Any:
    """A client for the destination's bucket. With an endpoint, botocore addresses buckets by path."""
    # These take long to import, so only a process that talks to a store pays for it.
    from boto3 import Session
    from botocore.config import Config
    from botocore.credentials import CredentialResolver

    session = _session()
    if destination.iam_role_arn:
        session.register_component("credential_provider", CredentialResolver([_RoleProvider(destination)]))
    return Session(botocore_session=session).client(
        "s3",
        region_name=destination.region,
        endpoint_url=destination.endpoint_url,
        config=Config(retries={"mode": "standard", "max_attempts": max_attempts}),
    )


def _session() -> Session:
    """A session of its own that reads AWS's descriptions of itself, a megabyte of JSON, only if no other has."""
    from botocore.session import get_session

    session = get_session()
    session.register_component("data_loader", _descriptions(session.get_config_variable("data_path")))
    return session


@cache
def _descriptions(path: str | None) -> Any:
    from botocore.loaders import create_loader

    return create_loader(path)


def is_aws(endpoint_url: str | None) -> bool:
    """Whether this is AWS itself, rather than a store that speaks its protocol."""
    host = urlsplit(endpoint_url).hostname if endpoint_url else None
    return host is None or host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


class _RoleProvider:
    """The only source of credentials for a session in a role."""

    METHOD = "m3ter-dagster-role"
    CANONICAL_NAME = None

    def __init__(self, destination: S3Destination) -> None:
        self.destination = destination

    def load(self) -> DeferredRefreshableCredentials:
        """Credentials of the role: assumed at the first request, and again whenever they run out."""
        from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials

        session = _session()
        ordinary = session.get_credentials()
        if ordinary is None:
            raise NoCredentialsError
        external = {"ExternalId": self.destination.external_id} if self.destination.external_id else {}
        fetcher = AssumeRoleCredentialFetcher(
            client_creator=_StsClients(self.destination, session),
            source_credentials=ordinary,
            role_arn=self.destination.iam_role_arn,
            extra_args={"RoleSessionName": ROLE_SESSION_NAME, **external},
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)


class _StsClients:
    """Creates STS clients where the destination's role is known."""

    def __init__(self, destination: S3Destination, session: Session) -> None:
        self.session = session
        self.region = destination.region or session.get_config_variable("region") or DEFAULT_STS_REGION
        self.endpoint_url = destination.sts_endpoint_url or self._endpoint_of_the_store(destination)

    def __call__(self, service: str, **credentials: str) -> Any:
        return self.session.create_client(
            service, region_name=self.region, endpoint_url=self.endpoint_url, **credentials
        )

    def _endpoint_of_the_store(self, destination: S3Destination) -> str | None:
        """S3-compatible stores serve STS beside S3; the environment may say otherwise (AWS_ENDPOINT_URL_STS)."""
        if is_aws(destination.endpoint_url):
            return None
        ordinary = self.session.create_client("sts", region_name=self.region).meta.endpoint_url
        return destination.endpoint_url if is_aws(ordinary) else None
