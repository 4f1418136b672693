"""What each refusal says, for answers that the stores of the other tests do not give."""

from __future__ import annotations

import pytest
from botocore import exceptions as boto
from botocore.exceptions import ClientError
from deliveries import destination

from m3ter_dagster.delivery.s3_refusals import refusal

ROLE = "arn:aws:iam::123456789012:role/m3ter-export"


def answer(
    code: str, operation: str = "PutObject", *, status: int = 400, message: str = "", **more: str
) -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {}}
    return ClientError({"Error": {"Code": code, "Message": message, **more}, "ResponseMetadata": metadata}, operation)


def said_of(error: Exception, **more: str) -> str:
    to = destination("https://store.example.com", "exports", **more)
    return str(refusal(error, to, "s3://exports/m3ter/a.csv"))


SAID = [
    (
        answer("PermanentRedirect", Region="eu-west-1"),
        "the bucket is in another region, eu-west-1: set the destination",
    ),
    (answer("301", "HeadObject"), "the bucket is in another region: set the destination's region"),
    (answer("ExpiredToken"), "the session credentials have run out"),
    (answer("RequestTimeTooSkewed"), "this machine's clock differs"),
    (answer("SlowDown", status=503), "run the export again later"),
    (answer("", "HeadObject", status=500), "no error code on HeadObject: the store is failing or overloaded"),
    (answer("KMS.NotFoundException"), "check kmsKeyId, and allow the credentials kms:GenerateDataKey"),
    (answer("NotImplemented"), "set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"),
    (answer("QuotaExceeded"), "the bucket is full"),
    (answer("Odd"), "look the code up in the documentation of https://store.example.com."),
    (answer("AccessDenied", "DeleteObject"), "allow s3:DeleteObject on arn:aws:s3:::exports/m3ter/* to the"),
    (answer("403", "HeadObject"), "allow s3:GetObject on arn:aws:s3:::exports/m3ter/* to the credentials in use"),
    (answer("AccessDenied", "CreateMultipartUpload"), "allow s3:PutObject on arn:aws:s3:::exports/m3ter/*"),
    (answer("AccessDenied", "AssumeRole"), f"the role {ROLE} cannot be assumed: check iamRoleArn and externalId"),
    (answer("InvalidClientTokenId", "AssumeRole"), "check that AWS_ACCESS_KEY_ID"),
    (answer("SignatureDoesNotMatch", "AssumeRole"), "check AWS_SECRET_ACCESS_KEY"),
    (boto.PartialCredentialsError(provider="env", cred_var="x"), "the AWS credentials are incomplete"),
    (boto.CredentialRetrievalError(provider="sso", error_msg="hidden"), "the AWS credentials could not be fetched"),
    (boto.ProfileNotFound(profile="acme"), "AWS_PROFILE names a profile that is not in the AWS config file"),
    (boto.ReadTimeoutError(endpoint_url="https://u:p@sts.example.com/x"), "https://sts.example.com broke off"),
    (boto.SSLError(endpoint_url="https://store.example.com", error="x"), "AWS_CA_BUNDLE for TLS"),
    (boto.ParamValidationError(report="bad {bucket}"), "ParamValidation: Parameter validation failed:\nbad {bucket}."),
]


@pytest.mark.parametrize(("error", "words"), SAID, ids=lambda value: type(value).__name__)
def test_a_refusal_says_what_to_do(error, words):
    more = {"iam_role_arn": ROLE} if "AssumeRole" in str(error) else {}
    said = said_of(error, **more)
    assert words in said
    assert said.startswith("destination 'warehouse', s3://exports/m3ter/a.csv: ")


def test_a_role_is_the_one_to_be_allowed():
    assert f"to {ROLE}." in said_of(answer("AccessDenied"), iam_role_arn=ROLE)


def test_the_stores_own_words_are_quoted_in_one_line():
    said = said_of(answer("AccessDenied", message="no\n  identity-based policy allows it"))
    assert said.endswith(" The store says: 'no identity-based policy allows it'")


def test_what_a_store_says_of_wrong_credentials_is_not_repeated():
    assert "AKIA" not in said_of(answer("InvalidAccessKeyId", message="AKIASECRET is unknown"))
