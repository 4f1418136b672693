"""Secrets that the environment only names: in files, as containers are handed them, and in AWS Secrets Manager."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from m3ter_dagster.config.exports_file import ConfigError
from m3ter_dagster.config.wording import sentence
from m3ter_dagster.model.suggestions import known_names

SECRET_ARN = re.compile(
    r"(?P<id>arn:aws[a-z-]*:secretsmanager:(?P<region>[a-z0-9-]+):\d{12}:secret:[\w/+=.@-]+)"
    r"(:(?P<key>[^:]*)(:(?P<stage>[^:]*)(:(?P<version>[^:]*))?)?)?"
)
"""As Amazon ECS writes them in its secrets: behind the ARN a key of the secret's JSON, a version's stage, its id."""
AN_ARN = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:m3ter-AbCdEf:apiSecret"
FORBIDDEN = "these AWS credentials may not read it; allow them secretsmanager:GetSecretValue"
REFUSALS = {
    "AccessDeniedException": FORBIDDEN,
    "DecryptionFailure": "its KMS key does not decrypt it for these AWS credentials; allow them kms:Decrypt with it",
    "ResourceNotFoundException": "there is no such secret, or no such version of it; look at the ARN",
    "InvalidRequestException": "it has no value that can be read; it may be about to be deleted",
    "UnrecognizedClientException": "AWS does not know the credentials of the environment; correct them",
    "InvalidClientTokenId": "AWS does not know the credentials of the environment; correct them",
    "ExpiredTokenException": "the AWS credentials of the environment have expired; renew them",
    "NoCredentialsError": "there are no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this "
    "machine a role",
}
SECONDS_TO_CONNECT, SECONDS_TO_READ, MOST_ATTEMPTS = 5, 15, 3


class SecretUnreadable(Exception):
    """Why a secret has no value, as the end of a sentence."""


def with_secrets(environ: Mapping[str, str], wanted: Collection[str]) -> dict[str, str]:
    """The environment with each M3TER_... that is `wanted` from where M3TER_..._FILE or M3TER_..._ARN says.

    ConfigError has a sentence about each that cannot be read. No value of a secret is in it.
    """
    found, mistakes = dict(environ), list[str]()
    for name, where in environ.items():
        plain, _, kind = name.rpartition("_")
        read = {"FILE": secret_in_file, "ARN": _in_secrets_manager}.get(kind)
        if not read or not plain.startswith("M3TER_") or plain not in wanted or not where.strip():
            continue
        if found.get(plain, "").strip():
            mistakes.append(f"the environment has {plain} and {name}; keep one of them.")
            continue
        try:
            found[plain] = read(where.strip())
        except SecretUnreadable as error:
            # What should be an ARN and is none may be the secret itself.
            shown = f" {where!r}" if kind == "FILE" or SECRET_ARN.fullmatch(where.strip()) else ""
            mistakes.append(sentence(f"the environment has the {name}{shown}, which {error}"))
    if mistakes:
        raise ConfigError(*mistakes)
    return found


def secret_in_file(path: str) -> str:
    """What the file holds; SecretUnreadable."""
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SecretUnreadable(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SecretUnreadable("cannot be read: it is not UTF-8 text") from None
    if not value:
        raise SecretUnreadable("is empty; write the value into it")
    return value


def _in_secrets_manager(text: str) -> str:
    """The value of the secret, or of a key of its JSON."""
    arn = SECRET_ARN.fullmatch(text)
    if not arn:
        raise SecretUnreadable(f"is no ARN of a secret in AWS Secrets Manager; write one such as {AN_ARN}")
    value = _secret_value(arn["id"], arn["region"], arn["stage"] or None, arn["version"] or None)
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        document = None
    if arn["key"]:
        return _of_key(document, arn["key"])
    if isinstance(document, dict):
        raise SecretUnreadable(f"is JSON with the keys {', '.join(document)}; name one behind the ARN, as in {AN_ARN}")
    if not value.strip():
        raise SecretUnreadable("is empty; store the value in it")
    return value.strip()


def _of_key(document: Any, key: str) -> str:
    if not isinstance(document, dict):
        raise SecretUnreadable(f"is no JSON object; leave out ':{key}' behind the ARN")
    if key not in document:
        raise SecretUnreadable(f"has no key {key!r}; {known_names(key, document)}")
    if not isinstance(document[key], str) or not document[key].strip():
        raise SecretUnreadable(f"has no text under the key {key!r}; store the value there")
    return document[key].strip()


@cache
def _secret_value(id: str, region: str, stage: str | None, version: str | None) -> str:
    """What Secrets Manager keeps under the ARN, asked for once in a process: the next run asks anew."""
    from boto3 import Session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(
        connect_timeout=SECONDS_TO_CONNECT,
        read_timeout=SECONDS_TO_READ,
        retries={"mode": "standard", "total_max_attempts": MOST_ATTEMPTS},
    )
    which = {name: value for name, value in (("VersionStage", stage), ("VersionId", version)) if value}
    try:
        client = Session().client("secretsmanager", region_name=region, config=config)
        answer = client.get_secret_value(SecretId=id, **which)
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        is_forbidden = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 403
        other = FORBIDDEN if is_forbidden else f"Secrets Manager answers {code}"
        raise SecretUnreadable(f"cannot be read: {REFUSALS.get(code, other)}") from None
    except BotoCoreError as error:
        code = type(error).__name__
        raise SecretUnreadable(
            f"cannot be read: {REFUSALS.get(code, f'Secrets Manager does not answer ({code}); is it reachable?')}"
        ) from None
    if "SecretString" not in answer:
        raise SecretUnreadable("holds bytes; store a text in it")
    return answer["SecretString"]
