"""Secrets in AWS Secrets Manager: what names them, what each refusal says, and that no value is ever shown."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from stores import Key, Store

from m3ter_dagster.cli import main
from m3ter_dagster.config import ConfigError, load_exports, load_m3ter_settings, organization_id
from m3ter_dagster.config.secrets import AN_ARN, REFUSALS, SECRET_ARN
from m3ter_sandbox.loopback import LoopbackServer, QuietHandler

VALUE = "s3cr3t-of-the-organization"
PLAIN = {"M3TER_API_KEY": "the-key", "M3TER_ORG_ID": "the-organization"}
NewSecret = Callable[..., str]


@pytest.fixture
def new_secret(moto_store: Store, aws_key: Callable[[Key], None], monkeypatch: pytest.MonkeyPatch) -> NewSecret:
    """Keeps a value in a Secrets Manager that looks at who asks, as an exporter who may read it does; the ARN of it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", moto_store.endpoint)
    aws_key(moto_store.exporter)

    def new(**value: Any) -> str:
        name = f"m3ter/{uuid.uuid4().hex}"
        return moto_store.client("secretsmanager").create_secret(Name=name, **value)["ARN"]

    return new


def secret_of(arn: str) -> str:
    return load_m3ter_settings({**PLAIN, "M3TER_API_SECRET_ARN": arn}).api_secret.get_secret_value()


def refusal_of(arn: str) -> str:
    """The one sentence about it, behind what it is about, with no value in it."""
    with pytest.raises(ConfigError) as error:
        secret_of(arn)
    (words,) = error.value.mistakes
    assert VALUE not in words
    return words.removeprefix("the environment has the M3TER_API_SECRET_ARN").removeprefix(f" {arn!r}")


def test_a_text_and_a_key_of_json(new_secret: NewSecret) -> None:
    assert secret_of(new_secret(SecretString=f"{VALUE}\n")) == VALUE
    arn = new_secret(SecretString=json.dumps({"apiKey": "the-key", "apiSecret": VALUE, "number": 1}))
    assert secret_of(f"{arn}:apiSecret") == VALUE
    assert secret_of(f"{arn}:apiSecret:AWSCURRENT:") == VALUE


def test_only_what_is_needed_is_asked_for(new_secret: NewSecret, tmp_path: Path) -> None:
    """`jobs` and `schedules` need no secret, nor does an exports.yaml that names none."""
    environ = {**PLAIN, "M3TER_API_SECRET_ARN": AN_ARN, "M3TER_BUCKET_ARN": new_secret(SecretString="acme-exports")}
    (tmp_path / "exports.yaml").write_text("destinations: [{code: warehouse, bucketName: '${M3TER_BUCKET}'}]")
    assert load_exports(environ, folder=tmp_path).destinations[0].bucket_name == "acme-exports"
    assert organization_id(environ) == "the-organization"


def test_each_refusal_says_what_to_do(new_secret: NewSecret, moto_store: Store) -> None:
    arn = new_secret(SecretString=json.dumps({"apiKey": "the-key", "apiSecret": VALUE, "number": 1}))
    keys = f"is JSON with the keys apiKey, apiSecret, number; name one behind the ARN, as in {AN_ARN}."
    assert refusal_of(arn) == f", which {keys}"
    assert refusal_of(f"{arn}:secret") == ", which has no key 'secret'; known are apiKey, apiSecret, number."
    assert refusal_of(f"{arn}:number") == ", which has no text under the key 'number'; store the value there."
    text, binary = new_secret(SecretString=VALUE), new_secret(SecretBinary=VALUE.encode())
    assert refusal_of(f"{text}:key") == ", which is no JSON object; leave out ':key' behind the ARN."
    assert refusal_of(binary) == ", which holds bytes; store a text in it."
    assert refusal_of(new_secret(SecretString=" ")) == ", which is empty; store the value in it."
    gone = f"{text[:-6]}zzzzzz".replace("m3ter/", "other/")
    no_such = "there is no such secret, or no such version of it; look at the ARN."
    assert refusal_of(gone) == f", which cannot be read: {no_such}"
    moto_store.client("secretsmanager").delete_secret(SecretId=(deleted := new_secret(SecretString=VALUE)))
    assert refusal_of(deleted).startswith(", which cannot be read: it has no value that can be read")


def test_credentials_that_may_not_read_it(
    new_secret: NewSecret, moto_store: Store, aws_key: Callable[[Key], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    arn = new_secret(SecretString=VALUE)
    assert moto_store.writer
    aws_key(moto_store.writer)
    allow = "these AWS credentials may not read it; allow them secretsmanager:GetSecretValue."
    assert refusal_of(arn) == f", which cannot be read: {allow}"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert refusal_of(arn).startswith(", which cannot be read: there are no AWS credentials; set AWS_ACCESS_KEY_ID")
    aws_key(moto_store.exporter)
    assert secret_of(arn) == VALUE


def test_nobody_answers(new_secret: NewSecret, monkeypatch: pytest.MonkeyPatch) -> None:
    arn = new_secret(SecretString=VALUE)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://127.0.0.1:9")
    says = "Secrets Manager does not answer (EndpointConnectionError); is it reachable?"
    assert refusal_of(arn) == f", which cannot be read: {says}"


@pytest.mark.usefixtures("new_secret")
@pytest.mark.parametrize("code", sorted({*REFUSALS} - {"NoCredentialsError"}))
def test_each_code_of_aws_has_its_words(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its API reference, of which moto knows a few."""
    answer = json.dumps({"__type": code, "message": VALUE}).encode()

    def refuse(_: Any, start: Any) -> list[bytes]:
        start("400 Bad Request", [("content-type", "application/x-amz-json-1.1")])
        return [answer]

    with LoopbackServer(refuse, handler=QuietHandler) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.url)
        assert refusal_of(AN_ARN) == f", which cannot be read: {REFUSALS[code]}."


def test_what_is_no_arn_may_be_the_secret_itself_and_is_not_repeated() -> None:
    for text in (VALUE, f"arn:aws:iam::123456789012:role/{VALUE}"):
        says = f", which is no ARN of a secret in AWS Secrets Manager; write one such as {AN_ARN}."
        assert refusal_of(text) == says
    with pytest.raises(ConfigError, match="has M3TER_API_SECRET and M3TER_API_SECRET_ARN; keep one of them"):
        load_m3ter_settings({**PLAIN, "M3TER_API_SECRET": VALUE, "M3TER_API_SECRET_ARN": AN_ARN})
    assert SECRET_ARN.fullmatch(AN_ARN)


def test_a_command_shows_no_value(new_secret: NewSecret, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "exports.yaml").write_text("destinations: [{code: warehouse, bucketName: acme-exports}]")
    arn = new_secret(SecretString=json.dumps({"apiSecret": VALUE}))
    for shown, code in ((f"{arn}:apiSecret", 0), (arn, 2), (VALUE, 2)):
        result = CliRunner().invoke(main, ["check"], env={**PLAIN, "M3TER_API_SECRET_ARN": shown})
        assert (result.exit_code, VALUE in result.output) == (code, False), result.output
    assert "AWS_ACCESS_KEY_ID" in os.environ
