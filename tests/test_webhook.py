from __future__ import annotations

import logging
import traceback

import pytest
from pydantic import SecretStr
from receiver import PATH, SECRET, Answer, Receiver

from m3ter_dagster.alarms.webhook import LAST_TRY_SECONDS, LONGEST_TEXT, NotTaken, Webhook

BUSY = Answer(503, b"later")


def refusal(receiver: Receiver, **values: float) -> str:
    with pytest.raises(NotTaken) as raised:
        receiver.webhook(**values).post("hello")
    shown = "".join(traceback.format_exception(raised.value))
    assert SECRET not in shown
    return str(raised.value)


def test_a_message_is_what_slack_takes() -> None:
    with Receiver() as receiver:
        receiver.webhook().post("the export failed\nbill: no answer")
    assert receiver.posts == [{"text": "the export failed\nbill: no answer"}]
    (request,) = receiver.requests
    assert (request["REQUEST_METHOD"], request["PATH_INFO"]) == ("POST", PATH)
    assert request["CONTENT_TYPE"] == "application/json"


def test_a_query_belongs_to_the_address() -> None:
    with Receiver() as receiver:
        Webhook(SecretStr(f"{receiver.url}?sig=a%2Fb")).post("hello")
    assert receiver.requests[0]["QUERY_STRING"] == "sig=a%2Fb"


def test_no_text_calls_a_channel_or_makes_a_link() -> None:
    with Receiver() as receiver:
        receiver.webhook().post("<!channel> A & B")
    assert receiver.texts == ["&lt;!channel&gt; A &amp; B"]


def test_a_long_text_is_cut() -> None:
    with Receiver() as receiver:
        receiver.webhook().post("x" * 5000)
    assert receiver.texts == ["x" * (LONGEST_TEXT - 3) + "..."]


def test_later_answers_are_tried_again() -> None:
    with Receiver(BUSY, Answer(429, headers={"Retry-After": "3"}), Answer()) as receiver:
        receiver.webhook().post("hello")
    assert receiver.texts == ["hello"] * 3
    assert receiver.sleeps == [1, 3]


def test_not_for_ever() -> None:
    with Receiver(BUSY) as receiver:
        assert "the message: status 503, 4 tries; check notifications.webhookUrl" in refusal(receiver)
    assert len(receiver.posts) == 4
    assert sum(receiver.sleeps) < LAST_TRY_SECONDS


def test_nor_as_long_as_the_webhook_would_like() -> None:
    with Receiver(Answer(429, headers={"Retry-After": "100"})) as receiver:
        assert "status 429, 1 tries" in refusal(receiver)
    assert receiver.sleeps == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(404, b"no_service"), "the message: status 404 no_service; check"),
        (Answer(403, b"invalid_token\n"), "status 403 invalid_token; check"),
        (Answer(404, f"Cannot POST {PATH}".encode()), "status 404; check"),
        (Answer(400, SECRET.encode()), "status 400; check"),
        (Answer(400, b"\xff"), "status 400; check"),
        (Answer(302, b"", {"Location": "/elsewhere"}), "status 302; check"),
    ],
)
def test_a_refusal_is_final_and_repeats_no_address(answer: Answer, words: str) -> None:
    with Receiver(answer) as receiver:
        assert words in refusal(receiver)
    assert len(receiver.posts) == 1


def test_a_webhook_that_hangs() -> None:
    with Receiver(Answer(hangs=True)) as receiver:
        assert "no answer (ReadTimeoutError), 4 tries" in refusal(receiver, try_seconds=0.05)


def test_nobody_there() -> None:
    with Receiver() as receiver:
        pass
    assert "no answer (NewConnectionError), 4 tries" in refusal(receiver)


def test_no_log_and_no_repr_shows_the_address(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="urllib3")  # packages that others import silence it
    with Receiver(BUSY, Answer(), Answer(404), Answer(302, headers={"Location": PATH})) as receiver:
        webhook = receiver.webhook()
        webhook.post("hello")
        refusal(receiver)
        refusal(receiver)
    assert SECRET not in caplog.text
    assert SECRET not in repr(webhook) + str(webhook)
    assert caplog.records, "urllib3 logs its connections"
