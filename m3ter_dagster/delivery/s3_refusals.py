"""Why a destination refused, and what to do: AWS's error codes in words. Stores may send no message of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.exceptions import ClientError

from m3ter_dagster.delivery.store import Refusal, parts_of

if TYPE_CHECKING:
    from m3ter_dagster.config import S3Destination

KEY = "check that AWS_ACCESS_KEY_ID (or the profile in use) belongs to {endpoint}"
SECRET = "the secret does not belong to the access key: check AWS_SECRET_ACCESS_KEY (or the profile in use)"
RENEW = "the session credentials have run out or belong elsewhere: renew them, or unset AWS_SESSION_TOKEN"
CLOCK = "this machine's clock differs from the store's: set it"
REGION = "the bucket is in another region{named}: set the destination's region, and endpointUrl if it has one"
LATER = "the store is failing or overloaded: run the export again later"
KMS = "check kmsKeyId, and allow the credentials kms:GenerateDataKey and kms:Decrypt on that key"
DIALECT = (
    "the store does not understand the request: leave serverSideEncryption out if it has none, and for an older store "
    "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
)
MAY_WRITE = "allow s3:PutObject on arn:aws:s3:::{bucket}/{prefix}* to {identity}"
MAY_READ = "allow s3:GetObject on arn:aws:s3:::{bucket}/{prefix}* to {identity}: what is delivered is read back"
MAY_REMOVE = "allow s3:DeleteObject on arn:aws:s3:::{bucket}/{prefix}* to {identity}"
TRUST = (
    "the role {role} cannot be assumed: check iamRoleArn and externalId, that its trust policy names the "
    "credentials in use, and that they are allowed sts:AssumeRole"
)
UNKNOWN = "look the code up in the documentation of {endpoint}"

ADVICE = {
    "NoSuchBucket": "create the bucket {bucket!r}, or correct bucketName, region or endpointUrl of the destination",
    "InvalidBucketName": "{bucket!r} cannot be a bucket's name: correct bucketName",
    "NoSuchKey": "there is no such object",
    "InvalidAccessKeyId": KEY,
    "InvalidClientTokenId": KEY,
    "SignatureDoesNotMatch": SECRET,
    "ExpiredToken": RENEW,
    "ExpiredTokenException": RENEW,
    "InvalidToken": RENEW,
    "TokenRefreshRequired": RENEW,
    "RequestTimeTooSkewed": CLOCK,
    "RequestExpired": CLOCK,
    "PermanentRedirect": REGION,
    "TemporaryRedirect": REGION,
    "AuthorizationHeaderMalformed": REGION,
    "IllegalLocationConstraintException": REGION,
    "301": REGION,
    "307": REGION,
    "SlowDown": LATER,
    "ServiceUnavailable": LATER,
    "InternalError": LATER,
    "QuotaExceeded": "the bucket is full: raise its quota or remove old exports",
    "NotImplemented": DIALECT,
    "InvalidArgument": DIALECT,
    "MissingContentLength": DIALECT,
}
ABOUT_THE_CREDENTIALS = {KEY, SECRET, RENEW, CLOCK}
DENIED = {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "Forbidden", "Unauthorized", "403", "401"}

CONNECTION = "{endpoint} cannot be reached: check endpointUrl and region, the network, and AWS_CA_BUNDLE for TLS"
BROKEN_OFF = "{endpoint} broke off the connection: run the export again later"
CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or run where AWS gives a role"
# The first class that matches applies.
ADVICE_BY_CLASS: tuple[tuple[type[Exception], str], ...] = (
    (boto.NoCredentialsError, "no AWS credentials were found: " + CREDENTIALS),
    (boto.PartialCredentialsError, "the AWS credentials are incomplete: " + CREDENTIALS),
    (boto.CredentialRetrievalError, "the AWS credentials could not be fetched: renew the login, or " + CREDENTIALS),
    (boto.TokenRetrievalError, "the AWS login has run out: renew it, for instance with 'aws sso login'"),
    (boto.SSOError, "the AWS login has run out: renew it, for instance with 'aws sso login'"),
    (boto.ProfileNotFound, "AWS_PROFILE names a profile that is not in the AWS config file"),
    (boto.NoRegionError, "set the destination's region, or AWS_REGION"),
    (boto.FlexibleChecksumError, "the object was altered in the store or on the way from it: deliver it again"),
    (boto.ConnectionError, CONNECTION),
    (boto.HTTPClientError, BROKEN_OFF),
    (boto.IncompleteReadError, BROKEN_OFF),
)


PERMANENT = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ProfileNotFound,
    boto.SSOError,
    boto.TokenRetrievalError,
)
PASSING = {"RequestTimeout", "SlowDown", "Throttling", "ThrottlingException"}
"""Codes that come with status 400 and may not come again."""


def refusal(error: Exception, destination: S3Destination, uri: str) -> Refusal:
    code = _code(error)
    advice = _of_answer(error, code) if isinstance(error, ClientError) else _of_class(error)
    prefix = destination.prefix.strip("/")
    worded = advice.format(
        bucket=parts_of(uri)[0],
        prefix=f"{prefix}/" if prefix else "",
        endpoint=_endpoint(error, destination),
        role=destination.iam_role_arn,
        identity=destination.iam_role_arn or "the credentials in use",
        named=_region_named(error),
    )
    operation = f" on {error.operation_name}" if isinstance(error, ClientError) else ""
    # The store's own message, except about wrong credentials, which it may repeat.
    said = "" if advice in ABOUT_THE_CREDENTIALS else _message(error)
    return Refusal(destination.code, uri, f"{code}{operation}", worded, said, _is_permanent(error))


def _code(error: Exception) -> str:
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code") or "no error code")
    return type(error).__name__.removesuffix("Error")


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return 400 <= status < 500 and status not in (408, 429) and _code(error) not in PASSING
    return isinstance(error, PERMANENT)


def _endpoint(error: Exception, destination: S3Destination) -> str:
    """The host in the error, which may be that of STS, without a password in its address."""
    url = getattr(error, "kwargs", {}).get("endpoint_url") or destination.endpoint_url
    return f"{urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition('@')[2]}" if url else "AWS"


def _message(error: Exception) -> str:
    message = error.response.get("Error", {}).get("Message") if isinstance(error, ClientError) else None
    return " ".join((message or "").split())[:300]


def _of_answer(error: ClientError, code: str) -> str:
    advice = ADVICE.get(code)
    if error.operation_name == "AssumeRole":
        return advice if advice in ABOUT_THE_CREDENTIALS else TRUST
    reads = error.operation_name in {"HeadObject", "GetObject"}
    if code in DENIED:
        return MAY_REMOVE if error.operation_name == "DeleteObject" else MAY_READ if reads else MAY_WRITE
    if code == "404":
        return ADVICE["NoSuchKey"]
    if code.startswith("KMS."):
        return KMS
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return advice or (LATER if status >= 500 else UNKNOWN)


def _of_class(error: Exception) -> str:
    for kind, advice in ADVICE_BY_CLASS:
        if isinstance(error, kind):
            return advice
    # Botocore words its own errors without credentials; the braces keep format() from reading them.
    return str(error).rstrip(".").replace("{", "{{").replace("}", "}}")


def _region_named(error: Exception) -> str:
    if not isinstance(error, ClientError):
        return ""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = error.response.get("Error", {}).get("Region") or headers.get("x-amz-bucket-region")
    return f", {region}" if region else ""
